"""What a supervisor and its sampler say to each other: one order in, one report out.

The order goes in over standard input, which then stays open: its end means that the owner is gone.
The report comes out over standard output: one line of JSON, ready or why not.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

import msgspec

from shm_monitor import errors
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import MonitorError, SamplerError

_LENGTH = struct.Struct("<I")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a sampler is told at its start.

    Args:
        config: the whole configuration.
        owner_pid: the process whose end ends the sampler; also the root of the tree of workers that it measures.
        force_clock: use neither the kernel's death mark nor its dead man's switch: readers fall back to the clock.
    """

    config: ResourceConfig
    owner_pid: int
    force_clock: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the start.

    Args:
        error: the name of an exception of ``shm_monitor.errors``; empty when there is a first sample.
        message: what it says.
        attributes: what it carries beside the message.
    """

    pid: int
    taken_over: bool = False
    kernel_marks_death: bool = False
    kernel_ends_hang: bool = False
    error: str = ""
    message: str = ""
    attributes: dict[str, object] = {}


def send_order(fd: int, order: Order) -> None:
    """Write *order* to the pipe *fd*, which stays open; an order is far smaller than a pipe's buffer."""
    data = msgspec.msgpack.encode(order)
    os.write(fd, _LENGTH.pack(len(data)) + data)


def receive_order(pipe: BinaryIO) -> Order:
    """Return the order that ``send_order`` wrote.

    Raises:
        EOFError: the owner ended before it had written all of it.
    """
    length = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))[0]
    return msgspec.msgpack.decode(_exactly(pipe, length), type=Order)


def encode_report(report: Report) -> bytes:
    """Return *report* as one line."""
    return msgspec.json.encode(report, enc_hook=repr) + b"\n"


def decode_report(line: bytes) -> Report:
    """Return the report in *line*.

    Raises:
        SamplerError: the sampler ended without one.
    """
    try:
        return msgspec.json.decode(line, type=Report)
    except msgspec.DecodeError:
        raise SamplerError("the sampler did not report its start; its log on stderr says why") from None


def report_of(error: MonitorError, pid: int) -> Report:
    """Return the report of a start that failed with *error*."""
    return Report(pid=pid, error=type(error).__name__, message=str(error), attributes=vars(error))


def error_of(report: Report) -> MonitorError:
    """Return the exception that *report* describes: of its own type, with its message and its attributes.

    One that this version does not know is a ``SamplerError``.
    """
    kind = getattr(errors, report.error, SamplerError)
    if not issubclass(kind, MonitorError):
        kind = SamplerError
    error: MonitorError = kind.__new__(kind, report.message)
    for name, value in report.attributes.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)  # JSON knows no tuples
    return error


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return data
