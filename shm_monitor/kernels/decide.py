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
from shm_monitor.kernels.past import (
    HORIZON,
    ID,
    KNOWN_COUNT,
    PARTS,
    PERIOD,
    RATE,
    RELIEVED,
    RISE_SEEN,
    ROUNDING,
    Floats,
    look_back,
    resize,
    take,
)

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

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


WORDS = "uint64[::1]"
RULES = (read_only("int64", 2, "C"), read_only("float64", 2, "C"), read_only("float64", 1, "C"))
TRACK = ("float64[:, :, ::1]", "float64[:, ::1]", "float64[:, ::1]")
_SAMPLE = (read_only("uint64", 1), read_only("float64", 1, "C"))

DECIDE = Kernel(decide, f"int64({', '.join((*_SAMPLE, *RULES, *TRACK, WORDS, WORDS, 'float64[::1]'))})")
