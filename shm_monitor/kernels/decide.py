"""The decision: the level and the reasons of each limit, from one sample to the next.

``decide`` takes one sample, ``run`` a whole trace. For each limit they go through the steps below: the standing of the
limit in the sample, observe, conditions, latch, level, word. All of it also runs uncompiled, with the same results.
It is one file, because numba's cache does not see changes of another (``shm_monitor.kernels.compiled``).
Columns, levels, reasons and bits are those of ``shm_monitor.schema`` and ``shm_monitor.segment.flags``.

What runs out (memory) is decided in shares of its capacity, so that a limit that is resized in place needs no new
history; a rate has no capacity and is decided as it is. Times are seconds of the monotonic clock.

Source: docs/decisions.md, which says why each constant is what it is.
"""

# ruff: noqa: PLR0913, PLR0917  a kernel takes arrays one by one

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shm_monitor.kernels.compiled import Kernel, callable_from_kernels, read_only
from shm_monitor.schema import TRACK_FIELDS, Level, Reason
from shm_monitor.segment.flags import (
    BETWEEN,
    LEVEL_MASK,
    LEVEL_SHIFT,
    REASONS_MASK,
    REASONS_SHIFT,
    SHED_MAX,
    SHED_SHIFT,
)

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

PERIOD, HORIZON, TIMING_WIDTH = range(3)

PARTS = 16
_RISES_PERIODS = 6  # so long the peak of a rise that came to nothing counts
BUCKETS = PARTS * (_RISES_PERIODS + 2)  # a power of two, so that a bit mask wraps them around
_MASK = BUCKETS - 1
(ID, COUNT, TIME, VALUES, TIMES, PRODUCTS, SQUARES, TOP, RISE_TOP, LASTED, AREA, OVER_LASTED, OVER_COUNT) = range(13)
BUCKET_WIDTH = 13
(KNOWN_COUNT, RISE_SEEN, RATE, RELIEVED, TIME_0, VALUE_0, TIME_1, VALUE_1, TIME_2, VALUE_2, RECENT_WIDTH) = range(11)


def _columns(*names: str) -> Iterator[int]:
    """Yield where the published columns *names* of a limit are."""
    return map(TRACK_FIELDS.index, names)


LEVEL, REASONS, LIMIT, TARGET, CAPACITY = _columns("level", "reasons", "limit", "target", "capacity")
SECONDS, MEAN, MAXIMUM = _columns("seconds_to_limit", "mean", "maximum")
KNOWN_SINCE, KNOWN_UNTIL = _columns("known_since_seconds", "known_until_seconds")
RECLAIM_COUNT, OOM_COUNT, OOM_SEEN = _columns("reclaim_events_count", "oom_events_count", "oom_seen_seconds")
PRESSED_SINCE, EPISODES = _columns("pressed_since_seconds", "episodes_count")
# The columns of one reason, from its first one on: EACH + the number of its bit * EACH_WIDTH.
EACH, _SECOND_EACH = _columns("level_since_seconds", "forecast_since_seconds")
EACH_WIDTH = _SECOND_EACH - EACH
SINCE, SEEN, SET_COUNT = (
    column - EACH for column in _columns("level_since_seconds", "level_seen_seconds", "level_episodes_count")
)
SET_VALUE, SET_MEAN, SET_LIMIT, SET_CAPACITY, SET_SECONDS = (
    column - EACH
    for column in _columns("level_value", "level_mean", "level_limit", "level_capacity", "level_seconds_to_limit")
)
TRACK_WIDTH = len(TRACK_FIELDS)
_FORECAST_SEEN, _EVENT_SEEN = _columns("forecast_seen_seconds", "event_seen_seconds")

# Compiled code takes plain numbers.
_WARN, _PRUNE, _CRITICAL = int(Level.WARN), int(Level.PRUNE), int(Level.CRITICAL)
_LEVEL_BIT, _FORECAST_BIT, _CAPACITY_BIT, _EVENT_BIT, _UNKNOWN_BIT = map(int, Reason)

