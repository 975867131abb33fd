"""What a limit remembers of its readings: buckets of a sixteenth of the period, and the newest ones as they are.

Called by the kernel of ``shm_monitor.kernels.decide``, compiled into it, and as good uncompiled.

Source: docs/decisions.md, which says why each constant is what it is.
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917  a kernel is its loop; a call more costs compile time

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shm_monitor.kernels.compiled import callable_from_kernels

Floats = NDArray[np.float64]

PERIOD, HORIZON, TIMING_WIDTH = range(3)

PARTS = 16
_RISES_PERIODS = 6  # so long the peak of a rise that came to nothing counts
BUCKETS = PARTS * (_RISES_PERIODS + 2)  # a power of two, so that a bit mask wraps them around
_MASK = BUCKETS - 1
(ID, COUNT, TIME, VALUES, TIMES, PRODUCTS, SQUARES, TOP, RISE_TOP, LASTED, AREA, OVER_LASTED, OVER_COUNT) = range(13)
BUCKET_WIDTH = 13
(KNOWN_COUNT, RISE_SEEN, RATE, RELIEVED, TIME_0, VALUE_0, TIME_1, VALUE_1, TIME_2, VALUE_2, RECENT_WIDTH) = range(11)

_CALM_PERIODS = 3  # LEVEL also ends when so many periods hold no more time over the limit than it asks for
_STRAIGHT = 0.85  # a line's least R2: a step has 0.80 at most; 0.9 lost 4 of 36 steps with a ramp behind
_SURE = 5.0  # a line's least t statistic
_FADING = 0.25  # of the slope: so much the newest part of a line still rises
# A window of few readings is long, a short one has many: with four in 1.8 s of noise, a plateau was pressed for 199 s
# of 6,000 instead of 10.
_LONG, _SHORT = 0.75, 0.25  # of the horizon
_SHORT_COUNT = 5.0  # older readings
# The fast window. While memory is looked at after an eighth of the time left, four readings span 0.49 of what is left
# then; with 1 they never saw the end before the shortest wait bounded them from below. Farther than a sixteenth of the
# horizon it would see noise: at 10 Hz a plateau at 88 +-1.5 % was pressed for 256 s of 6,000 instead of none.
_AHEAD, _AHEAD_HORIZONS = 2.5, 1 / 16  # times as far as they are long, and no farther; as far as they are long anyway
# While it presses there is no alarm to be false, and who freed half may be back before any longer window is a line.
_PRESSED_AHEAD_HORIZONS = 1 / 8
_EVEN = 0.15  # of their length is the newest interval: else a step between two looks, and one soon after, are a line
_MARGIN = 0.1  # of the headroom: so much higher than an earlier rise is news
_SHOWN_HORIZONS = 10.0  # below the target, seconds to the end are told of a line that ends within so many horizons
_SHOWN_PERIODS = 100.0  # from the target on, within so many periods: farther ahead a line of one period says nothing
ROUNDING = 1e-6


@callable_from_kernels
def line(count: float, time: float, mean: float, times: float, products: float, squares: float, value: float) -> float:
    """Return the slope of a line through *count* older readings, at least 3, and *value* at time 0; 0 where it is none.

    The older ones come as mean time and value and the sums of squares and products about them. *value* counts only up
    to the highest one that still makes a line (closed form), so that raising it never lowers the result.
    """
    share = count / (count + 1.0)
    spread, lever = times + share * time * time, -share * time
    need = max(_STRAIGHT, _SURE * _SURE / (_SURE * _SURE + count - 1.0))  # of R2: the t statistic of count + 1 readings
    # R2 >= need is a quadratic inequality in value - mean.
    a = lever * lever - need * spread * share
    b = 2.0 * lever * products
    c = products * products - need * spread * squares
    discriminant = b * b - 4.0 * a * c
    if discriminant < 0.0 or a >= 0.0:
        return 0.0
    root = math.sqrt(discriminant)
    rise = min(value - mean, (-b - root) / (2.0 * a) + 1e-12)
    if rise < (-b + root) / (2.0 * a) - 1e-12:
        return 0.0
    return max((products + lever * rise) / spread, 0.0)


@callable_from_kernels
def fast_line(recent: Floats, now: float, value: float) -> float:
    """Return the slope of the line through the newest three readings and *value*; 0 where it is none, or has ended."""
    if now - recent[TIME_2] < _EVEN * (now - recent[TIME_0]):
        return 0.0
    count = time = mean = times = products = squares = 0.0
    for place in range(TIME_0, RECENT_WIDTH, 2):
        count += 1.0
        time_off, value_off = recent[place] - now - time, recent[place + 1] - mean
        time, mean = time + time_off / count, mean + value_off / count
        times += time_off * (time_off - time_off / count)
        products += time_off * (value_off - value_off / count)
        squares += value_off * (value_off - value_off / count)
    slope = line(count, time, mean, times, products, squares, value)
    return slope if value - recent[VALUE_1] >= _FADING * slope * (now - recent[TIME_1]) else 0.0


@callable_from_kernels
def earlier_peak(buckets: Floats, here: int, back: int) -> float:
    """Return the highest value of the rises that came to nothing before bucket *here* - *back*; -inf for none."""
    peak = -np.inf
    for older in range(back + 1, PARTS * _RISES_PERIODS + back + 1):
        bucket = buckets[(here - older) & _MASK]
        if bucket[ID] == here - older:
            peak = max(peak, bucket[RISE_TOP])
    return peak


@callable_from_kernels
def resize(buckets: Floats, recent: Floats, factor: float) -> None:
    """Tell the past in shares of another capacity, *factor* times what they were, so that a line is one of bytes.

    Mean, maximum and the time over the limit stay: they say how full it was.
    """
    for place in range(BUCKETS):
        bucket = buckets[place]
        bucket[VALUES] *= factor
        bucket[PRODUCTS] *= factor
        bucket[SQUARES] *= factor * factor
        bucket[RISE_TOP] *= factor
    recent[VALUE_0] *= factor
    recent[VALUE_1] *= factor
    recent[VALUE_2] *= factor


@callable_from_kernels
def take(
    buckets: Floats, recent: Floats, here: int, now: float, value: float, limit: float, lasted: float, rises: bool
) -> None:
    """Take the reading *value* into the track; *lasted* are the seconds since the one before."""
    bucket = buckets[here & _MASK]
    if bucket[ID] != here:
        bucket[:] = 0.0
        bucket[ID], bucket[TOP], bucket[RISE_TOP] = here, -np.inf, -np.inf
    bucket[COUNT] += 1.0
    time_off, value_off = now - bucket[TIME], value - bucket[VALUES]
    bucket[TIME] += time_off / bucket[COUNT]
    bucket[VALUES] += value_off / bucket[COUNT]
    bucket[TIMES] += time_off * (now - bucket[TIME])
    bucket[PRODUCTS] += time_off * (value - bucket[VALUES])
    bucket[SQUARES] += value_off * (value - bucket[VALUES])
    bucket[TOP] = max(bucket[TOP], value)
    if rises:
        bucket[RISE_TOP] = max(bucket[RISE_TOP], value)
    bucket[LASTED] += lasted
    bucket[AREA] += lasted * value
    if value > limit:
        bucket[OVER_LASTED] += lasted
        bucket[OVER_COUNT] += 1.0
    if recent[KNOWN_COUNT] > 0.0 and now > recent[TIME_2]:
        recent[RATE] = (value - recent[VALUE_2]) / (now - recent[TIME_2])
    if recent[KNOWN_COUNT] > 1.0 and now > recent[TIME_1]:  # noise in one reading hides no rise
        recent[RATE] = max(recent[RATE], (value - recent[VALUE_1]) / (now - recent[TIME_1]))
    recent[KNOWN_COUNT] += 1.0
    recent[TIME_0], recent[VALUE_0] = recent[TIME_1], recent[VALUE_1]
    recent[TIME_1], recent[VALUE_1] = recent[TIME_2], recent[VALUE_2]
    recent[TIME_2], recent[VALUE_2] = now, value


@callable_from_kernels
def look_back(
    buckets: Floats,
    recent: Floats,
    now: float,
    value: float,
    limit: float,
    target: float,
    lasted: float,
    timing: Floats,
    observed: bool,
    runs_out: bool,
    latched: bool,
    pressed: bool,
) -> tuple[float, float, float, float, float, float, bool, bool, float]:
    """Go back over the period once, from *value* at *now*, which is not in the track yet.

    Returns:
        The time-weighted mean, the maximum, the seconds over the limit, the readings over it, all readings, the seconds
        over the limit in the last _CALM_PERIODS (of one unless *latched*: only the end of LEVEL asks), whether the end
        is near, whether this is a rise, and the seconds to the end (NaN where no line leads there).
    """
    period, horizon = timing[PERIOD], timing[HORIZON]
    width = period / PARTS
    here = math.floor(now / width + ROUNDING)
    seconds, area, over_seconds, over_count, top = lasted, lasted * value, 0.0, 0.0, value
    if value > limit:
        over_seconds, over_count = lasted, 1.0
    coming = rises = False
    ends, newest_slope = np.nan, -1.0
    if runs_out and observed and recent[KNOWN_COUNT] >= 3.0 and (value > limit or (pressed and value >= target)):
        slope = fast_line(recent, now, value)
        length = now - recent[TIME_0]
        most = _PRESSED_AHEAD_HORIZONS if pressed else _AHEAD_HORIZONS
        ahead = min(_AHEAD * length, most * horizon)
        if value > limit:
            ahead = min(max(length, ahead), horizon)
        if slope > 0.0 and 1.0 - value <= ahead * slope:
            coming, ends = True, (1.0 - value) / slope
    count = time = mean = times = products = squares = 0.0
    for back in range(PARTS + 1):
        bucket = buckets[(here - back) & _MASK]
        if bucket[ID] != here - back:
            continue
        seconds, area, over_seconds = seconds + bucket[LASTED], area + bucket[AREA], over_seconds + bucket[OVER_LASTED]
        over_count, top = over_count + bucket[OVER_COUNT], max(top, bucket[TOP])
        # Moments about the means, with times from now on. Source: Chan, Golub, LeVeque 1983.
        both = count + bucket[COUNT]
        time_off, value_off = bucket[TIME] - now - time, bucket[VALUES] - mean
        share, weight = bucket[COUNT] / both, count * bucket[COUNT] / both
        count, time, mean = both, time + time_off * share, mean + value_off * share
        times = times + bucket[TIMES] + time_off * time_off * weight
        products = products + bucket[PRODUCTS] + time_off * value_off * weight
        squares = squares + bucket[SQUARES] + value_off * value_off * weight
        length = now - (here - back) * width
        least = _LONG if count < _SHORT_COUNT else _SHORT
        if not runs_out or count < 3.0 or length < least * horizon:
            continue
        lever = count / (count + 1.0)
        spread, raised = times + lever * time * time, products - lever * time * (value - mean)
        if newest_slope < 0.0:  # the shortest window that rises at all
            newest_slope = min(raised / spread, (value - recent[VALUE_1]) / (now - recent[TIME_1]))
        if coming or not observed or (value < target and not math.isnan(ends)):
            continue
        if raised <= 0.0:
            continue
        useful = horizon  # seconds: a line that ends later tells nothing new
        if math.isnan(ends):
            useful = _SHOWN_PERIODS * period if value >= target else _SHOWN_HORIZONS * horizon
        if raised * useful < (1.0 - value) * spread:  # a line is never steeper than the least squares, which cost less
            continue
        slope = line(count, time, mean, times, products, squares, value)
        if slope > 0.0 and newest_slope >= _FADING * slope:
            left = (1.0 - value) / slope
            if math.isnan(ends) and left <= useful:
                ends = left
            if value >= target and 1.0 - value <= horizon * slope:
                rises = True
                past = earlier_peak(buckets, here, back)
                if past == -np.inf or value > min(past + _MARGIN * (1.0 - past), limit):
                    coming, ends = True, left
    calm_seconds = over_seconds
    for back in range(PARTS + 1, _CALM_PERIODS * PARTS + 1 if latched else 0):
        bucket = buckets[(here - back) & _MASK]
        if bucket[ID] == here - back:
            calm_seconds += bucket[OVER_LASTED]
    average = area / seconds if seconds > 0.0 else value
    if ends < 0.0:  # noqa: PLR1730  a NaN stays one, which max() does not promise
        ends = 0.0
    return average, top, over_seconds, over_count, count + 1.0, calm_seconds, coming, rises, ends
