"""Whose memory: the cgroups that limit this process, by inode, compared with those that a sampler measures.

The inode of a cgroup's directory is the same from every container of one kernel; its path is not.
Source: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from struct import Struct

from shm_monitor.errors import OtherMemoryError
from shm_monitor.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shm_monitor.segment.layout import Header

_CGROUPS = Struct("<16Q")
_UNLIMITED_BYTES = 2**62  # v1 writes the largest number of pages
_FILES = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}
_ESCAPES = ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\"))


class MemoryScope(NamedTuple):
    """One memory cgroup: the inode of its directory, its path as /proc/N/cgroup has it, its limit or None.

    *directory* is where this process sees it.
    """

    inode: int
    name: str
    limit_bytes: int | None
    directory: str = ""


def own_scopes() -> list[MemoryScope] | None:
    """Return the memory cgroups of this process, innermost first; None where it cannot see its own directory."""
    try:
        with open("/proc/self/cgroup", "rb") as file:
            membership = file.read()
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read()
    except OSError:
        return None
    for version in (1, 2):
        path = _path(membership, version)
        if not path:
            continue
        for root, point in sorted(_mounts(mounts, version), key=len):
            below = _below(root, path) or _hidden(root, path, point)
            if below is not None and os.access(os.path.join(point, *below), os.F_OK):
                return _chain(version, path, point, below)
        break  # a v1 hierarchy has the memory controller, so that v2 does not limit memory
    return None


def innermost_limit() -> MemoryScope | None:
    """Return the innermost cgroup whose memory limit holds for this process; None where none is seen."""
    return next((one for one in own_scopes() or () if one.limit_bytes is not None), None)


def identity_of_memory() -> str:
    """Return what names the memory of this process on this host: boot id and inode of the innermost limit's cgroup.

    The inode is 0 where no cgroup limits it: the memory is the host's.
    """
    limit = innermost_limit()
    return f"{boot_id().hex()}-{0 if limit is None else limit.inode}"


def boot_id() -> bytes:
    """Return the 16 bytes that name this boot of the kernel; zeros where the system does not say.

    Source: random(4), /proc/sys/kernel/random/boot_id.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def cgroup_namespace() -> int:
    """Return the inode of the cgroup namespace of this process; 0 where the system has none."""
    try:
        return os.stat("/proc/self/ns/cgroup").st_ino
    except OSError:
        return 0


def packed(directories: Sequence[str]) -> bytes:
    """Return the inodes of *directories*, outermost first, as a header carries them; of more than 16 the innermost."""
    inodes = list(_inodes(directories))[-16:]
    return _CGROUPS.pack(*inodes, *[0] * (16 - len(inodes)))


def check(name: str, header: Header, measured: Callable[[], str]) -> None:
    """Return where the sampler of *header* measures what limits this process, or does not say what it measures.

    Args:
        name: of the sampler.
        header: of its segment.
        measured: says for people which cgroup it measures.

    Raises:
        OtherMemoryError: it measures other memory.
    """
    namespace = cgroup_namespace()
    if not header.cgroup_namespace or not namespace:
        return
    scopes = own_scopes()
    if scopes is None:
        if namespace != header.cgroup_namespace:
            raise OtherMemoryError(name, "a cgroup that it cannot see, in another cgroup namespace", measured())
        return
    mine = next((one for one in scopes if one.limit_bytes is not None), None)
    if mine is not None and mine.inode not in _CGROUPS.unpack(header.memory_cgroups):
        raise OtherMemoryError(name, f"{mine.name} (limit {megabytes(mine.limit_bytes or 0)})", measured())


def megabytes(size: float) -> str:
    """Return *size* in bytes as people read it."""
    return f"{size / 1e6:,.0f} MB"


def _inodes(directories: Iterable[str]) -> Iterable[int]:
    for path in directories:
        try:
            yield os.stat(path).st_ino
        except OSError:  # removed meanwhile: no process is in it
            continue


def _path(membership: bytes, version: int) -> str:
    """Return the path in the hierarchy that has the memory controller, or an empty string."""
    for line in membership.split(b"\n"):
        number, _, rest = line.partition(b":")
        names, _, path = rest.partition(b":")
        if (b"memory" in names.split(b",")) if version == 1 else (number == b"0" and not names):
            return os.fsdecode(path)
    return ""


def _mounts(text: bytes, version: int) -> Iterable[tuple[str, str]]:
    """Yield root and mount point of each mount of that hierarchy."""
    for line in text.split(b"\n"):
        head, _, tail = line.partition(b" - ")
        left, right = head.split(b" "), tail.split(b" ")
        if len(left) < 5 or len(right) < 3:
            continue
        if right[0] == b"cgroup2" if version == 2 else right[0] == b"cgroup" and b"memory" in right[2].split(b","):
            yield _unescaped(left[3]), _unescaped(left[4])


def _unescaped(path: bytes) -> str:
    for escape, byte in _ESCAPES:
        path = path.replace(escape, byte)
    return os.fsdecode(path)


def _below(root: str, path: str) -> list[str] | None:
    """Return the names that lead from *root* to *path*; None where it is not below."""
    above, own = [one for one in root.split("/") if one], [one for one in path.split("/") if one]
    names = own[len(above) :]
    return names if own[: len(above)] == above and ".." not in names else None


def _hidden(root: str, path: str, point: str) -> list[str] | None:
    """Return the same where the mount was made outside of our cgroup namespace, which hides the names between."""
    above, own = [one for one in root.split("/") if one], [one for one in path.split("/") if one]
    if not above:
        return [] if not own else None
    ups = own.count("..")
    if set(above) != {".."} or len(above) <= ups:
        return None
    return _search(point, len(above) - ups, own[ups:])


def _search(directory: str, hidden: int, known: list[str]) -> list[str] | None:
    """Return the way to the cgroup *hidden* levels and *known* below *directory* that holds this process."""
    if not hidden:
        try:
            with open(os.path.join(directory, *known, "cgroup.procs"), "rb") as file:
                return known if str(os.getpid()).encode() in file.read().split() else None
        except OSError:
            return None
    try:
        names = [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return None
    for name in names:
        found = _search(os.path.join(directory, name), hidden - 1, known)
        if found is not None:
            return [name, *found]
    return None


def _chain(version: int, path: str, point: str, below: Sequence[str]) -> list[MemoryScope]:
    found = []
    for hidden in range(len(below) + 1):
        directory = os.path.join(point, *below[: len(below) - hidden])
        try:
            inode = os.stat(directory).st_ino
        except OSError:
            continue
        limits = [_limit(os.path.join(directory, file)) for file in _FILES[version]]
        known = [one for one in limits if one is not None]
        own = path.rstrip("/").split("/")
        found.append(MemoryScope(inode, "/".join(own[: len(own) - hidden]) or "/", min(known, default=None), directory))
    return found


def _limit(path: str) -> int | None:
    """Return the limit in the file *path* in bytes; None for no limit and for no file."""
    try:
        with open(path, "rb") as file:
            text = file.read().strip()
    except OSError:
        return None
    size = int(text) if text.isdigit() else _UNLIMITED_BYTES
    return size if size < _UNLIMITED_BYTES else None
