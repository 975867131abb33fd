"""Lightning pauses once per episode, stops where all ranks agree, and its checkpoint goes on to the same loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("lightning", reason="lightning is not installed (make test-torch)")

import torch

from shm_monitor import Level, UnsafeSplitError
from shm_monitor.integrations.lightning import CHECKPOINT, PressureCallback
from tests.support.forked_ranks import TIMEOUT_SECONDS, results_of
from tests.support.lightning_ranks import BATCHES, Sliced, Small, batches, fitted
from tests.support.torch_ranks import ROWS, ByChance, parameters

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pressed import Driven

pytestmark = [pytest.mark.filterwarnings("ignore::Warning")]  # Lightning's own: loaders, loggers, deprecations


def test_it_pauses_once_per_episode_and_no_longer_than_it_may(driven: Driven, tmp_path: Path) -> None:
    callback = PressureCallback(max_pause=0.05, reader=driven.reader)

    def at(batch: int) -> None:
        if batch in {2, 8}:
            driven.press()
        elif batch == 5:
            driven.calm()

    trainer = fitted(Small(at), tmp_path, [callback])

    assert trainer.global_step == BATCHES
    assert callback.pauses_count == 2
    assert callback.paused_seconds >= 0.1


def test_it_stops_after_an_agreement_with_a_checkpoint_that_goes_on_to_the_same_loss(
    driven: Driven, tmp_path: Path
) -> None:
    undisturbed = Small()
    fitted(undisturbed, tmp_path, [PressureCallback(reader=driven.reader)])

    callback = PressureCallback(stop_on=Level.CRITICAL, pause_on=None, every=4, reader=driven.reader)
    module = Small(lambda batch: driven.press(99.0) if batch == 5 else None)
    stopped = fitted(module, tmp_path, [callback])
    assert stopped.global_step == 9, "batch 8 is the next one at which the ranks agree"
    assert (tmp_path / CHECKPOINT).exists()

    driven.calm()
    resumed = Small()
    trainer = fitted(resumed, tmp_path, [PressureCallback(reader=driven.reader)], ckpt=str(tmp_path / CHECKPOINT))
    assert trainer.global_step == BATCHES
    assert [*module.losses, *resumed.losses] == pytest.approx(undisturbed.losses, abs=1e-6)


def test_what_it_counted_is_in_the_checkpoint(driven: Driven) -> None:
    one, other = PressureCallback(reader=driven.reader), PressureCallback(reader=driven.reader)
    one.load_state_dict({"pauses_count": 3, "paused_seconds": 1.5})
    other.load_state_dict(one.state_dict())

    assert (other.pauses_count, other.paused_seconds) == (3, 1.5)


def test_it_logs_level_shed_fraction_and_what_is_left(driven: Driven, tmp_path: Path) -> None:
    driven.press()
    trainer = fitted(Small(), tmp_path, [PressureCallback(pause_on=None, reader=driven.reader)])

    assert trainer.callback_metrics["shm_monitor/level"] == Level.PRUNE
    assert trainer.callback_metrics["shm_monitor/shed_fraction"] > 0
    assert trainer.callback_metrics["shm_monitor/left_bytes"] == pytest.approx(9.5), "of the 100 of the sampler"


def test_without_a_sampler_it_trains_as_ever(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", name)

    assert fitted(Small(), tmp_path, [PressureCallback(stop_on=Level.PRUNE)]).global_step == BATCHES


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_what_one_rank_of_two_sees_stops_both_at_the_same_step(tmp_path: Path, name: str) -> None:
    """And the checkpoint that both wrote goes on to the losses of an undisturbed run."""
    found = results_of("tests.support.lightning_ranks", "stopped", 2, tmp_path, name, str(tmp_path))

    assert [one["saw"] for one in found] == [Level.OK, Level.CRITICAL]
    assert [one["steps"] for one in found] == [[9, BATCHES]] * 2, "batch 8 is the next one at which the ranks agree"
    for one in found:
        undisturbed, resumed = one["losses"]
        assert resumed == pytest.approx(undisturbed, abs=1e-6)


def test_a_module_with_manual_optimization_trains_over_slices_as_over_batches(tmp_path: Path, driven: Driven) -> None:
    models = []
    for micro in (ByChance(ROWS, reader=driven.reader), None):
        module = Sliced(micro)
        fitted(module, tmp_path, [], loader=batches())
        models.append(parameters(module.net))

    assert torch.allclose(*models, atol=1e-6)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_ranks_of_lightning_need_not_agree_on_the_number_of_slices(tmp_path: Path, name: str) -> None:
    found = results_of("tests.support.lightning_ranks", "uneven", 2, tmp_path, name, str(tmp_path))

    assert found[0][0] == found[1][0], "the ranks have one model"
    assert found[0][0] == pytest.approx(found[0][1], abs=1e-6), "and it is that of whole batches"


def test_a_module_with_batch_norm_is_refused(tmp_path: Path, driven: Driven) -> None:
    module = Sliced(ByChance(ROWS, reader=driven.reader))
    module.net.append(torch.nn.BatchNorm1d(1))

    with pytest.raises(UnsafeSplitError, match="BatchNorm"):
        fitted(module, tmp_path, [], loader=batches())
