"""Does a line grow, and by how much? Numbers and one sentence for each line of a plot."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np

from bench.results import Series
from bench.table import amount, digits

FLAT_EXPONENT = 0.05  # 12 % more for each ten times: below what two runs on a busy machine differ by


class Trend(NamedTuple):
    """How y goes with x.

    Attributes:
        exponent: of the power law through all points, by least squares of the logarithms; 0 is flat, 1 proportional.
        ratio: the last y to the first.
        slope: by how much y grows for each x, by least squares.
        span: the last x to the first.
    """

    exponent: float
    ratio: float
    slope: float
    span: float

    @classmethod
    def of(cls, series: Series) -> Self:
        """Return the trend of *series*, which has two points or more."""
        x, y = np.array(series.x), np.array(series.y)
        exponent = float(np.polyfit(np.log(x), np.log(y), 1)[0])
        return cls(exponent, float(y[-1] / y[0]), float(np.polyfit(x, y, 1)[0]), float(x[-1] / x[0]))

    @property
    def is_flat(self) -> bool:
        """True where y does not grow with x, nor falls."""
        return abs(self.exponent) <= FLAT_EXPONENT


def sentence(series: Series) -> str:
    """Return what *series* shows, in words and numbers."""
    trend = Trend.of(series)
    numbers = f"{digits(trend.ratio)} x for {digits(trend.span)} x as many {series.axis} (n^{trend.exponent:.2f})"
    if trend.is_flat:
        return f"{series.name}: **flat**, {numbers}."
    verb = "grows" if trend.exponent > 0 else "falls"
    if series.flat:
        return f"{series.name}: **not flat**, and should be: {verb}, {numbers}."
    each = amount(abs(trend.slope), series.unit)
    per = f", {each} for each of them" if trend.exponent > 0 and math.isfinite(trend.slope) else ""
    return f"{series.name}: {verb}, {numbers}{per}." + (f" {series.why}" if series.why else "")
