"""The tables of docs/decisions.md are those of the decision as it is: some of their lines, measured again."""

from __future__ import annotations

import numpy as np
import pytest

from bench import decisions
from tests.support.surroundings import ROOT

PAGE = ROOT / "docs" / "decisions.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the pages of a checkout lie beside it")


@pytest.mark.parametrize("rate", decisions.RATES[::2], ids=lambda rate: rate[0])
@pytest.mark.parametrize(
    ("row", "kind"),
    [(decisions.ending_row, decisions.ramp(20)), (decisions.lasting_row, decisions.LASTING[1])],
    ids=["a ramp", "hovering"],
)
def test_a_line_of_the_page_is_what_is_measured(
    row: decisions.RowOf, kind: decisions.Kind, rate: decisions.Rate
) -> None:
    """One that fails says that the rule has changed: ``make decisions`` writes the tables anew."""
    assert row(kind, rate) in PAGE.read_text(encoding="utf-8").splitlines()


def test_version_1_pressed_for_ever_after_one_spike_between_target_and_limit() -> None:
    """What the reference must show, since the second version is there for it."""
    trace = decisions.plateau(89, 0.1).of(np.random.default_rng(0))
    trace[5000:5050] = 94.0

    told = decisions.version_1(trace, 0.0, 1.0)

    assert told.first == 100.0
    assert told.pressed[100:].all()
