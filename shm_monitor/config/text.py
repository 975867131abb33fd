"""The text of a small file of settings, or of a token: one limit and one rule for encodings."""

from __future__ import annotations

import os

from shm_monitor.config.trust import distrust

BYTES_MAX = 64 * 1024
"""A thousand times what is needed, and nothing that could hurt."""


def text_of(path: str) -> str:
    """Return what the file *path* holds, which nobody but this user and root can have written.

    Raises:
        OSError: it cannot be read.
        ValueError: somebody else could have written it; more than ``BYTES_MAX``; no text.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        doubt = distrust(os.fstat(fd), fd)
        if doubt:
            raise ValueError(f"of this user or root that nobody else can write: {doubt}")
        return decoded(read_all(fd))
    finally:
        os.close(fd)


def read_all(fd: int) -> bytes:
    """Return what *fd* holds.

    Raises:
        OSError: it cannot be read.
        ValueError: more than ``BYTES_MAX``.
    """
    with os.fdopen(fd, "rb", closefd=False) as file:
        data = file.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise ValueError(f"more than {BYTES_MAX // 1024} KiB")
    return data


def decoded(data: bytes) -> str:
    """Return *data* as text: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        ValueError: of another encoding.
    """
    # Windows PowerShell 5 writes UTF-16 by default ("> .env").
    return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")


def reason_of(error: OSError | ValueError) -> str:
    """Return why a file could not be read; not the text of a decoding error, which shows the bytes around it."""
    if isinstance(error, UnicodeError):
        return "neither UTF-8 nor UTF-16"
    return getattr(error, "strerror", None) or str(error)
