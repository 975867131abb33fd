"""Ranks of a Lightning job of which one alone sees pressure, and modules that cut their batches."""

from __future__ import annotations

import logging
import random
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning
    import torch

from shm_monitor import Level
from shm_monitor.integrations.lightning import CHECKPOINT, PressureCallback, accumulate
from tests.support.pressed import Driven
from tests.support.torch_ranks import ROWS, ByChance, batch, model, parameters

BATCHES = 16
SEEN_AT, EVERY = 5, 4  # rank 1 sees the pressure at batch 5; the ranks agree at batch 8


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

    def __init__(self, seed: int = 1) -> None:
        self._points = torch.randn(BATCHES, 4, 4, generator=torch.Generator().manual_seed(seed))
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


class Sliced(lightning.LightningModule):
    """The model of ``tests.support.torch_ranks`` with manual optimization, over slices or whole batches."""

    def __init__(self, micro: ByChance | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.micro = model(), micro

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        whole = [(batch, 1.0)]
        for (xs, ys), weight in accumulate(self, self.micro, *batch) if self.micro else whole:
            self.manual_backward(torch.nn.functional.mse_loss(self.net(xs), ys) * weight)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Given:
    """A loader of batches that are there; of a plain list Lightning would take each for a loader."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Any:
        return iter(self._batches)


def fitted(
    module: Any,
    folder: str | Path,
    callbacks: list[Any],
    *,
    loader: Any = None,
    ckpt: str | None = None,
    ranks: int = 1,
) -> Any:
    """Return the trainer that has fitted *module*."""
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        strategy="ddp" if ranks > 1 else "auto",
        devices=ranks,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, Batches() if loader is None else loader, ckpt_path=ckpt)
    return trainer


def batches(rank: int = 0) -> Given:
    """Return those of ``tests.support.torch_ranks`` for *rank*."""
    return Given([batch(10 * step + rank) for step in range(BATCHES)])


def _quiet() -> None:
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def stopped(rank: int, name: str, folder: str) -> dict[str, Any]:
    """Train undisturbed, until the ranks stop, and on from the checkpoint; return steps and losses of this rank."""
    _quiet()
    driven = Driven(f"{name}-{rank}")
    whole, cut, rest = Small(), Small(lambda at: driven.press(99.0) if (rank, at) == (1, SEEN_AT) else None), Small()
    options: dict[str, Any] = {"ranks": 2}
    try:
        fitted(whole, folder, [], loader=Batches(rank), **options)
        callback = PressureCallback(stop_on=Level.CRITICAL, pause_on=None, every=EVERY, reader=driven.reader)
        first = fitted(cut, folder, [callback], loader=Batches(rank), **options)
        saw = int(driven.reader.level())
        second = fitted(rest, folder, [], loader=Batches(rank), ckpt=str(Path(folder) / CHECKPOINT), **options)
    finally:
        driven.close()
    losses = [whole.losses, [*cut.losses, *rest.losses]]
    return {"saw": saw, "steps": [first.global_step, second.global_step], "losses": losses}


def uneven(rank: int, name: str, folder: str) -> tuple[list[float], list[float]]:
    """Train over slices whose number the other rank does not know, and over whole batches; return both models."""
    _quiet()
    random.seed(rank)
    driven = Driven(f"{name}-{rank}")
    models = []
    try:
        for micro in (ByChance(ROWS, reader=driven.reader), None):
            module = Sliced(micro)
            fitted(module, folder, [], loader=batches(rank), ranks=2)
            models.append(parameters(module.net).tolist())
    finally:
        driven.close()
    return models[0], models[1]