# The columns of the rules: places among the values of a sample, -1 for nowhere, and whether each sample reads it.
VALUE, ROOM, RECLAIMS, OOMS, STALL, URGENT, COLUMNS_WIDTH = range(7)
# Limit (NaN: 90 % of the capacity), constant capacity (NaN: none), target as a share of the limit (NaN: switched off),
# and how far out the level is: the limit counts for the innermost level that has a capacity, the others have 90 %.
CEILING, ROOM_CONSTANT, TARGET_SHARE, DEPTH, BOUNDS_WIDTH = range(5)

BARS = (*range(LIMIT, MEAN + 1), EPISODES)  # what a replay keeps of a track with each sample
BARS_WIDTH = len(BARS)

ROUNDING = 1e-6
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

_BRIM = 0.97  # CAPACITY: share of the capacity
_DEFAULT_LIMIT = 0.9  # of the capacity, where no limit is set or it lies above the capacity
_OVER = 1 / 3  # LEVEL: share of the last period over the limit; 0.2 pressed 24 of 30 plateaus with spikes
_STALLED_PERCENT = 10.0  # EVENT: share of the time that some task waited for memory
_LOST_PERIODS = 1.1  # without a reading for longer, nothing older counts
_RELIEF = 0.8  # of the target: pressure that was below it and is forecast again is an episode of its own
# While memory presses it is looked at after twice the last wait, and at least so often: who frees half fills it again.
_PRESSED_HORIZONS, _PRESSED_WAITS = 1 / 16, 2.0
_WAIT_SHARE = 0.125  # of the time until memory is full, until it is looked at again: 4 readings use half of that time

# What decide returns.
PRESSED_CHANGED, LIMIT_ABOVE_CAPACITY = 1, 2

# Readings summed up: how many, mean time and value, sums of squares and products about the means.
Moments = tuple[float, float, float, float, float, float]


class Standing(NamedTuple):
    """Where one limit stands in one sample.

    Args:
        reading, limit, target, capacity: as measured and configured.
        value, high, low: reading, limit and target in shares of the capacity; as they are where nothing runs out.
        runs_out: whether there is a capacity.
        is_off: whether nothing is decided: no limit is configured, or a level of memory has no capacity.
        is_above: whether the limit is configured above the capacity, so that the default holds.
    """

    reading: float
    limit: float
    target: float
    capacity: float
    value: float
    high: float
    low: float
    runs_out: bool
    is_off: bool
    is_above: bool


class Period(NamedTuple):
    """The readings of the last period together with the newest one.

    Args:
        mean: time-weighted.
        maximum: of all.
        over_seconds, over_count: how long, and in how many readings, the value was over the limit.
        readings_count: of all readings.
        calm_seconds: over the limit in the last _CALM_PERIODS; only the end of LEVEL asks.
        is_ending: whether a line leads to the end soon, and that is news.
        ends_seconds: until the end; NaN where no line leads there.
    """

    mean: float
    maximum: float
    over_seconds: float
    over_count: float
    readings_count: float
    calm_seconds: float
    is_ending: bool
    ends_seconds: float


class Events(NamedTuple):
    """What the kernel has done since the last reading, and the share of the time in which tasks waited, percent."""

    reclaimed: bool
    killed: bool
    stalled: float


_NO_MOMENTS: Moments = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_NO_PERIOD = Period(math.nan, math.nan, 0.0, 0.0, 1.0, math.nan, is_ending=False, ends_seconds=math.nan)


