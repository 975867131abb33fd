"""Ranks of transformers' Trainer of which one alone sees pressure, and what their tests train."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import transformers
    from torch import distributed
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from shm_monitor import Level
from shm_monitor.acting.microbatch import MicroBatch
from shm_monitor.integrations.transformers import MicroBatchMixin, PressureCallback
from tests.support.pressed import Driven

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS, ROWS = 12, 8
SEEN_AT, EVERY = 5, 4  # rank 1 sees the pressure after step 5; the ranks agree after step 8
torch.set_num_threads(1)


class Sliced(MicroBatchMixin, Trainer):
    """A Trainer over slices."""


class ByChance(MicroBatch):
    """Slices of any size, as pressure might ask for."""

    def step(self) -> int:
        return random.randint(1, ROWS)


class Sequences(torch.utils.data.Dataset[Any]):
    """Sequences of which some tokens carry no loss, so that rows count differently."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(0, 32, (2 * STEPS * ROWS, 12), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        labels = self.ids[at].clone()
        labels[: at % 7] = -100
        return {"input_ids": self.ids[at], "labels": labels}


class At(transformers.TrainerCallback):
    """Calls *what* at the end of step *step*."""

    def __init__(self, step: int, what: Callable[[], object]) -> None:
        self.step, self.what = step, what

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            self.what()


def trainer(
    kind: type[Any], folder: str | Path, callbacks: list[Any], micro: MicroBatch | None = None, **options: Any
) -> Any:
    """Return a Trainer of a tiny GPT-2 whose weights are the same each time."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=12, n_embd=16, n_layer=1, n_head=2)
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=ROWS,
        max_steps=STEPS,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        seed=1,
        **options,
    )
    made = kind(GPT2LMHeadModel(config), arguments, train_dataset=Sequences(), callbacks=callbacks)
    if micro is not None:
        made.micro = micro
    return made


def losses(made: Any) -> list[float]:
    """Return the loss of each step, as logged with four digits."""
    return [row["loss"] for row in made.state.log_history if "loss" in row]


def parameters(made: Any) -> torch.Tensor:
    """Return all of the model's in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in made.model.parameters()])


def _quiet() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()


def stopped(rank: int, name: str, folder: str) -> dict[str, Any]:
    """Train undisturbed, until the ranks stop, and on from the checkpoint; return steps, losses and whose models."""
    _quiet()
    driven = Driven(f"{name}-{rank}")
    try:
        whole = trainer(Trainer, Path(folder) / "whole", [])
        whole.train()
        seen = At(SEEN_AT, lambda: driven.press(99.0) if rank == 1 else None)
        callback = PressureCallback(stop_on=Level.CRITICAL, pause_on=None, every=EVERY, reader=driven.reader)
        first = trainer(Trainer, folder, [seen, callback])
        first.train()
        saw = int(driven.reader.level())
        second = trainer(Trainer, folder, [])
        second.train(resume_from_checkpoint=True)
    finally:
        driven.close()
    steps = [first.state.global_step, second.state.global_step]
    models = [parameters(whole).tolist(), parameters(second).tolist()]
    return {"saw": saw, "steps": steps, "losses": [losses(whole), losses(second)], "models": models}


def uneven(rank: int, name: str, folder: str) -> tuple[list[float], list[float]]:
    """Train over slices whose number the other rank does not know, and over whole batches; return both models."""
    _quiet()
    random.seed(rank)
    driven = Driven(f"{name}-{rank}")
    try:
        made = [
            trainer(Sliced, folder, [], ByChance(ROWS, reader=driven.reader)),
            trainer(Trainer, folder, []),
        ]
        for one in made:
            one.train()
    finally:
        driven.close()
        distributed.destroy_process_group()
    return parameters(made[0]).tolist(), parameters(made[1]).tolist()
