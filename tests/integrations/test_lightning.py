"""Lightning pauses once per episode, stops where all ranks agree, and its checkpoint goes on to the same loss."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed (make test-torch)")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning
    import torch

from shm_monitor import Level
from shm_monitor.integrations.lightning import CHECKPOINT, PressureCallback

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pressed import Driven

pytestmark = [pytest.mark.filterwarnings("ignore::Warning")]  # Lightning's own: loaders, loggers, deprecations

BATCHES = 16


class Small(lightning.LightningModule):
    """A line through points; *at* is called with the number of each batch."""

    def __init__(self, at: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)
        self.at = at
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.at is not None:
            self.at(batch_idx)
        (x,) = batch
        loss = ((self.layer(x) - x.sum(1, keepdim=True)) ** 2).mean()
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Batches:
    """A loader that knows where it is, as torchdata's do: a checkpoint in mid-epoch goes on with the next batch."""

    def __init__(self) -> None:
        self._points = torch.randn(BATCHES, 4, 4, generator=torch.Generator().manual_seed(1))
        self._at = self._first = 0

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Any:
        first, self._first = self._first, 0
        for at in range(first, BATCHES):
            self._at = at + 1
            yield (self._points[at],)

    def state_dict(self) -> dict[str, int]:
        return {"at": self._at}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._first = state_dict["at"] % BATCHES


def fitted(module: Small, callback: PressureCallback, folder: Path, ckpt: str | None = None, epochs: int = 1) -> Any:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, Batches(), ckpt_path=ckpt)
    return trainer


def test_it_pauses_once_per_episode_and_no_longer_than_it_may(driven: Driven, tmp_path: Path) -> None:
    callback = PressureCallback(max_pause=0.05, reader=driven.reader)

    def at(batch: int) -> None:
        if batch in {2, 8}:
            driven.press()
        elif batch == 5:
            driven.calm()

    trainer = fitted(Small(at), callback, tmp_path)

    assert trainer.global_step == BATCHES
    assert callback.pauses_count == 2
    assert callback.paused_seconds >= 0.1


def test_it_stops_after_an_agreement_with_a_checkpoint_that_goes_on_to_the_same_loss(
    driven: Driven, tmp_path: Path
) -> None:
    undisturbed = Small()
    fitted(undisturbed, PressureCallback(reader=driven.reader), tmp_path)

    callback = PressureCallback(stop_on=Level.CRITICAL, pause_on=None, every=4, reader=driven.reader)
    module = Small(lambda batch: driven.press(99.0) if batch == 5 else None)
    stopped = fitted(module, callback, tmp_path)
    assert stopped.global_step == 9, "batch 8 is the next one at which the ranks agree"
    assert (tmp_path / CHECKPOINT).exists()

    driven.calm()
    resumed = Small()
    trainer = fitted(resumed, PressureCallback(reader=driven.reader), tmp_path, ckpt=str(tmp_path / CHECKPOINT))
    assert trainer.global_step == BATCHES
    assert [*module.losses, *resumed.losses] == pytest.approx(undisturbed.losses, abs=1e-6)


def test_what_it_counted_is_in_the_checkpoint(driven: Driven) -> None:
    one, other = PressureCallback(reader=driven.reader), PressureCallback(reader=driven.reader)
    one.load_state_dict({"pauses_count": 3, "paused_seconds": 1.5})
    other.load_state_dict(one.state_dict())

    assert (other.pauses_count, other.paused_seconds) == (3, 1.5)


def test_it_logs_level_and_shed_fraction(driven: Driven, tmp_path: Path) -> None:
    driven.press()
    trainer = fitted(Small(), PressureCallback(pause_on=None, reader=driven.reader), tmp_path)

    assert trainer.callback_metrics["shm_monitor/level"] == Level.PRUNE
    assert trainer.callback_metrics["shm_monitor/shed_fraction"] > 0


def test_without_a_sampler_it_trains_as_ever(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", name)

    assert fitted(Small(), PressureCallback(stop_on=Level.PRUNE), tmp_path).global_step == BATCHES
