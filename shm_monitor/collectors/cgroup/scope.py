"""Where a process sits in the cgroup hierarchies, and which directories show it (v1, v2 and both at once).

Source: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5), Documentation/admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.files import ProcFile, Roots, lines
from shm_monitor.errors import ConfigError

_ALLOWED = "must be auto, host, pid:N of a process whose cgroup is mounted here, or the path of a cgroup (/a/b)"
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Scope(NamedTuple):
    """Whose limits are looked at: kind is ``host``, ``pid`` (0: our own) or ``path``."""

    kind: str
    pid: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Return the scope that the configuration spells *text*.

        Raises:
            ConfigError: it is none of auto, host, pid:N and an absolute path.
        """
        if text == "auto":
            return cls("pid")
        if text == "host":
            return cls("host")
        if text.startswith("pid:") and text[4:].isdecimal() and int(text[4:]) > 0:
            return cls("pid", pid=int(text[4:]))
        if text.startswith("/"):
            return cls("path", path=text.rstrip("/") or "/")
        raise ConfigError("scope", text, "configuration", _ALLOWED)

    @property
    def text(self) -> str:
        """The scope as the configuration spells it."""
        if self.kind == "pid":
            return f"pid:{self.pid}" if self.pid else "auto"
        return self.path or self.kind

    @property
    def process(self) -> str:
        """The directory of the process in /proc: ``self`` or its number."""
        return str(self.pid) if self.pid else "self"


class Directory(NamedTuple):
    """One cgroup that can be read: its version (1 or 2), its path as /proc/N/cgroup spells it, and its files."""

    version: int
    name: str
    path: Path


class Mount(NamedTuple):
    """One mounted hierarchy: controllers is empty for v2; root is what of the hierarchy the mount point shows."""

    version: int
    controllers: frozenset[str]
    root: str
    point: Path


_CONTROLLERS = frozenset({b"memory", b"cpu"})


class Cgroups:
    """The cgroups of one scope, from the outermost that is visible to its own. Cost of ``changed``: 7 us.

    What was found holds until the process is moved, a controller is enabled or a hierarchy is mounted.
    """

    def __init__(self, scope: Scope, roots: Roots) -> None:
        """Read the membership and the mounts once.

        Raises:
            ConfigError: the scope names a process or a cgroup that cannot be seen from here.
        """
        self._scope = scope
        self._roots = roots
        self._file = ProcFile(Path(roots.proc, scope.process, "cgroup"), follow=False)  # pids are used again
        self._membership = b""
        self._mount_table = _MountTable(roots)
        self._mounts = list(_mounts(roots))
        self._enabled: tuple[bytes, ...] = ()
        self._controllers: list[ProcFile] = []
        self.changed()
        if (scope.kind == "path" or scope.pid) and not (self.of("memory") or self.of("cpu")):
            raise ConfigError("scope", scope.text, "configuration", _ALLOWED)

    def changed(self) -> bool:
        """Look again, and say whether ``of`` may have another answer since the call before."""
        moved, mounted = self._moved(), self._mount_table.changed()
        if mounted:
            self._mounts = list(_mounts(self._roots))
        if moved or mounted or not self._controllers:
            self._close_controllers()
            self._controllers = [ProcFile(each.path / "cgroup.controllers") for each in reversed(self.of(""))]
        before, self._enabled = self._enabled, self._read_enabled()
        return moved or mounted or self._enabled != before

    def _moved(self) -> bool:
        if self._scope.kind != "pid":
            return False
        try:
            now = self._file.read()
        except OSError:  # the process ended; its cgroup may live on
            return False
        before, self._membership = self._membership, now
        return now != before

    def _read_enabled(self) -> tuple[bytes, ...]:
        """Return the controllers of our own v2 cgroup, and of those above it up to the first that has all we need."""
        found = []
        for file in self._controllers:
            try:
                found.append(file.read())
            except OSError:
                continue
            if set(found[-1].split()) >= _CONTROLLERS:
                break
        return tuple(found)

    def of(self, controller: str) -> list[Directory]:
        """Return the directories that show *controller* (``memory``, ``cpu``), outermost first; none on a bare host."""
        if self._scope.kind == "host":
            return []
        for version, wanted in ((1, controller), (2, "")):
            path = self._path(wanted)
            mounts = [mount for mount in self._mounts if mount.version == version]
            if version == 1:
                mounts = [mount for mount in mounts if controller in mount.controllers]
            if path and mounts:
                return self._directories(path, sorted(mounts, key=lambda mount: len(mount.root)))
        return []

    def _path(self, controller: str) -> str:
        """Return the path in the hierarchy of *controller* (empty: the v2 hierarchy), or an empty string."""
        if self._scope.kind == "path":
            return self._strip_mount_point(self._scope.path)
        for line in lines(self._membership):
            _, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if controller in names.split(","):
                return path
        return ""

    def _strip_mount_point(self, path: str) -> str:
        """Return the path within its hierarchy of a cgroup that may be given as a directory under /sys/fs/cgroup."""
        points = [str(mount.point) for mount in self._mounts if Path(path).is_relative_to(mount.point)]
        return path.removeprefix(max(points, key=len)) or "/" if points else path

    def _directories(self, path: str, mounts: Sequence[Mount]) -> list[Directory]:
        for mount in mounts:
            names = self._names_below(mount, path)
            if names is not None and _exists(mount.point.joinpath(*names)):
                return list(_chain(mount, path, names))
        if self._scope.text != "auto":
            return []
        # Our own cgroup is not under any mount by name; what is mounted in our container is ours or holds ours.
        return [Directory(mount.version, "/", mount.point) for mount in mounts[:1] if _exists(mount.point)]

    def _names_below(self, mount: Mount, path: str) -> list[str] | None:
        """Return the directory names that lead from the mount point to *path*, or None where it is not below it."""
        root, own = _parts(mount.root), _parts(path)
        if own[: len(root)] == root and ".." not in own[len(root) :]:
            return own[len(root) :]
        if not root or set(root) != {".."}:
            return None
        # The mount was made outside our cgroup namespace: the names between its root and ours are hidden from us.
        ups = own.count("..")
        hidden = len(root) - ups
        return self._search(mount.point, hidden, own[ups:]) if hidden > 0 else None

    def _search(self, point: Path, hidden: int, known: Sequence[str]) -> list[str] | None:
        """Return the way to the cgroup *hidden* + len(known) levels below *point* that holds our process."""
        pid = str(self._scope.pid or os.getpid()).encode()
        for procs in point.glob("/".join(["*"] * hidden + [*known, "cgroup.procs"])):
            try:
                if pid in procs.read_bytes().split():
                    return list(procs.parent.relative_to(point).parts)
            except OSError:  # removed while we look
                continue
        return None

    def _close_controllers(self) -> None:
        for file in self._controllers:
            file.close()

    def close(self) -> None:
        """Close every file."""
        self._close_controllers()
        self._mount_table.close()
        self._file.close()