@callable_from_kernels
def line(older: Moments, value: float) -> float:
    """Return the slope of a line through *older* readings, at least 3, and *value* at time 0; 0 where it is none.

    *value* counts only up to the highest one that still makes a line (closed form), so that raising it never lowers the
    result.
    """
    count, time, mean, times, products, squares = older
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
def fast_end(recent: Floats, now: float, at: Standing, horizon: float, pressed: bool) -> float:
    """Return the seconds to the end by a line through the newest three readings and the value; NaN for none so soon."""
    is_asked = recent[KNOWN_COUNT] >= 3.0 and (at.value > at.high or (pressed and at.value >= at.low))
    length = now - recent[TIME_0]
    if not is_asked or now - recent[TIME_2] < _EVEN * length:
        return np.nan
    count = time = mean = times = products = squares = 0.0
    for place in range(TIME_0, RECENT_WIDTH, 2):
        count += 1.0
        time_off, value_off = recent[place] - now - time, recent[place + 1] - mean
        time, mean = time + time_off / count, mean + value_off / count
        times += time_off * (time_off - time_off / count)
        products += time_off * (value_off - value_off / count)
        squares += value_off * (value_off - value_off / count)
    slope = line((count, time, mean, times, products, squares), at.value)
    has_ended = at.value - recent[VALUE_1] < _FADING * slope * (now - recent[TIME_1])
    ahead = min(_AHEAD * length, (_PRESSED_AHEAD_HORIZONS if pressed else _AHEAD_HORIZONS) * horizon)
    if at.value > at.high:
        ahead = min(max(length, ahead), horizon)
    is_near = slope > 0.0 and not has_ended and 1.0 - at.value <= ahead * slope
    return (1.0 - at.value) / slope if is_near else np.nan


@callable_from_kernels
def joined(older: Moments, bucket: Floats, now: float) -> Moments:
    """Return the moments of *older* and *bucket* together, times from *now* on. Source: Chan, Golub, LeVeque 1983."""
    count, time, mean, times, products, squares = older
    new_count = bucket[COUNT]
    both = count + new_count
    time_off, value_off = bucket[TIME] - now - time, bucket[VALUES] - mean
    share, weight = new_count / both, count * new_count / both
    return (
        both,
        time + time_off * share,
        mean + value_off * share,
        times + bucket[TIMES] + time_off * time_off * weight,
        products + bucket[PRODUCTS] + time_off * value_off * weight,
        squares + bucket[SQUARES] + value_off * value_off * weight,
    )


@callable_from_kernels
def forecast(
    buckets: Floats, recent: Floats, now: float, at: Standing, timing: Floats, fast_seconds: float
) -> tuple[bool, bool, float]:
    """Look for a line through the newest buckets that leads to the end, the shortest window first.

    Args:
        fast_seconds: to the end by the fast window, which settles it; NaN where it says nothing.

    Returns:
        Whether the end is near, whether this is a rise, and the seconds to the end (NaN where no line leads there).
    """
    value, low = at.value, at.low
    width, horizon = timing[PERIOD] / PARTS, timing[HORIZON]
    here = math.floor(now / width + ROUNDING)
    is_ending, rises, ends, newest_slope = not math.isnan(fast_seconds), False, fast_seconds, -1.0
    moments = _NO_MOMENTS
    for back in range(PARTS + 1):
        if is_ending or (value < low and not math.isnan(ends)):
            break  # nothing more is asked
        bucket = buckets[(here - back) & _MASK]
        if bucket[ID] != here - back:
            continue
        moments = joined(moments, bucket, now)
        least = _LONG if moments[0] < _SHORT_COUNT else _SHORT
        if moments[0] < 3.0 or now - (here - back) * width < least * horizon:
            continue
        raised, spread = least_squares(moments, value)
        if newest_slope < 0.0:  # the shortest window that rises at all
            newest_slope = min(raised / spread, (value - recent[VALUE_1]) / (now - recent[TIME_1]))
        useful = useful_seconds(at, timing, ends)
        # A line is never steeper than the least squares, which cost less.
        is_far = raised <= 0.0 or raised * useful < (1.0 - value) * spread
        slope = 0.0 if is_far else line(moments, value)
        if slope > 0.0 and newest_slope >= _FADING * slope:
            left = (1.0 - value) / slope
            if math.isnan(ends) and left <= useful:
                ends = left
            if value >= low and 1.0 - value <= horizon * slope:
                rises = True
                if is_news(buckets, here, back, at):
                    is_ending, ends = True, left
    return is_ending, rises, ends


@callable_from_kernels
def least_squares(older: Moments, value: float) -> tuple[float, float]:
    """Return numerator and denominator of the least-squares slope through *older* readings and *value* at time 0."""
    count, time, mean, times, products, _ = older
    lever = count / (count + 1.0)
    return products - lever * time * (value - mean), times + lever * time * time


