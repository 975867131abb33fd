"""Find a segment by name, map it read-only with every check before the first use, and copy samples out of its ring.

Not through ``multiprocessing.shared_memory``: attaching there is read-write, registers the object with a resource
tracker that unlinks it when the attaching process exits (before 3.13, and by default after), and a failed attach
unlinks the live object (python/cpython#82300, #153279).
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from zlib import crc32

from shm_monitor.errors import CorruptError, IncompatibleError, NotFoundError, NotReadyError, UntrustedError
from shm_monitor.forks import importing
from shm_monitor.segment.layout import HEADER, MAGIC, MAJOR, SLOT_HEAD, SLOT_TAIL, Header, flaw
from shm_monitor.segment.names import HAS_DIRECTORY, object_name, object_path


def open_read_only(name: str) -> tuple[mmap.mmap, Header, tuple[int, int]]:
    """Map the segment *name* read-only; return the mapping, its checked header and its identity. About 60 us.

    Raises:
        NotFoundError: nothing has this name.
        NotReadyError: its sampler is still starting.
        UntrustedError: a foreign owner, a link, or a mode that lets others write.
        IncompatibleError: another major version.
        CorruptError: a header that no sampler writes.
    """
    path = object_path(name)
    fd = _open(name, path)
    try:
        found = os.fstat(fd)
        size = _trusted_size(name, path, found)
        memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:  # no address space left, or it has just become shorter
        raise UntrustedError(name, path, f"it cannot be mapped ({error})") from error
    finally:
        os.close(fd)
    try:
        return memory, read_header(name, memory), (found.st_dev, found.st_ino)
    except Exception:
        memory.close()
        raise


def read_header(name: str, memory: mmap.mmap | memoryview) -> Header:
    """Return the header at the start of *memory*, checked against its length."""
    header = Header._make(HEADER.unpack(memory[: HEADER.size]))
    if header.magic == 0:
        raise NotReadyError(name, "its first sample is not complete")
    if header.magic != MAGIC:
        raise CorruptError(name, f"magic {header.magic:#018x}, not {MAGIC:#018x}")
    if header.major != MAJOR:
        raise IncompatibleError(name, f"layout version {header.major}.{header.minor}", f"version {MAJOR}")
    wrong = flaw(header, len(memory))
    if wrong:
        raise CorruptError(name, wrong)
    return header


def read_slot(memory: mmap.mmap, header: Header, number: int, *, crc_offset: int) -> bytes | None:
    """Return the bytes of sample *number*, or None when its slot holds another sample or a half-written one.

    The crc holds on any memory model, so no fence is needed, on ARM neither. 1 to 2 us for a slot of 1 to 2 KB.
    """
    start = header.ring_offset + number % header.slot_count * header.slot_stride
    data = memory[start : start + header.slot_stride]
    crc, number_end = SLOT_TAIL.unpack_from(data, crc_offset)
    if number_end != number or SLOT_HEAD.unpack_from(data)[0] != number:
        return None
    return data if crc32(memoryview(data)[:crc_offset]) == crc else None


def identity(name: str) -> tuple[int, int] | None:
    """Return (device, inode) of the object that has *name* now, or None; about 2 us, for "is it still mine?"."""
    try:
        found = os.stat(object_path(name), follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _open(name: str, path: str) -> int:
    try:
        if HAS_DIRECTORY:
            # O_NONBLOCK: opening a FIFO that somebody put there would wait for ever.
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with importing:
            from _posixshmem import shm_open  # macOS has no directory of its shared memory

        return int(shm_open(f"/{object_name(name)}", os.O_RDONLY, mode=0))
    except FileNotFoundError:
        raise NotFoundError(name, path, root_has_one=_has_root_one(name)) from None
    except PermissionError:
        raise taken(name, path, "it may not be read by this user") from None
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise NotReadyError(name, f"{path} cannot be opened: {error.strerror} (ulimit -n)") from error
        raise taken(name, path, f"it cannot be opened ({os.strerror(error.errno or 0)})") from error


def _has_root_one(name: str) -> bool:
    """Say whether root has a segment of this name, and this user is another; its existence can be seen, no more."""
    return os.getuid() != 0 and os.path.exists(object_path(name, uid=0))


def taken(name: str, path: str, detail: str) -> UntrustedError:
    """Return that *path* cannot be used for *detail*, and whose it is: in a sticky directory only its owner may."""
    try:
        owner = os.stat(path, follow_symlinks=False).st_uid
    except OSError:
        return UntrustedError(name, path, detail)
    whose = "" if owner == os.getuid() else f"owner {owner} is not this user ({os.getuid()}), and "
    return UntrustedError(name, path, f"{whose}{detail}", owner_uid=owner)


def _trusted_size(name: str, path: str, found: os.stat_result) -> int:
    """Return the size of the opened object, or raise if somebody else could have written it."""
    if not stat.S_ISREG(found.st_mode) and HAS_DIRECTORY:
        raise UntrustedError(name, path, "it is not a regular file")
    if found.st_uid not in {os.getuid(), 0}:
        detail = f"owner {found.st_uid} is neither this user ({os.getuid()}) nor root"
        raise UntrustedError(name, path, detail, owner_uid=found.st_uid)
    if found.st_nlink > 1:
        raise UntrustedError(name, path, f"it has {found.st_nlink} hard links, allowed is 1")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedError(name, path, f"mode {stat.S_IMODE(found.st_mode):04o} lets others write, allowed is 0600")
    if found.st_size < HEADER.size:
        raise NotReadyError(name, f"it has {found.st_size} bytes so far")
    return found.st_size
