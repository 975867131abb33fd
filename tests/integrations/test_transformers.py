"""transformers' Trainer: slices train as the batch does, and an agreed stop leaves a checkpoint that goes on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed (make test-torch)")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import accelerate
    import torch
    import transformers
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from shm_monitor import Level
from shm_monitor.acting.microbatch import MicroBatch
from shm_monitor.integrations.transformers import MicroBatchMixin, PressureCallback, accumulate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pressed import Driven

pytestmark = [pytest.mark.filterwarnings("ignore::Warning")]  # of transformers and accelerate themselves

STEPS = 12


class Sliced(MicroBatchMixin, Trainer):
    """A Trainer over slices."""


class Tokens(torch.utils.data.Dataset[Any]):
    """Sequences of which some tokens carry no loss, so that rows count differently."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(0, 32, (STEPS * 8, 12), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        labels = self.ids[at].clone()
        labels[: at % 7] = -100
        return {"input_ids": self.ids[at], "labels": labels}


def trainer(kind: type[Trainer], folder: Path, callbacks: list[Any], micro: MicroBatch | None = None) -> Any:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=12, n_embd=16, n_layer=1, n_head=2)
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=STEPS,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        seed=1,
    )
    made = kind(GPT2LMHeadModel(config), arguments, train_dataset=Tokens(), callbacks=callbacks)
    if micro is not None:
        made.micro = micro
    return made


def losses(made: Any) -> list[float]:
    return [row["loss"] for row in made.state.log_history if "loss" in row]


class OfThree(MicroBatch):
    """Slices of three rows."""

    def step(self) -> int:
        return 3


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()


def test_slices_train_as_the_batch_does(driven: Driven, tmp_path: Path) -> None:
    plain = trainer(Trainer, tmp_path, [])
    plain.train()
    sliced = trainer(Sliced, tmp_path, [], OfThree(8, reader=driven.reader))
    sliced.train()

    assert losses(sliced) == pytest.approx(losses(plain), abs=2e-4), "logged with four digits"
    for one, other in zip(plain.model.parameters(), sliced.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_loss_that_is_a_mean_is_weighted_by_rows(driven: Driven, tmp_path: Path) -> None:
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

    plain = trainer(Mean, tmp_path, [])
    plain.train()
    sliced = trainer(SlicedMean, tmp_path, [], OfThree(8, reader=driven.reader))
    sliced.train()

    for one, other in zip(plain.model.parameters(), sliced.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


class At(transformers.TrainerCallback):
    """Calls *what* at the end of step *step*."""

    def __init__(self, step: int, what: Any) -> None:
        self.step, self.what = step, what

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            self.what()


def test_it_stops_with_a_checkpoint_that_goes_on_to_the_same_loss(driven: Driven, tmp_path: Path) -> None:
    undisturbed = trainer(Trainer, tmp_path / "whole", [])
    undisturbed.train()

    callback = PressureCallback(stop_on=Level.CRITICAL, pause_on=None, every=4, reader=driven.reader)
    stopped = trainer(Trainer, tmp_path, [At(5, lambda: driven.press(99.0)), callback])
    stopped.train()
    assert stopped.state.global_step == 8

    driven.calm()
    resumed = trainer(Trainer, tmp_path, [PressureCallback(reader=driven.reader)])
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == STEPS
    assert losses(resumed)[-1] == pytest.approx(losses(undisturbed)[-1], abs=1e-6)


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

    plain, sliced = trained(None), trained(OfThree(8, reader=driven.reader))
    for one, other in zip(plain.parameters(), sliced.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
