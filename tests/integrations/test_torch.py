"""PyTorch: slices train as the batch does, on one rank and on several; a DataLoader loses nothing under pressure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-torch)")

import torch
from torch import multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import shm_monitor as sm
from shm_monitor.integrations.torch import DataLoader, MicroBatch
from tests.support.pressed import Driven

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 64


class ByChance(MicroBatch):
    """Slices of any size, as pressure might ask for."""

    def step(self) -> int:
        return random.randint(4, 16)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(step)
    x = torch.randn(ROWS, 8)
    return x, x.sum(1, keepdim=True)


def trained(net: nn.Module, micro: MicroBatch | None, steps: int = 40, *, rank: int = 0) -> nn.Module:
    """Return *net* after training over whole batches, or over the slices of *micro*."""
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
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net


def parameters(net: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_slices_train_as_the_batch_does(driven: Driven) -> None:
    plain = trained(model(), None)
    sliced = trained(model(), ByChance(ROWS, reader=driven.reader))

    assert torch.allclose(parameters(plain), parameters(sliced), atol=1e-6)


def test_under_pressure_the_slices_are_small(driven: Driven) -> None:
    micro = MicroBatch(ROWS, floor=2, reader=driven.reader)
    driven.press(99.0)
    sizes = [len(xs) for (xs, _), _ in micro.accumulate(model(), *batch(0))]

    assert sum(sizes) == ROWS
    assert max(sizes) <= ROWS // 4


def test_batch_norm_is_refused_with_the_name_of_the_layer(driven: Driven) -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))

    with pytest.raises(sm.UnsafeSplitError, match="'1'"):
        next(MicroBatch(ROWS, reader=driven.reader).accumulate(net, *batch(0)))


def rank_of(rank: int, folder: str, name: str) -> None:
    """One of two ranks: train over slices whose number the other does not know, and write the parameters."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    random.seed(rank)
    reader = sm.attach(name, required=False, timeout=0.0)
    sliced = trained(DistributedDataParallel(model()), ByChance(ROWS, reader=reader), rank=rank)
    whole = trained(DistributedDataParallel(model()), None, rank=rank)
    torch.save((parameters(sliced), parameters(whole)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ranks_need_not_agree_on_the_number_of_slices(tmp_path: Path, name: str) -> None:
    mp.spawn(rank_of, (str(tmp_path), name), nprocs=2, join=True)

    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert torch.equal(found[0][0], found[1][0]), "the ranks have one model"
    assert torch.allclose(found[0][0], found[0][1], atol=1e-6), "and it is that of whole batches"


class Numbers(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, at: int) -> int:
        return at


class Scripted(sm.Governor):
    """A governor that says what a test tells it to."""

    now = 4

    def step(self) -> int:
        return self.now


@pytest.mark.parametrize("persistent", [False, True])
def test_the_prefetch_shrinks_and_grows_and_no_sample_is_lost(driven: Driven, persistent: bool) -> None:
    governor = Scripted(4, reader=driven.reader)
    options: dict[str, Any] = {"num_workers": 2, "prefetch_factor": 2, "persistent_workers": persistent}
    loader = DataLoader(Numbers(), batch_size=5, prefetch=governor, **options)
    for _ in range(2):
        seen, flying = [], []
        governor.now = 4
        iterator: Any = iter(loader)
        for at, numbers in enumerate(iterator):
            governor.now = 0 if 5 <= at < 12 else 4
            seen += numbers.tolist()
            flying.append(iterator._tasks_outstanding)
        assert seen == list(range(100))
        assert max(flying[:5]) == 4
        assert set(flying[9:12]) == {1}
        assert max(flying[13:16]) == 4


def test_without_workers_it_is_a_plain_loader(driven: Driven) -> None:
    loader = DataLoader(Numbers(), batch_size=10, prefetch=sm.Governor(4, reader=driven.reader))

    assert sum(len(numbers) for numbers in loader) == 100


def test_without_a_sampler_it_prefetches_as_torch_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    loader = DataLoader(Numbers(), batch_size=5, num_workers=2, prefetch_factor=2)
    iterator: Any = iter(loader)

    assert iterator._tasks_outstanding == 4
    assert sum(len(numbers) for numbers in iterator) == 100
