"""Write traces: one record per sample, whole or not at all; a file that got none does not stay."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike

from shm_monitor.errors import SegmentError, TraceError
from shm_monitor.schema import Unknown, unknown
from shm_monitor.traces.binary import Table, read_table, record_dtype, sound

if TYPE_CHECKING:
    from shm_monitor.segment.view import View
    from shm_monitor.worker.reader import Reader

_HEAD_BYTES = 1 << 22  # more than the head of any trace takes


class Recorder:
    """Appends samples to one file; safe against a kill at any time.

    Attributes:
        table: of the file.
        last: (mono_ns, realtime_ns) of its newest record; zeros when it is empty.
    """

    def __init__(self, path: str | Path, table: Table) -> None:
        """Open *path*, to begin it or to go on with it.

        Raises:
            TraceError: it is something else, it has other metrics, or another recorder has it open.
            OSError: it cannot be written.
        """
        self._path, self._head = str(path), table.to_bytes()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.last = (0, 0)
        try:
            self._lock()
            try:
                self.table, self.last = self._begin(table)
            except KeyboardInterrupt:
                self._remove_empty()
                raise
        except BaseException:
            os.close(self._file)
            raise
        self._record = np.zeros(1, record_dtype(len(self.table.metrics)))

    def write(
        self, values: ArrayLike, *, number: int, epoch: int, mono_ns: int, realtime_ns: int, verdict: int = 0
    ) -> None:
        """Append one sample; *values*, shape (metrics,), in the order of the table.

        Raises:
            OSError: no space is left; what was written of the record is cut off again.
        """
        record = self._record
        record["number"], record["epoch"], record["verdict"] = number, epoch, verdict
        record["mono_ns"], record["realtime_ns"] = mono_ns, realtime_ns
        record["values"] = values
        record["crc"] = crc32(record.tobytes()[:-8])
        data = record.tobytes()
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, os.lseek(self._file, -written, os.SEEK_CUR))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)  # why a write to a file is short
        self.last = mono_ns, realtime_ns

    def has(self, mono_ns: int, realtime_ns: int) -> bool:
        """Return whether a sample of that time is in the file: older on both clocks than the newest one there is."""
        return mono_ns <= self.last[0] and realtime_ns <= self.last[1]

    def close(self) -> None:
        """Close the file, so that others may record to it, and remove it if it has no sample."""
        if self.last == (0, 0):
            self._remove_empty()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _remove_empty(self) -> None:
        """Remove the file, of which this process holds the lock, unless it holds more than the head of a trace."""
        with suppress(OSError):
            size = os.fstat(self._file).st_size
            if size <= len(self._head) and os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                os.unlink(self._path)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TraceError(self._path, "another process records to it", "choose another file") from None

    def _begin(self, table: Table) -> tuple[Table, tuple[int, int]]:
        """Write the head into an empty file, or stand behind the last whole record of one that is like it."""
        head = self._head
        data = os.pread(self._file, max(len(head), _HEAD_BYTES), 0)
        if head.startswith(data):  # empty, or killed while the head was written
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, head, 0)
            os.lseek(self._file, len(head), os.SEEK_SET)
            return table, (0, 0)
        found, start = read_table(data, self._path)
        if found.metrics != table.metrics:
            raise TraceError(self._path, "it has other metrics than this sampler", "choose another file")
        dtype = record_dtype(len(found.metrics))
        end = start + (os.fstat(self._file).st_size - start) // dtype.itemsize * dtype.itemsize
        newest = np.empty(0, dtype)
        while end > start:
            newest = np.frombuffer(os.pread(self._file, dtype.itemsize, end - dtype.itemsize), dtype)
            if sound(newest)[0]:
                break
            end -= dtype.itemsize
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return found, (int(newest["mono_ns"][0]), int(newest["realtime_ns"][0])) if end > start else (0, 0)


def record(
    reader: Reader,
    path: str | Path,
    *,
    follow: bool = True,
    seconds: float | None = None,
    everything: bool = False,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Append what is in the ring of *reader*'s sampler to the file *path*, then each new sample; return how many.

    A sampler that crashed has left its ring: ``follow=False`` takes what there is. Samples that the file already has
    are not written again, so the same command after an interruption goes on where it stopped.

    Args:
        reader: attached; a sampler that restarts is followed.
        path: the file.
        follow: wait for new samples.
        seconds: how long to follow; None: until an exception, such as KeyboardInterrupt, which leaves the file whole.
        everything: record every metric, not only what decides (ten times the size).
        sleep: waits for so many seconds; called between looks at the ring.
        clock: seconds that rise.

    Raises:
        TraceError: the file is something else, or has other metrics.
        SegmentError: there is no segment to begin with.
    """
    table = Table.of(reader.view(), everything=everything)
    until = None if seconds is None else clock() + seconds
    written = 0
    with Recorder(path, table) as recorder:
        copier = _Copier(recorder)
        while True:
            with suppress(SegmentError):  # a sampler that restarts is away for a moment
                written += copier.copy(reader.view())
            if not follow or (until is not None and clock() >= until):
                return written
            sleep(table.interval_ns / 1e9)


class _Copier:
    """Copies the samples of the ring that the file has not yet."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._view: View | None = None

    def copy(self, view: View) -> int:
        """Append the new samples of *view*, return how many."""
        if view is not self._view:
            self._view, self._after = view, 0
            self._places = _places(self._recorder.table, view)
        written = 0
        slot = view.slot
        for sample in view.samples(after=self._after):
            self._after = sample.number
            if self._recorder.has(sample.mono_ns, sample.realtime_ns):
                continue
            values = np.frombuffer(sample.data, "<f8", slot.metric_count, slot.values)
            # The last value is for what this sampler does not have.
            known = np.append(values, unknown(Unknown.NOT_SUPPORTED))[self._places]
            self._recorder.write(
                known,
                number=sample.number,
                epoch=sample.epoch,
                mono_ns=sample.mono_ns,
                realtime_ns=sample.realtime_ns,
                verdict=sample.verdict,
            )
            written += 1
        return written


def _places(table: Table, view: View) -> Sequence[int]:
    """Return where the metrics of *table* are among the values of *view*; one past the end for those it has not."""
    places = view.schema.places
    return [places.get(metric.name, len(places)) for metric in table.metrics]
