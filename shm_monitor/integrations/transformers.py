"""transformers' Trainer: pause, agreed stop with a checkpoint, and batches in as many slices as memory allows.

And ``accumulate`` for loops over accelerate.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shm_monitor.acting.microbatch import MicroBatch
from shm_monitor.errors import MissingDependencyError
from shm_monitor.integrations.pressure import Pause, Pressure
from shm_monitor.schema import Level

try:
    import torch
    from torch import distributed
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.transformers", "transformers", "transformers") from error

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader

_log = logging.getLogger("shm_monitor")


class PressureCallback(TrainerCallback):
    """``Trainer(callbacks=[PressureCallback(stop_on=Level.CRITICAL)])``.

    Under pressure a rank waits before its next step, at most *max_pause* seconds and once per episode. From *stop_on*
    on all ranks stop after the same step, with a checkpoint.
    """

    def __init__(
        self,
        *,
        stop_on: Level | None = None,
        pause_on: Level | None = Level.PRUNE,
        max_pause: float = 30.0,
        every: int = 8,
        reader: Reader | None = None,
    ) -> None:
        """Prepare.

        Args:
            stop_on: the level from which on training stops; None never stops it.
            pause_on: the level from which on it pauses; None never pauses.
            max_pause: seconds; below the time-out of the collectives, since other ranks wait meanwhile.
            every: steps between two agreements of the ranks on stopping.
            reader: None asks the default sampler, as ``attach()`` does.
        """
        self._pressure = Pressure(reader, on=Level.PRUNE if pause_on is None else pause_on)
        self._pause = Pause(self._pressure, max_pause, doing="pausing before the next step")
        self._pauses = pause_on is not None
        self._stop_on = stop_on
        self._every = every

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ARG002
        """Pause while it presses."""
        if self._pauses:
            self._pause()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:  # noqa: ARG002
        """Agree with the other ranks whether to stop; every rank comes here for the same steps."""
        if self._stop_on is not None and state.global_step % self._every == 0:
            wanted = self._pressure.level() >= self._stop_on
            if any_rank(wanted, args.device):
                control.should_save = control.should_training_stop = True
                _log.warning("training stops after step %d; %s", state.global_step, self._pressure.why())
        return control


def any_rank(wanted: bool, device: Any = "cpu") -> bool:
    """Return whether any rank wants it, the same answer on all of them; a collective where there are several."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return wanted
    word = torch.tensor([int(wanted)], device="cpu" if distributed.get_backend() == "gloo" else device)
    distributed.all_reduce(word, op=distributed.ReduceOp.MAX)
    return bool(word.item())


class MicroBatchMixin:
    """``class MyTrainer(MicroBatchMixin, Trainer)``: each batch runs in as many slices as memory allows.

    Where the loss is normalised by ``num_items_in_batch``, the losses of the slices add up to that of the batch; else
    they are means, and each counts by its share of the rows.

    Attributes:
        micro: decides; one from 1 to the batch size of the arguments is made when first needed.
    """

    micro: MicroBatch | None = None
    _weight: float | None = None

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Return the loss of the batch, after as many forward and backward passes as it had slices."""
        keys = [key for key, value in inputs.items() if isinstance(value, torch.Tensor) and value.dim()]
        rows = {len(inputs[key]) for key in keys}
        if len(rows) != 1:  # nothing that could be cut along its rows
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        micro = self.micro
        if micro is None:
            micro = self.micro = MicroBatch(max(self.args.train_batch_size, 1))  # type: ignore[attr-defined]
        is_normalised = self._is_normalised(num_items_in_batch)
        total: Any = 0.0
        for slices, weight, is_last in micro.split(*(inputs[key] for key in keys), model=model):
            part = {**inputs, **dict(zip(keys, slices, strict=True))}
            self._weight = None if is_normalised else weight
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):  # type: ignore[attr-defined]
                total = total + super().training_step(model, part, num_items_in_batch)  # type: ignore[misc]
        self._weight = None
        return total

    def compute_loss(self, model: Any, inputs: dict[str, Any], *others: Any, **named: Any) -> Any:
        """Return the loss of a slice, weighted by its share of the rows where it is a mean over rows."""
        found = super().compute_loss(model, inputs, *others, **named)  # type: ignore[misc]
        if self._weight is None:
            return found
        return (found[0] * self._weight, *found[1:]) if isinstance(found, tuple) else found * self._weight

    def _is_normalised(self, num_items_in_batch: Any) -> bool:
        """Say whether the loss is a sum over *num_items_in_batch*. Source: transformers 5.24, training_step."""
        accepts = getattr(self, "model_accepts_loss_kwargs", False) and num_items_in_batch is not None
        return bool(accepts) or getattr(self, "compute_loss_func", None) is not None


def accumulate(
    accelerator: Any, model: Any, micro: MicroBatch, *tensors: Any
) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield (slices, weight) of one batch for a loop over accelerate; gradients are exchanged with the last slice.

        for (xs, ys), weight in accumulate(accelerator, model, micro, x, y):
            accelerator.backward(loss_of(model(xs), ys) * weight)

    Raises:
        ValueError: tensors of different lengths.
        UnsafeSplitError: *model* normalises over the batch (BatchNorm).
    """
    for slices, weight, is_last in micro.split(*tensors, model=model):
        with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
            yield slices, weight
