"""What the tests of every integration use."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.pressed import Driven

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_itemcollected(item: pytest.Item) -> None:
    """A framework starts processes as it likes."""
    item.add_marker(pytest.mark.processes)


@pytest.fixture
def driven(name: str) -> Iterator[Driven]:
    """A sampler that a test drives."""
    made = Driven(name)
    yield made
    with contextlib.suppress(Exception):  # closed by the test already
        made.close()
