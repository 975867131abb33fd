"""PyTorch: slices train as the batch does, on one rank and on several; a DataLoader loses nothing under pressure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (make test-torch)")

import torch
from torch import nn

import shm_monitor as sm
from shm_monitor.integrations.torch import DataLoader, MicroBatch
from tests.support.forked_ranks import TIMEOUT_SECONDS, results_of
from tests.support.torch_ranks import (
    EVERY,
    ROUNDS,
    ROWS,
    ByChance,
    batch,
    levels_of,
    model,
    parameters,
    trained,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pressed import Driven

RANKS = 4


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


def test_a_layer_of_a_frozen_batch_norm_is_no_reason_to_refuse(driven: Driven) -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4).eval())

    assert sum(weight for _, weight in MicroBatch(ROWS, reader=driven.reader).accumulate(net, *batch(0))) == 1.0


def trained_with_amp(micro: MicroBatch | None, *, dtype: torch.dtype) -> tuple[nn.Module, list[float]]:
    """Train with a scaler, autocast and clipping after the last slice; return the model and the norms before it."""
    net, norms = model(), []
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=0.01), torch.amp.GradScaler("cpu")
    for step in range(40):
        x, y = batch(step)
        optimizer.zero_grad()
        for (xs, ys), weight in [((x, y), 1.0)] if micro is None else micro.accumulate(net, x, y):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
                loss = nn.functional.mse_loss(net(xs), ys)
            scaler.scale(loss * weight).backward()
        scaler.unscale_(optimizer)
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), 1.0)))
        scaler.step(optimizer)
        scaler.update()
    return net, norms


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_a_scaler_and_clipping_after_the_last_slice_train_as_the_batch_does(
    driven: Driven, dtype: torch.dtype, tolerance: float
) -> None:
    plain, norms = trained_with_amp(None, dtype=dtype)
    sliced, norms_of_slices = trained_with_amp(ByChance(ROWS, reader=driven.reader), dtype=dtype)

    assert max(norms) > 1.0, "the gradient was clipped"
    assert norms_of_slices == pytest.approx(norms, rel=10 * tolerance)
    assert torch.allclose(parameters(plain), parameters(sliced), atol=tolerance)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_ranks_need_not_agree_on_the_number_of_slices(tmp_path: Path, name: str) -> None:
    """200 steps of two ranks that cut as they like: none hangs, and the model is that of whole batches."""
    told = results_of("tests.support.torch_ranks", "uneven", 2, tmp_path, name)

    found = [list(map(torch.tensor, one)) for one in told]

    assert torch.equal(found[0][0], found[1][0]), "the ranks have one model"
    assert torch.allclose(found[0][0], found[0][1], atol=1e-6), "and it is that of whole batches"


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_four_ranks_of_gloo_cross_200_times_and_never_split(tmp_path: Path) -> None:
    """Each sees pressure at other steps; all adopt the highest level of a round one round later, at the same step."""
    told = results_of("tests.support.torch_ranks", "agreed", RANKS, tmp_path)

    highest = [max(round_) for round_ in zip(*(_levels(rank) for rank in range(RANKS)), strict=True)]
    one_round_later = [sm.Level.OK, *highest[:-1]]
    assert told == [[level for level in one_round_later for _ in range(EVERY)]] * RANKS
    assert sum(before != after for before, after in itertools.pairwise(highest)) >= 200


def _levels(rank: int) -> list[sm.Level]:
    return list(itertools.islice(levels_of(rank), ROUNDS))


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
