"""Readers: without a sampler, and one whose sampler presses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def absent(name: str) -> Iterator[sm.Reader]:
    """A reader without a sampler."""
    with sm.attach(name, timeout=0.0, required=False) as reader:
        yield reader


@pytest.fixture
def pressed(name: str) -> Iterator[sm.Reader]:
    """A reader whose sampler presses."""
    sampler = FakeSampler(name)
    sampler.feed(98.0)
    with sm.attach(name) as reader:
        assert reader.should_prune()
        yield reader
    sampler.close()
