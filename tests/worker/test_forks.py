"""A fork beside threads that hold our locks or import our modules: the child never hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.children import output_of

if TYPE_CHECKING:
    from tests.support.light_sampler import LightSamplers

pytestmark = pytest.mark.processes

OBJECTS = ("governor", "executor", "listeners", "presence", "answers")


def children_that_ended(name: str, which: str, count: int) -> int:
    """Return how many of *count* forked children used the object to their end."""
    code = "import sys; from tests.support.forking import main; main(*sys.argv[1:3], int(sys.argv[3]))"
    return int(output_of(code, name, which, count))


@pytest.mark.parametrize("which", OBJECTS)
def test_no_child_hangs_that_is_forked_beside_hot_threads(light: LightSamplers, name: str, which: str) -> None:
    light.one(name, pressed=("memory",))
    assert children_that_ended(name, which, 10) == 10


@pytest.mark.slow
@pytest.mark.parametrize("which", OBJECTS)
def test_200_children_of_hot_threads_never_hang(light: LightSamplers, name: str, which: str) -> None:
    light.one(name, pressed=("memory",))
    assert children_that_ended(name, which, 200) == 200


@pytest.mark.slow
def test_no_child_hangs_that_is_forked_during_the_first_imports(light: LightSamplers, name: str) -> None:
    light.one(name)
    assert [children_that_ended(name, "answers", 3) for _ in range(20)] == [3] * 20
