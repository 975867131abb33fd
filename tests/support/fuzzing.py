"""Try a strategy for as long as a fuzz target has, each round from another seed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st


def run_for(seconds: float, strategy: st.SearchStrategy[Any], body: Callable[[Any], None]) -> int:
    """Call *body* with what *strategy* makes until *seconds* are over; return how often.

    Raises:
        Exception: what *body* raised, for the smallest example found.
    """
    count = 0

    def counted(example: Any) -> None:
        nonlocal count
        count += 1
        body(example)

    end = time.monotonic() + seconds
    options = settings(
        max_examples=200,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    for number in itertools.count(time.time_ns()):
        if time.monotonic() > end:
            return count
        seed(number)(options(given(strategy)(counted)))()
    return count