@callable_from_kernels
def useful_seconds(at: Standing, timing: Floats, ends: float) -> float:
    """Return how far ahead a line may end that says something new, where a line so far *ends* (NaN: none)."""
    period: float = timing[PERIOD]
    horizon: float = timing[HORIZON]
    if not math.isnan(ends):
        return horizon
    return _SHOWN_PERIODS * period if at.value >= at.low else _SHOWN_HORIZONS * horizon


@callable_from_kernels
def is_news(buckets: Floats, here: int, back: int, at: Standing) -> bool:
    """Say whether the value is above the peak of the rises before bucket *here* - *back*, which came to nothing."""
    peak = -np.inf
    for older in range(back + 1, PARTS * _RISES_PERIODS + back + 1):
        bucket = buckets[(here - older) & _MASK]
        if bucket[ID] == here - older:
            peak = max(peak, bucket[RISE_TOP])
    return peak == -np.inf or at.value > min(peak + _MARGIN * (1.0 - peak), at.high)


@callable_from_kernels
def look_back(
    buckets: Floats, now: float, at: Standing, lasted: float, period: float, latched: bool
) -> tuple[float, float, float, float, float, float]:
    """Go back over the *period*, from a reading at *now* that is not in the track yet and for *lasted* seconds holds.

    Returns:
        The fields of Period up to the seconds over the limit in the last _CALM_PERIODS, which are those of one period
        unless *latched*.
    """
    here = math.floor(now / (period / PARTS) + ROUNDING)
    seconds, area, over_seconds, over_count, count, maximum = lasted, lasted * at.value, 0.0, 0.0, 1.0, at.value
    if at.value > at.high:
        over_seconds, over_count = lasted, 1.0
    for back in range(PARTS + 1):
        bucket = buckets[(here - back) & _MASK]
        if bucket[ID] == here - back:
            seconds, area, over_seconds = (
                seconds + bucket[LASTED],
                area + bucket[AREA],
                over_seconds + bucket[OVER_LASTED],
            )
            over_count, count, maximum = (
                over_count + bucket[OVER_COUNT],
                count + bucket[COUNT],
                max(maximum, bucket[TOP]),
            )
    calm_seconds = over_seconds
    for back in range(PARTS + 1, _CALM_PERIODS * PARTS + 1 if latched else 0):
        bucket = buckets[(here - back) & _MASK]
        if bucket[ID] == here - back:
            calm_seconds += bucket[OVER_LASTED]
    mean = area / seconds if seconds > 0.0 else at.value
    return mean, maximum, over_seconds, over_count, count, calm_seconds


@callable_from_kernels
def standing(row: Floats, places: Integers, bounds: Floats, innermost: float) -> Standing:
    """Return where a limit stands in the sample *row*; *innermost* is the depth that the configured limit is about."""
    reading, room = row[places[VALUE]], places[ROOM]
    capacity = bounds[ROOM_CONSTANT] if room < 0 else row[room]
    limit = np.nan if bounds[DEPTH] > innermost else bounds[CEILING]
    # A level that nothing limits has a usage and no capacity.
    is_free = math.isnan(capacity) and not math.isnan(reading) and not math.isnan(bounds[DEPTH])
    is_off = is_free or math.isnan(bounds[TARGET_SHARE])
    runs_out = not is_off and (room >= 0 or not math.isnan(capacity))
    is_above = runs_out and limit > capacity
    if runs_out and not limit <= capacity:  # a NaN limit too
        limit = _DEFAULT_LIMIT * capacity
    scale = capacity if runs_out else 1.0
    high = limit / scale
    target, low = bounds[TARGET_SHARE] * limit, bounds[TARGET_SHARE] * high
    return Standing(reading, limit, target, capacity, reading / scale, high, low, runs_out, is_off, is_above)


