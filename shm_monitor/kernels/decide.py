"""The kernel ``decide``: the level and the reasons of each limit, from one sample to the next.

It is a scalar loop that also runs uncompiled, with the same results: a sampler on a cold cache does not wait for the
compiler.

What runs out (memory) is decided in shares of its capacity, so that a limit that is resized in place needs no new
history; a rate has no capacity and is decided as it is. Times are seconds of the monotonic clock.

Source: docs/decisions.md, which says why each constant is what it is.
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917  a kernel is its loop; a call more costs compile time

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shm_monitor.kernels.compiled import Kernel, callable_from_kernels, read_only

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

# The published columns of a limit's track, as schema.TRACK_FIELDS explains them.
(LEVEL, REASONS, LIMIT, TARGET, CAPACITY, SECONDS, MEAN, MAXIMUM, KNOWN_SINCE, KNOWN_UNTIL) = range(10)
(RECLAIM_COUNT, OOM_COUNT, OOM_SEEN, PRESSED_SINCE, EPISODES, EACH) = range(10, 16)
(SINCE, SEEN, SET_VALUE, SET_MEAN, SET_LIMIT, SET_CAPACITY, SET_SECONDS, SET_COUNT, EACH_WIDTH) = range(9)
TRACK_WIDTH = EACH + 4 * EACH_WIDTH
_FORECAST_SEEN, _EVENT_SEEN = EACH + EACH_WIDTH + SEEN, EACH + 3 * EACH_WIDTH + SEEN
_LEVEL_BIT, _FORECAST_BIT, _CAPACITY_BIT, _EVENT_BIT, _UNKNOWN_BIT = 1, 2, 4, 8, 16

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

# Bits of a verdict word, as segment/flags.py has them; bit 0 comes in: a sample between two turns, of memory alone.
_LEVEL_SHIFT, _REASONS_SHIFT, _SHED_SHIFT, _SHED_MOST, _BETWEEN = 32, 34, 51, 4095, 1


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
    period = timing[PERIOD]
    between = verdict[0] & np.uint64(_BETWEEN) != 0
    innermost = np.inf  # the level that the configured limit of memory is about
    for place in range(state.shape[0]):
        room = columns[place, ROOM]
        counts = room >= 0 and (not math.isnan(row[room]) or math.isnan(row[columns[place, VALUE]]))
        if counts and bounds[place, DEPTH] < innermost:
            innermost = bounds[place, DEPTH]
    told, top_level, union, most = 0, 0, 0, 0
    wait[0] = np.inf
    for place in range(state.shape[0]):
        s = state[place]
        reading = row[columns[place, VALUE]]
        if between and columns[place, URGENT] == 0:  # not read anew: what it said still holds
            word = int(words[place])
            top_level, union = max(top_level, word >> _LEVEL_SHIFT & 3), union | word >> _REASONS_SHIFT & 0xFFFF
            most = max(most, word >> _SHED_SHIFT & 0xFFF)
            continue
        room = columns[place, ROOM]
        capacity = bounds[place, ROOM_CONSTANT] if room < 0 else row[room]
        limit, target_share = bounds[place, CEILING], bounds[place, TARGET_SHARE]
        if bounds[place, DEPTH] > innermost:
            limit = np.nan
        # A level that nothing limits has a usage and no capacity.
        free = math.isnan(capacity) and not math.isnan(reading) and not math.isnan(bounds[place, DEPTH])
        if free or math.isnan(target_share):
            s[LEVEL], s[REASONS], s[CAPACITY] = 0.0, 0.0, capacity
            s[LIMIT] = s[TARGET] = s[SECONDS] = s[MEAN] = s[MAXIMUM] = s[KNOWN_SINCE] = s[KNOWN_UNTIL] = np.nan
            words[place] = np.uint64(0)
            continue
        runs_out = room >= 0 or not math.isnan(capacity)
        scale = capacity if runs_out else 1.0
        if runs_out and not limit <= capacity:  # a NaN limit too
            if limit > capacity:
                told |= LIMIT_ABOVE_CAPACITY
            limit = _DEFAULT_LIMIT * capacity
        target = target_share * limit
        value, high = reading / scale, limit / scale
        low = target_share * high

        known = not math.isnan(value) and not math.isnan(high)
        gap = now - s[KNOWN_UNTIL]
        held = 0.0 <= gap <= _LOST_PERIODS * period + 1e-9
        reasons = int(s[REASONS]) & ~_UNKNOWN_BIT
        if not held:  # the first reading, or a hole: nothing older counts
            gap, reasons = np.inf, 0
            s[KNOWN_SINCE] = s[RECLAIM_COUNT] = s[OOM_COUNT] = s[OOM_SEEN] = s[MEAN] = s[MAXIMUM] = np.nan
            buckets[place, :, ID] = -np.inf
            recent[place, :] = np.nan
            recent[place, KNOWN_COUNT] = recent[place, RATE] = recent[place, RELIEVED] = 0.0
            if known:
                s[KNOWN_SINCE] = now
        # A sample may come a little late: half an interval counts as observed.
        observed = known and now - s[KNOWN_SINCE] > 0.5 * period - ROUNDING - 0.5 * min(gap, 0.1 * period)

        seconds, coming, calm = np.nan, False, np.nan
        mean, top, over_seconds, over_count, count = np.nan, np.nan, 0.0, 0.0, 1.0
        if known:
            if held and runs_out and s[CAPACITY] > 0.0 and capacity != s[CAPACITY]:
                resize(buckets[place], recent[place], s[CAPACITY] / capacity)
            lasted = min(gap, period) if recent[place, KNOWN_COUNT] > 0.0 else 0.0
            mean, top, over_seconds, over_count, count, calm, coming, rises, seconds = look_back(
                buckets[place],
                recent[place],
                now,
                value,
                high,
                low,
                lasted,
                timing,
                observed,
                runs_out,
                reasons & _LEVEL_BIT != 0,
                reasons != 0,
            )
            s[KNOWN_UNTIL], s[MEAN], s[MAXIMUM] = now, mean * scale, top * scale
            if rises:
                recent[place, RISE_SEEN] = now
            here = math.floor(now / (period / PARTS) + ROUNDING)
            take(
                buckets[place], recent[place], here, now, value, high, lasted, now - recent[place, RISE_SEEN] <= period
            )
            if columns[place, URGENT] != 0 and recent[place, RATE] > 0.0:
                wait[0] = min(wait[0], _WAIT_SHARE * (1.0 - value) / recent[place, RATE])

        # Counters of kernel events: a rise since the last reading; a fall is a reset.
        reclaims = ooms = stalled = np.nan
        if columns[place, RECLAIMS] >= 0:
            reclaims = row[columns[place, RECLAIMS]]
        if columns[place, OOMS] >= 0:
            ooms = row[columns[place, OOMS]]
        if columns[place, STALL] >= 0:
            stalled = row[columns[place, STALL]]
        reclaimed, killed = known and reclaims > s[RECLAIM_COUNT], ooms > s[OOM_COUNT] and (known or held)
        if known and not math.isnan(reclaims):
            s[RECLAIM_COUNT] = reclaims
        if not math.isnan(ooms):
            s[OOM_COUNT] = ooms
        if killed:
            s[OOM_SEEN] = now

        seen, over = 0, 0
        most_part = over_count >= max(2.0, _OVER * count - ROUNDING) and over_seconds >= _OVER * period - ROUNDING
        if observed and value > high and mean > low and most_part:
            seen |= _LEVEL_BIT
        if observed and coming:
            seen |= _FORECAST_BIT
        if known and runs_out and value >= _BRIM:
            seen |= _CAPACITY_BIT
        # Page cache makes reclaim events in calm times too; over the limit, or while tasks wait, they are pressure.
        if killed or (observed and reclaimed and (value > high or (value >= low and stalled > _STALLED_PERCENT))):
            seen |= _EVENT_BIT
        if known:
            if top < low or calm < _OVER * period - ROUNDING:
                over |= _LEVEL_BIT
            if not now - s[_FORECAST_SEEN] <= period:
                over |= _FORECAST_BIT
            if top < _BRIM:
                over |= _CAPACITY_BIT
            if not now - s[_EVENT_SEEN] <= period:
                over |= _EVENT_BIT
        fresh = seen & ~reasons
        comes_back = False
        if recent[place, RELIEVED] > 0.0:  # only what leads to the end: turns of high and low are one episode
            fresh |= seen & _FORECAST_BIT
            comes_back = fresh & (_FORECAST_BIT | _CAPACITY_BIT) != 0
        for reason in range(4):
            bit, each = 1 << reason, EACH + reason * EACH_WIDTH
            if seen & bit:
                if fresh & bit:
                    s[each + SINCE], s[each + SET_VALUE], s[each + SET_MEAN] = now, reading, mean * scale
                    s[each + SET_LIMIT], s[each + SET_CAPACITY], s[each + SET_SECONDS] = limit, capacity, seconds
                    s[each + SET_COUNT] += 1.0
                reasons |= bit
                s[each + SEEN] = now
            elif over & bit:
                reasons &= ~bit

        level = 0
        if reasons & _CAPACITY_BIT or (reasons & _EVENT_BIT and now - s[OOM_SEEN] <= period):
            level = 3
        elif reasons:
            level = 2
        elif value >= low or mean >= low:
            level = 1
        pressed = level >= 2
        if pressed != (s[LEVEL] >= 2.0) or (pressed and comes_back):
            told |= PRESSED_CHANGED
            recent[place, RELIEVED] = 0.0
            if pressed:
                s[PRESSED_SINCE] = now
                s[EPISODES] += 1.0
        if known and pressed and value <= _RELIEF * low:
            recent[place, RELIEVED] = 1.0
        if known and pressed and columns[place, URGENT] != 0:
            wait[0] = min(wait[0], _PRESSED_HORIZONS * timing[HORIZON], _PRESSED_WAITS * gap)
        if not (known or held):
            reasons |= _UNKNOWN_BIT
        s[LEVEL], s[REASONS] = level, reasons
        s[SECONDS] = seconds
        if known or not held:
            s[LIMIT], s[TARGET], s[CAPACITY] = limit, target, capacity
        shed = 0.0  # from the target (nothing) to the end (all of it)
        end = 1.0 if runs_out else high
        if value > low:
            shed = min((value - low) / (end - low), 1.0) if end > low else 1.0
        parts = int(shed * _SHED_MOST + 0.5)
        words[place] = np.uint64(level << _LEVEL_SHIFT | reasons << _REASONS_SHIFT | parts << _SHED_SHIFT)
        top_level, union, most = max(top_level, level), union | reasons, max(most, parts)
    verdict[0] = np.uint64(top_level << _LEVEL_SHIFT | union << _REASONS_SHIFT | most << _SHED_SHIFT)
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
