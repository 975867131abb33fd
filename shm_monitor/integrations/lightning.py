"""Lightning: a callback that pauses under pressure, and stops all ranks at the same step with a checkpoint.

And ``accumulate``, for modules with manual optimization that cut their batches.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shm_monitor.errors import MissingDependencyError, MonitorError
from shm_monitor.integrations.pressure import Pause, Pressure
from shm_monitor.schema import Level

try:
    import torch
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.lightning", "lightning", "lightning") from error

if TYPE_CHECKING:
    from shm_monitor.acting.microbatch import MicroBatch
    from shm_monitor.worker.reader import Reader

_log = logging.getLogger("shm_monitor")

CHECKPOINT = "pressure.ckpt"


class PressureCallback(Callback):
    """``Trainer(callbacks=[PressureCallback(stop_on=Level.CRITICAL)])``.

    Under pressure a rank waits before its next batch, at most *max_pause* seconds and once per episode, after it has
    given back what garbage it had. From *stop_on* on all ranks stop after the same batch, with a checkpoint.

    How often and how long it has paused is in the checkpoint.
    """

    def __init__(
        self,
        *,
        stop_on: Level | None = None,
        pause_on: Level | None = Level.PRUNE,
        max_pause: float = 30.0,
        every: int = 8,
        collect: bool = True,
        log: bool = True,
        reader: Reader | None = None,
    ) -> None:
        """Prepare.

        Args:
            stop_on: the level from which on training stops; None never stops it.
            pause_on: the level from which on it pauses; None never pauses.
            max_pause: seconds; below the time-out of the collectives, since other ranks wait meanwhile.
            every: batches between two agreements of the ranks on stopping.
            collect: whether to collect garbage and empty the CUDA cache when pausing.
            log: whether to log level, pauses, shed fraction and bytes left through the trainer's loggers.
            reader: None asks the default sampler, as ``attach()`` does.
        """
        self._pressure = Pressure(reader, on=Level.PRUNE if pause_on is None else pause_on)
        self._pause = Pause(self._pressure, max_pause, doing="pausing before the next batch")
        self._pauses = pause_on is not None
        self._stop_on = stop_on
        self._every = every
        self._collect = collect
        self._logs = log

    @property
    def pauses_count(self) -> int:
        """How often this rank has paused."""
        return self._pause.count

    @property
    def paused_seconds(self) -> float:
        """How long this rank has paused."""
        return self._pause.seconds

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Pause while it presses."""
        if self._pauses:
            self._pause(_give_back_garbage if self._collect else lambda: None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Log, and agree with the other ranks whether to stop; every rank comes here for the same batches."""
        if self._logs:
            self._log_numbers()
        if self._stop_on is None or batch_idx % self._every:
            return
        wanted = self._pressure.level() >= self._stop_on
        if trainer.strategy.reduce_boolean_decision(wanted, all=False):
            self._stop(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"pauses_count": self.pauses_count, "paused_seconds": self.paused_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._pause.count = int(state_dict["pauses_count"])
        self._pause.seconds = float(state_dict["paused_seconds"])

    def _log_numbers(self) -> None:
        numbers = {"shm_monitor/level": float(self._pressure.level()), "shm_monitor/pauses": float(self.pauses_count)}
        with contextlib.suppress(MonitorError):
            numbers["shm_monitor/shed_fraction"] = self._pressure.reader.shed_fraction()
            numbers["shm_monitor/left_bytes"] = self._pressure.reader.outlook().left_bytes
        for key, value in numbers.items():
            self.log(key, value, on_step=True, on_epoch=False)

    def _stop(self, trainer: Any) -> None:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir
        path = os.path.join(folder, CHECKPOINT)
        trainer.save_checkpoint(path)  # a collective: every rank is here
        trainer.should_stop = True
        _log.warning("training stops after step %d, checkpoint %s; %s", trainer.global_step, path, self._pressure.why())


def _give_back_garbage() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def accumulate(module: Any, micro: MicroBatch, *tensors: Any) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield (slices, weight) of one batch, inside ``training_step`` of a *module* with manual optimization.

        for (xs, ys), weight in accumulate(self, self.micro, x, y):
            self.manual_backward(loss_of(self.layers(xs), ys) * weight)

    Ranks exchange gradients with the last slice only, so they need not agree on the number of slices. It asks the
    strategy for that, since the module itself knows nothing of the DistributedDataParallel around it.

    Raises:
        ValueError: tensors of different lengths.
        UnsafeSplitError: *module* normalises over the batch (BatchNorm).
    """
    block = getattr(module.trainer.strategy, "block_backward_sync", contextlib.nullcontext)
    for slices, weight, is_last in micro.split(*tensors, model=module):
        with contextlib.nullcontext() if is_last else block():
            yield slices, weight