@callable_from_kernels
def switch_off(state: Floats, capacity: float) -> None:
    """Publish a limit of which nothing is decided."""
    state[LEVEL], state[REASONS], state[CAPACITY] = 0.0, 0.0, capacity
    state[LIMIT] = state[TARGET] = state[SECONDS] = state[MEAN] = state[MAXIMUM] = np.nan
    state[KNOWN_SINCE] = state[KNOWN_UNTIL] = np.nan


@callable_from_kernels
def gap_before(state: Floats, buckets: Floats, recent: Floats, now: float, period: float) -> float:
    """Return the seconds since the last reading; infinite, with all that was older forgotten, after a hole."""
    gap: float = now - state[KNOWN_UNTIL]
    if 0.0 <= gap <= _LOST_PERIODS * period + 1e-9:
        return gap
    state[REASONS] = 0.0
    state[KNOWN_SINCE] = state[RECLAIM_COUNT] = state[OOM_COUNT] = state[OOM_SEEN] = np.nan
    state[MEAN] = state[MAXIMUM] = np.nan
    buckets[:, ID] = -np.inf
    recent[:] = np.nan
    recent[KNOWN_COUNT] = recent[RATE] = recent[RELIEVED] = 0.0
    return np.inf


@callable_from_kernels
def observe(
    state: Floats, buckets: Floats, recent: Floats, now: float, at: Standing, gap: float, timing: Floats, observed: bool
) -> Period:
    """Take a known reading, *gap* seconds after the one before, into the track; return the period that it ends.

    Args:
        observed: whether readings have been known for long enough to forecast.
    """
    period, reasons = timing[PERIOD], int(state[REASONS]) & ~_UNKNOWN_BIT
    if gap < np.inf and at.runs_out and state[CAPACITY] > 0.0 and at.capacity != state[CAPACITY]:
        resize(buckets, recent, state[CAPACITY] / at.capacity)
    lasted = min(gap, period) if recent[KNOWN_COUNT] > 0.0 else 0.0
    seen = look_back(buckets, now, at, lasted, period, reasons & _LEVEL_BIT != 0)
    is_ending, rises, ends = False, False, np.nan
    if at.runs_out and observed:
        fast_seconds = fast_end(recent, now, at, timing[HORIZON], reasons != 0)
        is_ending, rises, ends = forecast(buckets, recent, now, at, timing, fast_seconds)
    if ends < 0.0:  # noqa: PLR1730  a NaN stays one, which max() does not promise
        ends = 0.0
    scale = at.capacity if at.runs_out else 1.0
    state[KNOWN_UNTIL], state[MEAN], state[MAXIMUM] = now, seen[0] * scale, seen[1] * scale
    if rises:
        recent[RISE_SEEN] = now
    here = math.floor(now / (period / PARTS) + ROUNDING)
    take(buckets, recent, here, now, at.value, at.high, lasted, now - recent[RISE_SEEN] <= period)
    return Period(*seen, is_ending, ends)


@callable_from_kernels
def observe_events(state: Floats, row: Floats, places: Integers, now: float, known: bool, held: bool) -> Events:
    """Return what the counters of kernel events say since the last reading: a rise is one, a fall is a reset."""
    reclaims = row[places[RECLAIMS]] if places[RECLAIMS] >= 0 else np.nan
    ooms = row[places[OOMS]] if places[OOMS] >= 0 else np.nan
    stalled = row[places[STALL]] if places[STALL] >= 0 else np.nan
    reclaimed = known and reclaims > state[RECLAIM_COUNT]
    killed = ooms > state[OOM_COUNT] and (known or held)
    if known and not math.isnan(reclaims):
        state[RECLAIM_COUNT] = reclaims
    if not math.isnan(ooms):
        state[OOM_COUNT] = ooms
    if killed:
        state[OOM_SEEN] = now
    return Events(reclaimed, killed, stalled)


