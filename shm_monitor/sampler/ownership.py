"""Own a segment: take over what a dead sampler left, or make a new one and retire the old.

Call everything here with the ``Lock`` of the name held.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

from shm_monitor.errors import MonitorError, NoSpaceError, NotFoundError
from shm_monitor.segment import layout
from shm_monitor.segment.flags import ended_word
from shm_monitor.segment.layout import HEADER, Header, SlotLayout
from shm_monitor.segment.mapping import identity, open_read_only, read_slot, taken
from shm_monitor.segment.memory_identity import boot_id, cgroup_namespace
from shm_monitor.segment.names import HAS_DIRECTORY, NEW_SUFFIX, SHM_DIRECTORY, object_name, object_path
from shm_monitor.segment.removal import unlink_object
from shm_monitor.supervision.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator


class OwnedSegment:
    """The writable mapping of one segment, and whether it has a past.

    Attributes:
        header: as planned for this schema; ``pid`` and the times are the caller's to write.
        memory: all bytes, writable; release every view of it before ``close``.
        taken_over: true when the ring, the flags and the head of a dead sampler go on.
    """

    def __init__(
        self,
        name: str,
        schema: bytes,
        slot: SlotLayout,
        *,
        slot_count: int,
        capabilities: int,
        memory_cgroups: bytes = b"",
    ) -> None:
        """Take over the segment *name* if it means the same in every byte, else prepare a new one beside it.

        Raises:
            NoSpaceError: shared memory is full; nothing is left behind.
            UntrustedError: somebody else has the name, and it may not be replaced.
        """
        self.name = name
        # Readers look at the capabilities once, when they attach: other capabilities are another segment.
        self.header = layout.plan(schema, slot, slot_count)._replace(capabilities=capabilities, boot_id=boot_id())
        if memory_cgroups:  # other memory is another history
            self.header = self.header._replace(cgroup_namespace=cgroup_namespace(), memory_cgroups=memory_cgroups)
        self._retiring: SharedMemory | None = None
        old = _readable(name)
        self.taken_over = old is not None and _continues(old, self.header, name, schema=schema, slot=slot)
        if self.taken_over:
            self._shared = _attach(object_name(name))
            with contextlib.suppress(OSError):  # what a sampler killed in its start left beside it
                unlink_object(object_name(name) + NEW_SUFFIX)
        else:
            self._retiring = _attach(object_name(name)) if old is not None else None
            self._shared = _create(name, self.header.total_size)
        self.memory = _buffer(self._shared)
        if not self.taken_over:
            self.memory[layout.SCHEMA_OFFSET : layout.SCHEMA_OFFSET + len(schema)] = schema
        self._words = self.memory[: self.header.total_size].cast("Q")
        self._identity = identity(name) if self.taken_over else None
        self._pid = os.getpid()

    def word(self, offset: int) -> int:
        """Return the u64 at *offset*."""
        return self._words[offset // layout.WORD_BYTES]

    def store(self, offset: int, value: int) -> None:
        """Store the u64 *value* at *offset*, whole: an aligned 8-byte move, never seen half."""
        self._words[offset // layout.WORD_BYTES] = value

    def complete(self, header: Header) -> None:
        """Write *header* with the magic last; then let the name point here, and only then retire the old segment."""
        if not self.taken_over:
            packed = HEADER.pack(*header)
            self.memory[layout.WORD_BYTES : HEADER.size] = packed[layout.WORD_BYTES :]
            self.store(0, header.magic)
            if HAS_DIRECTORY:
                _rename(self.name)
            self._identity = identity(self.name)
        if self._retiring is not None:
            retire(self._retiring)
            self._retiring = None

    def lost_its_name(self) -> bool:
        """Say whether nobody can find this segment by its name any more, though it had it."""
        return self._identity is not None and identity(self.name) != self._identity

    def close(self, *, unlink: bool) -> None:
        """Unmap; with *unlink* also remove the name if it is still this object's. In a forked child, nothing."""
        if os.getpid() != self._pid:
            return
        if unlink and self._identity is not None and not self.lost_its_name():
            unlink_object(object_name(self.name))
        if unlink and self._identity is None:
            unlink_object(object_name(self.name) + NEW_SUFFIX)
        self._words.release()
        self._shared.close()


