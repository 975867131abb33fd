"""transformers' Trainer: slices train as the batch does, and an agreed stop leaves a checkpoint that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed (make test-torch)")

import accelerate
import torch
import transformers
from transformers import Trainer

from shm_monitor import Level
from shm_monitor.integrations.transformers import MicroBatchMixin, PressureCallback, accumulate
from tests.support.forked_ranks import TIMEOUT_SECONDS, results_of
from tests.support.transformers_ranks import (
    EVERY,
    ROWS,
    SEEN_AT,
    STEPS,
    At,
    ByChance,
    Sliced,
    losses,
    parameters,
    trainer,
)

if TYPE_CHECKING:
    from pathlib import Path

    from shm_monitor.acting.microbatch import MicroBatch
    from tests.support.pressed import Driven

pytestmark = [pytest.mark.filterwarnings("ignore::Warning")]  # of transformers and accelerate themselves


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_slices_train_as_the_batch_does(driven: Driven, tmp_path: Path, batches_per_step: int) -> None:
    """The loss is a sum over the tokens of all batches of a step, of which rows have different numbers."""
    options: dict[str, Any] = {"gradient_accumulation_steps": batches_per_step}
    plain = trainer(Trainer, tmp_path, [], **options)
    plain.train()
    sliced = trainer(Sliced, tmp_path, [], ByChance(ROWS, reader=driven.reader), **options)
    sliced.train()

    assert losses(sliced) == pytest.approx(losses(plain), abs=2e-4), "logged with four digits"
    assert torch.allclose(parameters(plain), parameters(sliced), atol=1e-6)


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_a_loss_that_is_a_mean_is_weighted_by_rows(driven: Driven, tmp_path: Path, batches_per_step: int) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": batches_per_step}

    class Mean(Trainer):
        model_accepts_loss_kwargs = False

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.model_accepts_loss_kwargs = False

        def compute_loss(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
            logits = model(input_ids=inputs["input_ids"]).logits
            return (logits**2).mean()

    class SlicedMean(MicroBatchMixin, Mean):
        pass

    plain = trainer(Mean, tmp_path, [], **options)
    plain.train()
    sliced = trainer(SlicedMean, tmp_path, [], ByChance(ROWS, reader=driven.reader), **options)
    sliced.train()

    assert torch.allclose(parameters(plain), parameters(sliced), atol=1e-6)


def test_it_stops_with_a_checkpoint_that_goes_on_to_the_same_loss(driven: Driven, tmp_path: Path) -> None:
    undisturbed = trainer(Trainer, tmp_path / "whole", [])
    undisturbed.train()

    callback = PressureCallback(stop_on=Level.CRITICAL, pause_on=None, every=EVERY, reader=driven.reader)
    stopped = trainer(Trainer, tmp_path, [At(SEEN_AT, lambda: driven.press(99.0)), callback])
    stopped.train()
    assert stopped.state.global_step == 8

    driven.calm()
    resumed = trainer(Trainer, tmp_path, [PressureCallback(reader=driven.reader)])
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS
    assert losses(resumed)[-1] == pytest.approx(losses(undisturbed)[-1], abs=1e-6)
    assert torch.allclose(parameters(resumed), parameters(undisturbed), atol=1e-6)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_what_one_rank_of_two_sees_stops_both_at_the_same_step(tmp_path: Path, name: str) -> None:
    """And the checkpoint that both wrote goes on to the loss and the model of an undisturbed run."""
    found = results_of("tests.support.transformers_ranks", "stopped", 2, tmp_path, name, str(tmp_path / "runs"))

    assert [one["saw"] for one in found] == [Level.OK, Level.CRITICAL]
    assert [one["steps"] for one in found] == [[8, STEPS]] * 2, "step 8 is the next one at which the ranks agree"
    undisturbed, resumed = found[0]["losses"]  # rank 0 logs
    assert resumed == pytest.approx(undisturbed, abs=1e-6)
    for one in found:
        assert one["models"][1] == pytest.approx(one["models"][0], abs=1e-6)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_ranks_of_a_trainer_need_not_agree_on_the_number_of_slices(tmp_path: Path, name: str) -> None:
    found = results_of("tests.support.transformers_ranks", "uneven", 2, tmp_path, name, str(tmp_path / "runs"))

    assert found[0][0] == found[1][0], "the ranks have one model"
    assert found[0][0] == pytest.approx(found[0][1], abs=1e-6), "and it is that of whole batches"


def test_it_pauses_no_longer_than_it_may(driven: Driven, tmp_path: Path) -> None:
    driven.press()
    made = trainer(Trainer, tmp_path, [PressureCallback(max_pause=0.05, reader=driven.reader)])
    made.train()

    assert made.state.global_step == STEPS


def test_a_loop_over_accelerate_trains_as_the_batch_does(driven: Driven) -> None:
    def trained(micro: MicroBatch | None) -> torch.nn.Module:
        accelerator = accelerate.Accelerator(cpu=True)
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 1)
        net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
        for step in range(5):
            torch.manual_seed(step)
            x = torch.randn(8, 4)
            whole = ((x,), 1.0)
            for (xs,), weight in [whole] if micro is None else accumulate(accelerator, net, micro, x):
                accelerator.backward((net(xs) ** 2).mean() * weight)
            optimizer.step()
            optimizer.zero_grad()
        return net

    plain, sliced = trained(None), trained(ByChance(ROWS, reader=driven.reader))
    for one, other in zip(plain.parameters(), sliced.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