@callable_from_kernels
def conditions(at: Standing, seen: Period, events: Events, period: float, known: bool, observed: bool) -> int:
    """Return the bits of the reasons whose condition holds now."""
    bits = 0
    often = seen.over_count >= max(2.0, _OVER * seen.readings_count - ROUNDING)
    long = seen.over_seconds >= _OVER * period - ROUNDING
    if observed and at.value > at.high and seen.mean > at.low and often and long:
        bits |= _LEVEL_BIT
    if observed and seen.is_ending:
        bits |= _FORECAST_BIT
    if known and at.runs_out and at.value >= _BRIM:
        bits |= _CAPACITY_BIT
    # Page cache makes reclaim events in calm times too; over the limit, or while tasks wait, they are pressure.
    waiting = at.value >= at.low and events.stalled > _STALLED_PERCENT
    if events.killed or (observed and events.reclaimed and (at.value > at.high or waiting)):
        bits |= _EVENT_BIT
    return bits


@callable_from_kernels
def endings(state: Floats, now: float, at: Standing, seen: Period, period: float) -> int:
    """Return the bits of the reasons that end, as long as their conditions do not hold."""
    bits = 0
    if seen.maximum < at.low or seen.calm_seconds < _OVER * period - ROUNDING:
        bits |= _LEVEL_BIT
    if not now - state[_FORECAST_SEEN] <= period:
        bits |= _FORECAST_BIT
    if seen.maximum < _BRIM:
        bits |= _CAPACITY_BIT
    if not now - state[_EVENT_SEEN] <= period:
        bits |= _EVENT_BIT
    return bits


@callable_from_kernels
def latch(
    state: Floats, now: float, at: Standing, mean: float, seconds: float, set_bits: int, fresh: int, over: int
) -> int:
    """Return the bits of the reasons after this sample: set by *set_bits*, ended by *over*.

    The numbers of those in *fresh* are kept as they are now: *mean* in shares, *seconds* to the end.
    """
    reasons, scale = int(state[REASONS]) & ~_UNKNOWN_BIT, at.capacity if at.runs_out else 1.0
    for reason in range(4):
        bit, each = 1 << reason, EACH + reason * EACH_WIDTH
        if set_bits & bit:
            if fresh & bit:
                state[each + SINCE], state[each + SET_VALUE], state[each + SET_MEAN] = now, at.reading, mean * scale
                state[each + SET_LIMIT], state[each + SET_CAPACITY] = at.limit, at.capacity
                state[each + SET_SECONDS] = seconds
                state[each + SET_COUNT] += 1.0
            reasons |= bit
            state[each + SEEN] = now
        elif over & bit:
            reasons &= ~bit
    return reasons


@callable_from_kernels
def level_of(state: Floats, now: float, at: Standing, mean: float, reasons: int, period: float) -> int:
    """Return the level that *reasons* and the value come to."""
    if reasons & _CAPACITY_BIT or (reasons & _EVENT_BIT and now - state[OOM_SEEN] <= period):
        return _CRITICAL
    if reasons:
        return _PRUNE
    return _WARN if at.value >= at.low or mean >= at.low else 0


@callable_from_kernels
def count_episode(state: Floats, recent: Floats, now: float, pressed: bool, comes_back: bool) -> bool:
    """Count the episode that begins; return whether pressure began, ended, or *comes_back* after it was relieved."""
    changed = pressed != (state[LEVEL] >= _PRUNE) or (pressed and comes_back)
    if changed:
        recent[RELIEVED] = 0.0
        if pressed:
            state[PRESSED_SINCE] = now
            state[EPISODES] += 1.0
    return changed


@callable_from_kernels
def wait_seconds(recent: Floats, value: float, horizon: float, gap: float, pressed: bool) -> float:
    """Return in how many seconds memory should be looked at again; infinite while it does not rise."""
    wait = np.inf
    if recent[RATE] > 0.0:
        wait = _WAIT_SHARE * (1.0 - value) / recent[RATE]
    if pressed:
        wait = min(wait, _PRESSED_HORIZONS * horizon, _PRESSED_WAITS * gap)
    return wait


@callable_from_kernels
def word_of(at: Standing, level: int, reasons: int) -> int:
    """Return the verdict word of a limit; the share to shed goes from nothing at the target to all at the end."""
    shed, end = 0.0, 1.0 if at.runs_out else at.high
    if at.value > at.low:
        shed = min((at.value - at.low) / (end - at.low), 1.0) if end > at.low else 1.0
    return level << LEVEL_SHIFT | reasons << REASONS_SHIFT | int(shed * SHED_MAX + 0.5) << SHED_SHIFT


