"""One batch in as many slices as memory allows: gradients add up to those of the whole batch."""

from __future__ import annotations

from shm_monitor.acting.governor import Governor
from shm_monitor.acting.peak import PeakMeter
from shm_monitor.errors import UnsafeSplitError
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class MicroBatch(Governor):
    """A ``Governor`` whose units are the rows of a batch, and which measures by itself what a row takes.

        micro = sm.MicroBatch(full=256, floor=8)
        for x, y in loader:
            for (xs, ys), weight, is_last in micro.split(x, y):
                with contextlib.nullcontext() if is_last else model.no_sync():  # only for DistributedDataParallel
                    (loss_of(model(xs), ys) * weight).backward()
            optimizer.step()

    The loss must be a mean over rows; its weighted sum is that of the whole batch. Data-parallel ranks need not agree
    on the number of slices. Sharded ones (FSDP) gather their weights in each slice and must: there, agree on the size.
    """

    def __init__(self, full: int, **settings: Any) -> None:
        """Take what ``Governor`` takes."""
        super().__init__(full, **settings)
        self._meter = PeakMeter()
        self._observed = False

    def split(self, *tensors: Any, model: Any = None) -> Iterator[tuple[tuple[Any, ...], float, bool]]:
        """Yield (slices, weight, is_last), asking for the size before each slice; the weights sum up to 1.

        The resident memory that a slice takes is measured, unless the caller observes something else during it: for
        memory of a GPU call ``micro.observe(len(xs), torch.cuda.max_memory_allocated() - before)`` in the loop.

        Args:
            tensors: of the same length; anything with ``len()`` and slices: tensors, arrays, lists.
            model: to be refused when splitting would change its result.

        Raises:
            ValueError: tensors of different lengths.
            UnsafeSplitError: *model* normalises over the batch (BatchNorm), so slices are not the batch.
        """
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors of lengths {sorted(lengths)}; allowed are one or more of the same length")
        if model is not None:
            refuse_batch_norm(model)
        return self._slices(tensors, lengths.pop())

    def _slices(self, tensors: tuple[Any, ...], count: int) -> Iterator[tuple[tuple[Any, ...], float, bool]]:
        start = 0
        while start < count:
            self._begin()
            end = start + even_part(count - start, self.step())
            yield tuple(tensor[start:end] for tensor in tensors), (end - start) / count, end == count
            self._end(end - start)
            start = end

    def _begin(self) -> None:
        taught = self._meter.begin()
        if taught is not None:
            with self._lock:
                self.footprint.learn(*taught)
        self._observed = False

    def _end(self, units: int) -> None:
        if not self._observed:
            super().observe(units, 0)
            # Only what warns counts at once; what was kept of it shows when the next slice begins.
            with self._lock:
                self.footprint.warn(units, self._meter.end(units))

    def observe(self, units: int, peak_bytes: float) -> None:
        """Learn as ``Governor.observe``, in place of what would be measured of this slice."""
        self._observed = True
        super().observe(units, peak_bytes)


def even_part(count: int, most: int) -> int:
    """Return the first of the fewest parts of *count* of at most *most* each, all alike: no small one is left over."""
    return -(-count // -(-count // most))


def refuse_batch_norm(model: Any) -> None:
    """Raise UnsafeSplitError when *model*, a ``torch.nn.Module``, has a layer that normalises over the batch.

    Measured: with BatchNorm a split batch trained to a loss of 0.065 where the whole one had 1.03.
    """
    for name, module in model.named_modules():
        if module.training and any("BatchNorm" in kind.__name__ for kind in type(module).__mro__):
            raise UnsafeSplitError(name, type(module).__name__)
