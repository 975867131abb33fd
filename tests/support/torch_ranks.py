"""Ranks of torch.distributed over gloo: slices whose number no other rank knows, and levels to agree on."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import shm_monitor as sm
from shm_monitor.integrations.torch import MicroBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 64
STEPS = 200
PRESSED_SHARE = 0.16  # of the questions of one rank: of four, about half see one that is pressed
EVERY = 8
ROUNDS = 450
STEP_SECONDS = 0.0003
torch.set_num_threads(1)  # two that wait for each other on a busy core take ten times as long for what is this small


class ByChance(MicroBatch):
    """Slices of any size, as pressure might ask for."""

    def step(self) -> int:
        return random.randint(4, 16)


def model() -> nn.Module:
    """Return a small model, the same each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batch of *step*."""
    torch.manual_seed(step)
    x = torch.randn(ROWS, 8)
    return x, x.sum(1, keepdim=True)


def trained(net: nn.Module, micro: MicroBatch | None, steps: int = 40, *, rank: int = 0) -> nn.Module:
    """Return *net* after training over whole batches, or over the slices of *micro*; gradients are clipped."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss_of = nn.MSELoss()
    for step in range(steps):
        x, y = batch(step * 10 + rank)
        optimizer.zero_grad()
        if micro is None:
            loss_of(net(x), y).backward()
        else:
            for (xs, ys), weight in micro.accumulate(net, x, y):
                (loss_of(net(xs), ys) * weight).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net


def parameters(net: nn.Module) -> torch.Tensor:
    """Return all of them in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def uneven(rank: int, name: str) -> tuple[list[float], list[float]]:
    """Train over slices whose number the other ranks do not know, and over whole batches; return both models."""
    distributed.init_process_group("gloo")
    random.seed(rank)
    reader = sm.attach(name, required=False, timeout=0.0)
    sliced = trained(DistributedDataParallel(model()), ByChance(ROWS, reader=reader), STEPS, rank=rank)
    whole = trained(DistributedDataParallel(model()), None, STEPS, rank=rank)
    distributed.destroy_process_group()
    return parameters(sliced).tolist(), parameters(whole).tolist()


def levels_of(rank: int) -> Iterator[sm.Level]:
    """Yield what *rank* sees, question by question."""
    chance = random.Random(rank)
    while True:
        yield sm.Level.PRUNE if chance.random() < PRESSED_SHARE else sm.Level.OK


def agreed(rank: int) -> list[int]:
    """Ask at each step of a job whose ranks are never equally fast; return what was agreed at each."""
    distributed.init_process_group("gloo")
    levels = levels_of(rank)

    class Scripted:
        def level(self) -> sm.Level:
            return next(levels)

    reader: Any = Scripted()
    verdict = sm.AgreedVerdict(reader, every=EVERY)
    found = []
    for step in range(ROUNDS * EVERY):
        found.append(int(verdict(step)))
        time.sleep(STEP_SECONDS * (1 + rank % 2))
    verdict.close()
    distributed.destroy_process_group()
    return found