@callable_from_kernels
def both_words(one: int, other: int) -> int:
    """Return the verdict word of two together: the highest level, all reasons, the highest share to shed."""
    level = max(one >> LEVEL_SHIFT & LEVEL_MASK, other >> LEVEL_SHIFT & LEVEL_MASK)
    reasons = (one | other) >> REASONS_SHIFT & REASONS_MASK
    shed = max(one >> SHED_SHIFT & SHED_MAX, other >> SHED_SHIFT & SHED_MAX)
    return level << LEVEL_SHIFT | reasons << REASONS_SHIFT | shed << SHED_SHIFT


@callable_from_kernels
def innermost_depth(row: Floats, columns: Integers, bounds: Floats) -> float:
    """Return how far out the level of memory is that the configured limit is about: the innermost with a capacity."""
    innermost = np.inf
    for place in range(columns.shape[0]):
        room = columns[place, ROOM]
        counts = room >= 0 and (not math.isnan(row[room]) or math.isnan(row[columns[place, VALUE]]))
        if counts and bounds[place, DEPTH] < innermost:
            innermost = bounds[place, DEPTH]
    return innermost


@callable_from_kernels
def decide_limit(
    now: float,
    row: Floats,
    places: Integers,
    at: Standing,
    timing: Floats,
    buckets: Floats,
    recent: Floats,
    state: Floats,
) -> tuple[bool, int, float]:
    """Move one limit on by one sample; return whether its pressure changed, its verdict word, and seconds to wait."""
    period, known = timing[PERIOD], not math.isnan(at.value) and not math.isnan(at.high)
    gap = gap_before(state, buckets, recent, now, period)
    held = gap < np.inf
    if known and not held:
        state[KNOWN_SINCE] = now
    # A sample may come a little late: half an interval counts as observed.
    observed = known and now - state[KNOWN_SINCE] > 0.5 * period - ROUNDING - 0.5 * min(gap, 0.1 * period)
    seen = observe(state, buckets, recent, now, at, gap, timing, observed) if known else _NO_PERIOD
    events = observe_events(state, row, places, now, known, held)
    set_bits = conditions(at, seen, events, period, known, observed)
    over = endings(state, now, at, seen, period) if known else 0
    fresh, comes_back = set_bits & ~int(state[REASONS]), False
    if recent[RELIEVED] > 0.0:  # only what leads to the end: turns of high and low are one episode
        fresh |= set_bits & _FORECAST_BIT
        comes_back = fresh & (_FORECAST_BIT | _CAPACITY_BIT) != 0
    reasons = latch(state, now, at, seen.mean, seen.ends_seconds, set_bits, fresh, over)
    level = level_of(state, now, at, seen.mean, reasons, period)
    pressed = level >= _PRUNE
    changed = count_episode(state, recent, now, pressed, comes_back)
    if known and pressed and at.value <= _RELIEF * at.low:
        recent[RELIEVED] = 1.0
    wait = np.inf
    if known and places[URGENT] != 0:
        wait = wait_seconds(recent, at.value, timing[HORIZON], gap, pressed)
    if not (known or held):
        reasons |= _UNKNOWN_BIT
    state[LEVEL], state[REASONS], state[SECONDS] = level, reasons, seen.ends_seconds
    if known or not held:
        state[LIMIT], state[TARGET], state[CAPACITY] = at.limit, at.target, at.capacity
    return changed, word_of(at, level, reasons), wait