class _MountTable:
    """Tells when something was mounted or unmounted. Source: proc_pid_mounts(5), poll(2). Cost: 1 us."""

    def __init__(self, roots: Roots) -> None:
        self._poll = select.poll()
        try:
            self._fd = os.open(f"{roots.proc}/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
            return
        self._poll.register(self._fd, select.POLLPRI)

    def changed(self) -> bool:
        """Say whether the table has changed since the call before."""
        return any(events & select.POLLPRI for _, events in self._poll.poll(0))

    def close(self) -> None:
        """Close the table."""
        if self._fd >= 0:
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _chain(mount: Mount, path: str, names: Sequence[str]) -> Iterator[Directory]:
    """Yield the directories from the mount point down to *names*; not the root of a v1 hierarchy, it has no limit."""
    for depth in range(len(names) + 1):
        directory = mount.point.joinpath(*names[:depth])
        if mount.version == 2 or not _exists(directory / "release_agent"):
            yield Directory(mount.version, _ancestor(path, len(names) - depth), directory)


def _ancestor(path: str, above: int) -> str:
    """Return the path that is *above* levels over *path*; over the root of a namespace it is ``/..``, as in /proc."""
    parts = _parts(path)
    for _ in range(above):
        if parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append("..")
    return "/" + "/".join(parts)


def _exists(path: Path) -> bool:
    """Say whether *path* is there; one that we may not look at is not (Path.exists would raise)."""
    return os.access(path, os.F_OK)


def _mounts(roots: Roots) -> Iterator[Mount]:
    """Yield the cgroup mounts of our own mount namespace. Source: proc_pid_mountinfo(5)."""
    try:
        data = Path(roots.proc, "self", "mountinfo").read_bytes()
    except OSError:
        return
    for line in lines(data):
        head, _, tail = line.partition(" - ")
        left, right = head.split(" "), tail.split(" ")
        if len(left) < 5 or len(right) < 3 or right[0] not in {"cgroup", "cgroup2"}:
            continue
        version = 2 if right[0] == "cgroup2" else 1
        controllers = frozenset() if version == 2 else frozenset(right[2].split(","))
        yield Mount(version, controllers, _unescape(left[3]), _under(_unescape(left[4]), roots))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _under(point: str, roots: Roots) -> Path:
    """Return a mount point below the root of /sys that was handed in."""
    return Path(roots.sys, point.removeprefix("/sys/")) if point.startswith("/sys/") else Path(point)
