"""Which process listens on a port of this machine, for the one line that says why an API does not start."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path

from shm_monitor.process_names import name_of

NAME_HEADER = "Shm-Monitor-Name"
ANSWER_SECONDS = 1.0
_LISTEN = "0A"  # of the states of a socket, proc_net_tcp(5)


def listener_on(host: str, port: int) -> str:
    """Return who listens on *port*: program, pid, and the sampler whose API it is; empty where nobody can tell.

    Source: proc_net_tcp(5) has the inode of the socket, proc_pid_fd(5) the process that holds it. Linux only.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    pid = next(_holders(sockets), 0) if sockets else 0
    process = f"{name_of(pid).name} (pid {pid})" if pid else ""
    sampler = _sampler_served_by(host, port)
    return " ".join(filter(None, (process, f"with the API of the sampler {sampler!r}" if sampler else "")))


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _holders(sockets: set[str]) -> Iterator[int]:
    """Yield the processes that hold one of *sockets*, as far as this user may look."""
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(os.readlink(entry.path) in sockets for entry in os.scandir(directory)):
                yield int(directory.parent.name)


def _sampler_served_by(host: str, port: int) -> str:
    """Return the name of the sampler that an API of ours serves there; empty where it is none, or wants a token."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/resources/all", headers={"Host": "localhost"})
        return connection.getresponse().headers.get(NAME_HEADER, "")
    return ""
