"""The kernels of a sample: ``roll`` (mean, maximum, slope), then ``decide`` (level and reasons of each limit).

Both read the ring in place and get the newest sample apart, before it is in the ring; sample n is in slot
``n % slots``. Both are scalar loops that also run uncompiled, with the same results: a sampler on a cold cache does not
wait for the compiler. They are long, and in one file, for numba: each function compiled costs 0.1 s more, and its cache
sees changes of the calling function's file only.
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917  see above

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shm_monitor.kernels.compiled import Kernel, callable_from_kernels, read_only

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

# The cursor of roll: the window is FIRST..LAST; the front of the stack has FIRST..MIDDLE-1, its back MIDDLE..LAST.
FIRST, MIDDLE, LAST, LAST_NS, BASE_NS, REFILL, CURSOR_WIDTH = range(7)
# An aggregate: how many readings, their mean time and value, the sums of squares and products about them, the maximum.
COUNT, MEAN_TIME, MEAN, TIMES, PRODUCTS, MAXIMUM, AGGREGATE_WIDTH = range(7)

# The columns of a limit's state, as schema.STATE_FIELDS explains them.
(LEVEL, REASONS, LIMIT, TARGET, CAPACITY, SECONDS, KNOWN_SINCE, KNOWN_UNTIL, KNOWN_BEFORE) = range(9)
(RECLAIM_COUNT, OOM_COUNT, OOM_SEEN, PRESSED_SINCE, EPISODES, EACH) = range(9, 15)
(SINCE, SEEN, SET_VALUE, SET_MEAN, SET_LIMIT, SET_CAPACITY, SET_SECONDS, SET_COUNT, EACH_WIDTH) = range(9)
STATE_WIDTH = EACH + 4 * EACH_WIDTH
_FORECAST_SEEN, _CAPACITY_SEEN, _EVENT_SEEN = (EACH + place * EACH_WIDTH + SEEN for place in (1, 2, 3))
_LEVEL_BIT, _FORECAST_BIT, _CAPACITY_BIT, _EVENT_BIT, _UNKNOWN_BIT = 1, 2, 4, 8, 16
_SHED_MAX = np.int64(4095)  # the capacity, in the twelve bits that a flag has for how much to shed
_BRIM = 0.97  # of the capacity: CAPACITY. Source: design note on decisions
_DEFAULT_LIMIT = 0.9  # of the capacity, where no limit is set or it lies above the capacity

# What decide returns.
PRESSED_CHANGED, LIMIT_ABOVE_CAPACITY = 1, 2


@callable_from_kernels
def roll(
    ring_mono: Words,
    ring_values: Floats,
    number_word: Words,
    mono_word: Words,
    row: Floats,
    means: Floats,
    maxima: Floats,
    slopes: Floats,
    cursor: Integers,
    stack: Floats,
    period_ns: int,
) -> None:
    """Write mean, maximum and slope of each rolled metric over the samples with ``now - time <= period``.

    Args:
        ring_mono, ring_values: the older samples, shapes (slots,) and (slots, metrics).
        number_word, mono_word, row: the newest sample, shapes (1,), (1,) and (metrics,). NaN is skipped.
        means, maxima, slopes: results, shape (rolled,); the slope in units per second. NaN without enough readings.
        cursor: shape (CURSOR_WIDTH,), where the window is; changed.
        stack: shape (capacity + 2, rolled, AGGREGATE_WIDTH), changed. Row ``n % capacity`` is the aggregate of samples
            n to MIDDLE - 1 (the front), the last but one that of MIDDLE to LAST (the back), the last one the empty one.
        period_ns: a sample exactly this old still counts.

    The front is refilled from the ring when it is used up, so that each sample is aggregated twice in its life whatever
    the period. Nothing is ever subtracted, so nothing drifts.

    Source: two-stack sliding window aggregation (Tangwongsan et al., VLDB 2015); pairwise update of means and
    co-moments: Chan, Golub, LeVeque 1983.
    """
    number, now = np.int64(number_word[0]), np.int64(mono_word[0])
    slots, rolled = ring_mono.shape[0], means.shape[0]
    back, empty = stack.shape[0] - 2, stack.shape[0] - 1
    first, middle = cursor[FIRST], cursor[MIDDLE]
    fresh = number != cursor[LAST] + 1 or now < cursor[LAST_NS] or now - cursor[LAST_NS] > period_ns
    if fresh:  # the first sample, or one after a gap: nothing older counts
        first = number
    else:
        oldest = number - back + 1  # older ones have no row in the stack, or no slot in the ring any more
        while first < number and (first < oldest or now - np.int64(ring_mono[first % slots]) > period_ns):
            first += 1
        fresh = first > middle or cursor[REFILL] != 0
    if fresh:
        middle = number
        cursor[BASE_NS] = now  # times count from here, so that they keep their digits
    refills = number - first if fresh else 0
    source = empty if fresh else back
    for turn in range(refills + 1):
        newest = turn == refills  # joins the back; the turns before it refill the front, newest first
        slot = (number - 1 - turn) % slots
        target = back if newest else (number - 1 - turn) % back
        seconds = ((now if newest else np.int64(ring_mono[slot])) - cursor[BASE_NS]) * 1e-9
        if newest and fresh:
            source = empty
        for metric in range(rolled):
            value = row[metric] if newest else ring_values[slot, metric]
            for field in range(AGGREGATE_WIDTH):
                stack[target, metric, field] = stack[source, metric, field]
            if not math.isnan(value):
                count = stack[target, metric, COUNT] + 1.0
                time_off = seconds - stack[target, metric, MEAN_TIME]
                value_off = value - stack[target, metric, MEAN]
                rest = time_off - time_off / count
                stack[target, metric, COUNT] = count
                stack[target, metric, MEAN_TIME] += time_off / count
                stack[target, metric, MEAN] += value_off / count
                stack[target, metric, TIMES] += time_off * rest
                stack[target, metric, PRODUCTS] += value_off * rest
                stack[target, metric, MAXIMUM] = max(value, stack[target, metric, MAXIMUM])
        source = target
    front = first % back if first < middle else empty
    for metric in range(rolled):
        older, newer = stack[front, metric, COUNT], stack[back, metric, COUNT]
        means[metric] = maxima[metric] = slopes[metric] = np.nan
        if older + newer > 0.0:
            share = newer / (older + newer)
            time_off = stack[back, metric, MEAN_TIME] - stack[front, metric, MEAN_TIME]
            value_off = stack[back, metric, MEAN] - stack[front, metric, MEAN]
            rest = time_off * older * share
            times = stack[front, metric, TIMES] + stack[back, metric, TIMES] + time_off * rest
            products = stack[front, metric, PRODUCTS] + stack[back, metric, PRODUCTS] + value_off * rest
            means[metric] = stack[front, metric, MEAN] + value_off * share
            maxima[metric] = max(stack[front, metric, MAXIMUM], stack[back, metric, MAXIMUM])
            if times > 0.0:
                slopes[metric] = products / times
    cursor[FIRST], cursor[MIDDLE], cursor[LAST] = first, middle, number
    cursor[LAST_NS], cursor[REFILL] = now, 0


@callable_from_kernels
def decide(
    ring_numbers: Words,
    ring_mono: Words,
    ring_values: Floats,
    number_word: Words,
    mono_word: Words,
    row: Floats,
    means: Floats,
    maxima: Floats,
    slopes: Floats,
    columns: Integers,
    bounds: Floats,
    timing: Floats,
    state: Floats,
    words: Words,
    verdict: Words,
) -> int:
    """Move the state of each limit on by one sample and write its verdict word; return what there is to tell.

    Args:
        ring_numbers, ring_mono, ring_values, number_word, mono_word, row: the samples, as for :func:`roll`.
        means, maxima, slopes: what roll wrote.
        columns: shape (limits, 4): which metric is the value, the capacity, the reclaim and the OOM counter; -1: none.
        bounds: shape (limits, 3): the limit (NaN: by the capacity), the constant capacity (NaN: none), and the target
            as a share of the limit (NaN: a limit that is switched off).
        timing: seconds: the period, half an interval (a sample may come that late), the horizon of the forecast.
        state: shape (limits, STATE_WIDTH), the whole memory of the decision; changed.
        words: result, shape (limits,): level in bits 32-33, reasons in bits 34-49, how much to shed in bits 51-62
            (4095ths of the way from the target to the end), as segment/flags.py has it.
        verdict: result, shape (1,): the highest level, all reasons, the highest shed.

    Returns:
        The bits PRESSED_CHANGED and LIMIT_ABOVE_CAPACITY.

    Source: design note on decisions.
    """
    number, now_ns = np.int64(number_word[0]), np.int64(mono_word[0])
    now, slots = now_ns * 1e-9, ring_mono.shape[0]
    period, grace, horizon = timing[0], timing[1], timing[2]
    late = period + grace
    # The oldest sample of the last half horizon: gallop back, then bisect.
    ramp, outside, stride = number, max(number - slots, np.int64(0)), 1
    while ramp - outside > 1:
        probe = max(number - stride, (ramp + outside) // 2)
        age_ns = now_ns - np.int64(ring_mono[probe % slots])
        if np.int64(ring_numbers[probe % slots]) == probe and 0 <= age_ns <= np.int64(horizon * 5e8):
            ramp = probe
            stride *= 2
        else:
            outside = probe
    # Three parts of equally many samples, one at least: the ramp has four corners.
    part = max((number - ramp) // 3, np.int64(1))
    corners = 0
    for corner in range(1, 4):
        probe = number - corner * part
        if probe > max(number - slots, 0) and np.int64(ring_numbers[probe % slots]) == probe:
            corners += 1
    low, middle, high = (number - 3 * part) % slots, (number - 2 * part) % slots, (number - part) % slots
    span = (now_ns - np.int64(ring_mono[low])) * 1e-9
    told, top, union, most = 0, 0, np.int64(0), np.int64(0)
    for limit_index in range(state.shape[0]):
        s = state[limit_index]
        metric = columns[limit_index, 0]
        value, mean, maximum = row[metric], means[metric], maxima[metric]

        capacity = bounds[limit_index, 1] if columns[limit_index, 1] < 0 else row[columns[limit_index, 1]]
        limit = bounds[limit_index, 0]
        share = bounds[limit_index, 2]
        off = math.isnan(share)
        if not off and not math.isnan(capacity) and not limit <= capacity:  # a NaN limit too
            if limit > capacity:
                told |= LIMIT_ABOVE_CAPACITY
            limit = _DEFAULT_LIMIT * capacity
        target, brim = share * limit, _BRIM * capacity
        end = limit if math.isnan(capacity) else capacity

        # Unknown: a hole longer than a period forgets everything, one of more than half of it is remembered.
        # A limit that is switched off is observed all the same: switched on by a takeover, it waits for nothing.
        known = not math.isnan(value) and (off or not math.isnan(target))
        held = 0.0 <= now - s[KNOWN_UNTIL] <= late
        reasons = np.int64(s[REASONS]) & ~_UNKNOWN_BIT
        if off or not held:
            reasons = np.int64(0)
        if not held:
            s[KNOWN_SINCE] = s[KNOWN_BEFORE] = s[RECLAIM_COUNT] = s[OOM_COUNT] = s[OOM_SEEN] = np.nan
        if known:
            if not held:
                s[KNOWN_SINCE] = now
            elif now - s[KNOWN_UNTIL] > 0.5 * period + grace:
                s[KNOWN_BEFORE], s[KNOWN_SINCE] = s[KNOWN_UNTIL], now
            s[KNOWN_UNTIL] = now
        observed = now - s[KNOWN_SINCE] > 0.5 * period - grace or now - s[KNOWN_BEFORE] <= late

        # Rising: each part rises and the smallest rise is more than a quarter of the mean rise. The last part counts
        # only as far as that holds, so that a higher value never makes less of a ramp, and a step still makes none.
        seconds, coming = np.nan, False
        slope = slopes[metric]
        if slope > 0.0:
            seconds = max(end - value, 0.0) / slope
        if corners == 3 and span > 0.0:
            rise = ring_values[middle, metric] - ring_values[low, metric]
            next_rise = ring_values[high, metric] - ring_values[middle, metric]
            least = min(rise, next_rise)
            last = min(value - ring_values[high, metric], 12.0 * least - rise - next_rise)
            total = rise + next_rise + last
            if not math.isnan(total) and least > 0.0 and last > 0.0 and 12.0 * last > total:
                reached = ring_values[high, metric] + last
                seconds = max(end - value, 0.0) * span / total
                coming = reached >= target and (end - reached) * span <= horizon * total

        # Counters of kernel events: a rise since the last reading; a fall is a reset.
        reclaims = ooms = np.nan
        if columns[limit_index, 2] >= 0:
            reclaims = row[columns[limit_index, 2]]
        if columns[limit_index, 3] >= 0:
            ooms = row[columns[limit_index, 3]]
        reclaimed, killed = reclaims > s[RECLAIM_COUNT], ooms > s[OOM_COUNT]
        if not math.isnan(reclaims):
            s[RECLAIM_COUNT] = reclaims
        if not math.isnan(ooms):
            s[OOM_COUNT] = ooms
        if killed:
            s[OOM_SEEN] = now

        seen, over = 0, 0
        if observed and value > limit and mean > target:
            seen |= _LEVEL_BIT
        if observed and coming:
            seen |= _FORECAST_BIT
        if known and not off and value >= brim:
            seen |= _CAPACITY_BIT
        # Page cache makes reclaim events in calm times too.
        if (killed and not off and (known or held)) or (observed and reclaimed and value >= target):
            seen |= _EVENT_BIT
        if known:
            if maximum < target:
                over |= _LEVEL_BIT
            if now - s[_FORECAST_SEEN] > late:
                over |= _FORECAST_BIT
            if maximum < brim or (math.isnan(capacity) and now - s[_CAPACITY_SEEN] > late):
                over |= _CAPACITY_BIT
            if now - s[_EVENT_SEEN] > late:
                over |= _EVENT_BIT
        for reason in range(4):
            bit, each = 1 << reason, EACH + reason * EACH_WIDTH
            if seen & bit:
                if not reasons & bit:
                    s[each + SINCE], s[each + SET_VALUE], s[each + SET_MEAN] = now, value, mean
                    s[each + SET_LIMIT], s[each + SET_CAPACITY], s[each + SET_SECONDS] = limit, capacity, seconds
                    s[each + SET_COUNT] += 1.0
                reasons |= bit
                s[each + SEEN] = now
            elif over & bit:
                reasons &= ~bit

        level = 0
        if reasons & _CAPACITY_BIT or (reasons & _EVENT_BIT and now - s[OOM_SEEN] <= late):
            level = 3
        elif reasons:
            level = 2
        elif value >= target or mean >= target:
            level = 1
        if (level >= 2) != (s[LEVEL] >= 2.0):
            told |= PRESSED_CHANGED
            if level >= 2:
                s[PRESSED_SINCE] = now
                s[EPISODES] += 1.0
        if not (known or held or off):
            reasons |= _UNKNOWN_BIT
        s[LEVEL], s[REASONS] = level, reasons
        s[LIMIT], s[TARGET], s[CAPACITY], s[SECONDS] = limit, target, capacity, seconds
        shed = np.int64(0)
        if value > target:  # neither is NaN
            shed = np.int64(min((value - target) / (end - target), 1.0) * _SHED_MAX + 0.5) if value < end else _SHED_MAX
        words[limit_index] = np.uint64(level << 32 | reasons << 34 | shed << 51)
        top, union, most = max(top, level), union | reasons, max(most, shed)
    verdict[0] = np.uint64(top << 32 | union << 34 | most << 51)
    return told


@callable_from_kernels
def run(
    numbers: Words,
    mono: Words,
    values: Floats,
    start: int,
    stop: int,
    means: Floats,
    maxima: Floats,
    slopes: Floats,
    cursor: Integers,
    stack: Floats,
    period_ns: int,
    columns: Integers,
    bounds: Floats,
    timing: Floats,
    state: Floats,
    words: Words,
    verdicts: Words,
    bars: Floats,
) -> None:
    """Take the samples *start* to *stop* - 1 of a whole trace, which is its own ring: sample n is in row n.

    Args:
        numbers, mono, values: the trace, shapes (n + 1,), (n + 1,) and (n + 1, metrics); row 0 is empty.
        means, words, verdicts: results for each row; *bars*, shape (n + 1, limits, 4), gets limit, target, capacity and
            seconds to the limit. All others as for :func:`roll` and :func:`decide`.
    """
    for row in range(start, stop):
        here = slice(row, row + 1)
        roll(mono, values, numbers[here], mono[here], values[row], means[row], maxima, slopes, cursor, stack, period_ns)
        decide(
            numbers, mono, values, numbers[here], mono[here], values[row], means[row], maxima, slopes,
            columns, bounds, timing, state, words[row], verdicts[here],
        )  # fmt: skip
        for limit_index in range(state.shape[0]):
            for bar in range(4):
                bars[row, limit_index, bar] = state[limit_index, LIMIT + bar]


_FLOATS, _WORDS, _INTEGERS = "float64[::1]", "uint64[::1]", "int64[::1]"
_RING = (read_only("uint64", 1), read_only("float64", 2))
_NEWEST = (read_only("uint64", 1), read_only("uint64", 1), read_only("float64", 1, "C"))
_RULES = (read_only("int64", 2, "C"), read_only("float64", 2, "C"), read_only("float64", 1, "C"))
_ROLLED = (_FLOATS, _FLOATS, _FLOATS)
_STACK = (_INTEGERS, "float64[:, :, ::1]", "int64")
_STATE = "float64[:, ::1]"

ROLL = Kernel(roll, f"void({', '.join((*_RING, *_NEWEST, *_ROLLED, *_STACK))})")
DECIDE = Kernel(
    decide,
    f"int64({', '.join((read_only('uint64', 1), *_RING, *_NEWEST, *_ROLLED, *_RULES, _STATE, _WORDS, _WORDS))})",
)
_TRACE = (_WORDS, _WORDS, "float64[:, ::1]", "int64", "int64")
_RESULTS = ("float64[:, ::1]", "uint64[:, ::1]", _WORDS, "float64[:, :, ::1]")
RUN = Kernel(run, f"void({', '.join((*_TRACE, 'float64[:, ::1]', _FLOATS, _FLOATS, *_STACK, *_RULES, *_RESULTS))})")
