"""What the newest sample promises, and how old it is."""

from __future__ import annotations

import math

import shm_monitor as sm
from tests.support.fake_sampler import FakeSampler

SECOND = 1_000_000_000


def test_the_outlook_says_what_is_left_and_how_old_that_is(name: str) -> None:
    sampler = FakeSampler(name)
    sampler.now_ns -= 60 * SECOND
    sampler.feed(50.0)
    reader = sm.attach(name)
    outlook = reader.outlook()
    assert (outlook.has_sample, outlook.left_bytes, outlook.seconds_to_end) == (True, 50.0, math.inf)
    assert 59 <= outlook.age_seconds < 120

    sampler.now_ns += 120 * SECOND
    sampler.feed(60.0)
    assert reader.outlook().number == outlook.number + 1
    assert reader.outlook().age_seconds == 0, "a clock that is ahead of ours takes nothing back"
    sampler.close()