@callable_from_kernels
def decide(
    mono_word: Words,
    row: Floats,
    columns: Integers,
    bounds: Floats,
    timing: Floats,
    buckets: Floats,
    recent: Floats,
    state: Floats,
    words: Words,
    verdict: Words,
    wait: Floats,
) -> int:
    """Move each limit on by one sample and write its verdict word; return what there is to tell.

    Args:
        mono_word: nanoseconds of the sample, shape (1,).
        row: its values, shape (metrics,); NaN is unknown.
        columns: shape (limits, COLUMNS_WIDTH), bounds: shape (limits, BOUNDS_WIDTH): the rules, as named above.
        timing: shape (TIMING_WIDTH,): the period and the horizon of the forecast.
        buckets: shape (limits, BUCKETS, BUCKET_WIDTH), recent: shape (limits, RECENT_WIDTH): the tracks; changed.
        state: shape (limits, TRACK_WIDTH): what is published of each limit; changed.
        words: result, shape (limits,): level in bits 32-33, reasons in bits 34-49, the share to shed in bits 51-62.
        verdict: shape (1,); bit 0 says that only urgent readings are new; result: the highest of each of the words.
        wait: result, shape (1,): seconds until memory should be looked at again; infinite while it does not rise.

    Returns:
        The bits PRESSED_CHANGED and LIMIT_ABOVE_CAPACITY.
    """
    now = np.int64(mono_word[0]) * 1e-9
    between = verdict[0] & np.uint64(BETWEEN) != 0
    innermost = innermost_depth(row, columns, bounds)
    told, word = 0, 0
    wait[0] = np.inf
    for place in range(state.shape[0]):
        if not between or columns[place, URGENT] != 0:  # else it was not read anew: what it said still holds
            at = standing(row, columns[place], bounds[place], innermost)
            if at.is_off:
                switch_off(state[place], at.capacity)
                words[place] = np.uint64(0)
            else:
                changed, own_word, own_wait = decide_limit(
                    now, row, columns[place], at, timing, buckets[place], recent[place], state[place]
                )
                words[place], wait[0] = np.uint64(own_word), min(wait[0], own_wait)
                told |= PRESSED_CHANGED * changed | LIMIT_ABOVE_CAPACITY * at.is_above
        word = both_words(word, int(np.int64(words[place])))  # bit 63 is zero
    verdict[0] = np.uint64(word)
    return told


def run(
    mono: Words,
    values: Floats,
    start: int,
    stop: int,
    columns: Integers,
    bounds: Floats,
    timing: Floats,
    buckets: Floats,
    recent: Floats,
    state: Floats,
    words: Words,
    verdicts: Words,
    bars: Floats,
) -> None:
    """Take the samples *start* to *stop* - 1 of a trace, whose rows are in order.

    Args:
        mono, values: shapes (n,) and (n, metrics).
        words, verdicts: results for each row, shapes (n, limits) and (n,); of the verdicts bit 0 is read.
        bars: result, shape (n, limits, BARS_WIDTH): limit, target, capacity, seconds to the end, mean and number of
            episodes as they were.
        columns, bounds, timing, buckets, recent, state: as for ``decide``.
    """
    now, wait = np.zeros(state.shape[0], np.uint64), np.empty(1)
    if start > 0:
        now[:] = words[start - 1]
    for row in range(start, stop):
        one = slice(row, row + 1)
        decide(mono[one], values[row], columns, bounds, timing, buckets, recent, state, now, verdicts[one], wait)
        words[row] = now
        for place in range(state.shape[0]):
            for bar in range(BARS_WIDTH - 1):
                bars[row, place, bar] = state[place, LIMIT + bar]
            bars[row, place, BARS_WIDTH - 1] = state[place, EPISODES]


WORDS = "uint64[::1]"
RULES = (read_only("int64", 2, "C"), read_only("float64", 2, "C"), read_only("float64", 1, "C"))
TRACK = ("float64[:, :, ::1]", "float64[:, ::1]", "float64[:, ::1]")
_SAMPLE = (read_only("uint64", 1), read_only("float64", 1, "C"))

DECIDE = Kernel(decide, f"int64({', '.join((*_SAMPLE, *RULES, *TRACK, WORDS, WORDS, 'float64[::1]'))})")

_TRACE = (read_only("uint64", 1), read_only("float64", 2, "C"), "int64", "int64")

RUN = Kernel(run, f"void({', '.join((*_TRACE, *RULES, *TRACK, 'uint64[:, ::1]', WORDS, 'float64[:, :, ::1]'))})")
