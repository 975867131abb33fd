"""An API without a sampler, and one that is asked with and without a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.api_server import TOKEN, ApiProcess, Asked, asked
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[ApiProcess]:
    """An API process without a sampler: what comes before the routes does not need one."""
    with ApiProcess("--name", "test-api-security", "--bind", "127.0.0.1:0") as started:
        yield started
        assert "Traceback" not in started.log


@pytest.fixture
def ask(name: str) -> Iterator[Asked]:
    sampler = FakeSampler(name)
    sampler.feed(50.0)
    yield asked(name)
    sampler.close()


@pytest.fixture
def ask_with_token(name: str) -> Iterator[Asked]:
    sampler = FakeSampler(name)
    sampler.feed(50.0)
    yield asked(name, token=TOKEN)
    sampler.close()