def retire(shared: SharedMemory) -> None:
    """Tell the readers of *shared* that another segment has its name: state, flags that read as ended; then unmap.

    A sampler that still writes there, because it was taken for dead, is fenced: no epoch is zero.
    """
    words = _buffer(shared).cast("Q")
    words[layout.EPOCH_OFFSET // layout.WORD_BYTES] = 0
    words[layout.STATE_OFFSET // layout.WORD_BYTES] = layout.RETIRED
    first = layout.FLAGS_OFFSET // layout.WORD_BYTES
    for index in range(first, first + layout.FLAG_COUNT):
        words[index] = ended_word(words[index])
    words.release()
    shared.close()


def _buffer(shared: SharedMemory) -> memoryview:
    """Return the whole buffer, which a SharedMemory lacks only once it is closed."""
    if shared.buf is None:
        raise ValueError(f"{shared.name} is closed")
    return shared.buf


def _readable(name: str) -> Header | None:
    """Return the header of what has *name* now, or None; an object that cannot be continued loses the name."""
    try:
        memory, header, _ = open_read_only(name)
    except NotFoundError:
        return None
    except MonitorError:
        if not HAS_DIRECTORY:
            unlink_object(object_name(name))
        return None
    memory.close()
    return header


def _continues(old: Header, planned: Header, name: str, *, schema: bytes, slot: SlotLayout) -> bool:
    """Say whether *old* means the same as *planned* in every byte, in this boot, and its newest sample is whole."""
    constant = Header._fields.index("pid")  # what comes before is written once, what follows at each takeover
    if old[:constant] != planned[:constant]:
        return False
    memory, header, _ = open_read_only(name)
    with memory:
        if memory[layout.SCHEMA_OFFSET : layout.SCHEMA_OFFSET + len(schema)] != schema:
            return False
        head = int.from_bytes(memory[layout.HEAD_OFFSET : layout.HEAD_OFFSET + layout.WORD_BYTES], "little")
        state = int.from_bytes(memory[layout.STATE_OFFSET : layout.STATE_OFFSET + layout.WORD_BYTES], "little")
        return (
            0 < head < 2**63
            and state in {layout.LIVE, layout.STOPPED}
            and read_slot(memory, header, head, crc_offset=slot.crc) is not None
        )


def _create(name: str, size: int) -> SharedMemory:
    """Return a new object of *size* bytes with its memory reserved: on a full tmpfs the first touch is a SIGBUS."""
    new_name = object_name(name) + (NEW_SUFFIX if HAS_DIRECTORY else "")
    try:
        unlink_object(new_name)
        shared = _untracked(new_name, size)
    except OSError as error:
        with contextlib.suppress(OSError):
            unlink_object(new_name)
        raise _refusal(name, size, error) from error
    try:
        _reserve(new_name, size)
    except OSError as error:
        shared.close()
        unlink_object(new_name)
        raise _refusal(name, size, error) from error
    return shared


def _rename(name: str) -> None:
    path = object_path(name)
    try:
        os.rename(path + NEW_SUFFIX, path)
    except OSError as error:  # a directory, or a file that the sticky bit of /dev/shm keeps for its foreign owner
        raise taken(name, path, f"it cannot be replaced ({os.strerror(error.errno or 0)})") from error


def _reserve(new_name: str, size: int) -> None:
    if not HAS_DIRECTORY:
        return  # macOS backs shared memory with swap and has no posix_fallocate
    fd = os.open(f"{SHM_DIRECTORY}/{new_name}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def _refusal(name: str, size: int, error: OSError) -> MonitorError:
    """Return what a failure to make the object of *name* means to its user."""
    refused = refusal(error, f"{object_path(name)} cannot be made")
    if refused is not None and error.errno != errno.ENOMEM:
        return refused
    if error.errno not in {errno.ENOSPC, errno.ENOMEM}:
        return taken(name, object_path(name) + NEW_SUFFIX, f"it cannot be made ({os.strerror(error.errno or 0)})")
    free = os.statvfs(SHM_DIRECTORY) if HAS_DIRECTORY else None
    return NoSpaceError(object_path(name), size, free.f_bavail * free.f_frsize if free else 0)


def _attach(name: str) -> SharedMemory:
    return _untracked(name)


def _untracked(name: str, new_size: int = 0) -> SharedMemory:
    """Return the object *name*, made where *new_size* is given, of which the resource tracker does not hear.

    The tracker would unlink it when this process is killed.
    """
    if sys.version_info >= (3, 13):
        return SharedMemory(name, create=new_size > 0, size=new_size, track=False)
    with _deaf_tracker():
        return SharedMemory(name, create=new_size > 0, size=new_size)


@contextlib.contextmanager
def _deaf_tracker() -> Iterator[None]:
    """What ``track=False`` does from Python 3.13 on.

    Nor does it hear of an end: a SharedMemory that cannot be made unregisters what it never registered. Not registering
    is quiet; unregistering afterwards makes the tracker print a KeyError. The sampler has one thread when it opens its
    segment.
    """
    register, unregister = resource_tracker.register, resource_tracker.unregister
    resource_tracker.register = resource_tracker.unregister = lambda name, rtype: None  # noqa: ARG005
    try:
        yield
    finally:
        resource_tracker.register, resource_tracker.unregister = register, unregister
