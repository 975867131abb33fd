"""The oracle of the decision: the rule of docs/decisions.md as a plain streaming model of one limit, written apart.

All values are shares of the capacity. It knows nothing of OOM kills, and of an unknown value it says only that what was
latched still presses.
"""

# ruff: noqa: N803  L, T, P and H are the words of the rule

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

OK, WARN, PRUNE, CRITICAL = range(4)
LEVEL, FORECAST, CAPACITY, EVENT = 1, 2, 4, 8  # bits of the reasons

BRIM = 0.97  # of the capacity: CAPACITY (v1)
OVER = 1 / 3  # LEVEL: share of the last P spent over L, in at least 2 samples
CALM = 3  # LEVEL also leaves when the last CALM * P hold no more time over L than that
LINE = 0.85  # FORECAST: least R2 of the fit. Evenly sampled, a step has 0.80 at most (n = 4), 0.75 for many
SURE = 5.0  # FORECAST: least t statistic of the slope
LONG, SHORT, MANY = 0.75, 0.25, 5.0  # FORECAST: a window is LONG * H at least; with MANY older readings SHORT * H
AGAIN = 1 / 8  # FORECAST, fast: while something presses, to AGAIN * H, and from the target on
AHEAD, NEAR = 2.5, 1 / 16  # FORECAST, fast: looks so many times as far ahead as its four readings are long, to NEAR * H
EVEN = 0.15  # FORECAST, fast: the newest interval is so much of its length at least: a step and an echo are no line
FADE = 0.25  # FORECAST: the newest part still rises at this share of the slope (v1: a quarter of the mean rise)
MEMORY = 6  # FORECAST: for so many periods, the peak of a rise that came to nothing counts
MARGIN = 0.1  # FORECAST: a later rise must be higher by this share of the headroom, or over L
STALL = 0.1  # EVENT: memory PSI (some) above this share, or v > L
PARTS = 16  # buckets of a period

# A bucket: number, readings, means, co-moments, maximum, maximum within P of a rise, seconds, value * seconds, over L
(B_ID, B_N, B_T, B_V, B_TT, B_TV, B_VV, B_MAX, B_RISE, B_S, B_SV, B_SO, B_NO, B_WIDTH) = range(14)
(S_N, S_START, S_LAST, S_FORECAST, S_EVENT, S_LATCHED, S_RECLAIMS, S_SECONDS, S_RATE, S_RISE, S_WIDTH) = range(11)
BUCKETS = PARTS * (MEMORY + 2)


@njit(cache=True)
def fresh() -> tuple[Floats, Floats, Floats]:
    """Return the memory of a limit: buckets, the last 3 known readings (time, value), scalars."""
    buckets = np.zeros((BUCKETS, B_WIDTH))
    buckets[:, B_ID] = -1e18
    state = np.full(S_WIDTH, -np.inf)
    state[S_N] = state[S_LATCHED] = state[S_RATE] = 0.0
    state[S_RECLAIMS] = state[S_SECONDS] = np.nan
    return buckets, np.full((3, 2), np.nan), state


@njit(cache=True)
def line(n: float, mt: float, mv: float, tt: float, tv: float, vv: float, t: float, v: float) -> float:
    """Add reading (t, v) to the moments of n >= 3 older ones; return the slope if they lie on a line, else 0.

    The newest value counts only up to the highest one that still makes a line: raising it never lowers the result.
    """
    d, x = n / (n + 1.0), t - mt
    sxx, c = tt + d * x * x, d * x
    need = max(LINE, SURE * SURE / (SURE * SURE + n - 1.0))  # t >= SURE as an R2: n + 1 readings
    a, b, e = c * c - need * sxx * d, 2.0 * c * tv, tv * tv - need * sxx * vv
    disc = b * b - 4.0 * a * e
    if disc < 0.0 or a >= 0.0:
        return 0.0
    root = math.sqrt(disc)
    highest, lowest = (-b - root) / (2.0 * a), (-b + root) / (2.0 * a)
    y = min(v - mv, highest + 1e-12)
    if y < lowest - 1e-12:
        return 0.0
    return max((tv + c * y) / sxx, 0.0)


@njit(cache=True)
def step(
    buckets: Floats,
    last3: Floats,
    state: Floats,
    now: float,
    value: float,
    L: float,
    T: float,
    P: float,
    H: float,
    reclaims: float,
    stall: float,
) -> int:
    """Take one sample (value NaN: unknown; shares of the capacity); return level + 16 * reasons."""
    if math.isnan(value):
        return int(state[S_LATCHED]) * 16 + (PRUNE if state[S_LATCHED] > 0 else OK)
    width = P / PARTS
    if not now - state[S_LAST] <= P * 1.1 + 1e-9:  # the first reading, or a hole: forget
        buckets[:, B_ID] = -1e18
        state[S_N], state[S_START], state[S_LATCHED], state[S_FORECAST], state[S_EVENT] = (
            0.0,
            now,
            0.0,
            -np.inf,
            -np.inf,
        )
        last3[:, :] = np.nan
    here = math.floor(now / width + 1e-6)
    observed = now - state[S_START] > 0.5 * P - 1e-6 - 0.5 * min(now - state[S_LAST], 0.1 * P)
    # One walk back over the period: seconds, mean, time over, maximum, and the moments of every window that ends now.
    secs = min(now - state[S_LAST], P) if state[S_N] > 0 else 0.0
    over = secs if value > L else 0.0
    sum_s, sum_sv, sum_so, over_n, top = secs, secs * value, over, 1.0 if value > L else 0.0, value
    n = mt = mv = tt = tv = vv = 0.0
    short = seconds = rate = -1.0
    coming = rise = False
    if state[S_N] >= 3.0:  # the fastest window, the last 4 readings: only above L
        for i in range(3):
            n += 1.0
            dt, dv = last3[i, 0] - now - mt, last3[i, 1] - mv
            mt, mv = mt + dt / n, mv + dv / n
            tt, tv, vv = tt + dt * (dt - dt / n), tv + dt * (dv - dv / n), vv + dv * (dv - dv / n)
        rate = line(n, mt, mv, tt, tv, vv, 0.0, value)
        rising = value - last3[1, 1] >= FADE * rate * (now - last3[1, 0])
        even = now - last3[2, 0] >= EVEN * (now - last3[0, 0])
        again = state[S_LATCHED] > 0.0
        coming = (value > L or (again and value >= T)) and rate > 0.0 and rising and even
        span = now - last3[0, 0]
        ahead = min(AHEAD * span, (AGAIN if again else NEAR) * H)
        coming = coming and 1.0 - value <= (min(max(span, ahead), H) if value > L else ahead) * rate
        if coming:
            seconds = (1.0 - value) / rate
        n = mt = mv = tt = tv = vv = 0.0
    start = now
    for back in range(PARTS + 1):
        row = buckets[int((here - back) % BUCKETS)]
        if row[B_ID] != here - back:
            continue
        sum_s, sum_sv, sum_so = sum_s + row[B_S], sum_sv + row[B_SV], sum_so + row[B_SO]
        over_n, top = over_n + row[B_NO], max(top, row[B_MAX])
        m = n + row[B_N]
        dt, dv, w = row[B_T] - now - mt, row[B_V] - mv, n * row[B_N] / m
        n, mt, mv = m, mt + dt * row[B_N] / m, mv + dv * row[B_N] / m
        tt, tv, vv = tt + row[B_TT] + dt * dt * w, tv + row[B_TV] + dt * dv * w, vv + row[B_VV] + dv * dv * w
        start = (here - back) * width
        if n < 3.0 or now - start < (LONG if n < MANY else SHORT) * H:
            continue
        if short < 0.0:
            d = n / (n + 1.0)
            short = (tv - d * mt * (value - mv)) / (tt + d * mt * mt)
            short = min(short, (value - last3[1, 1]) / (now - last3[1, 0]))  # the newest 3: no leverage
        if value < T or coming or not observed:
            continue
        slope = line(n, mt, mv, tt, tv, vv, 0.0, value)
        if slope > 0.0 and short >= FADE * slope and 1.0 - value <= H * slope:
            rise, past = True, -np.inf  # the highest peak of earlier rises, before this window
            for older in range(back + 1, PARTS * MEMORY + back + 1):
                before = buckets[int((here - older) % BUCKETS)]
                if before[B_ID] == here - older:
                    past = max(past, before[B_RISE])
            if past == -np.inf or value > min(past + MARGIN * (1.0 - past), L):
                coming = True
                seconds = (1.0 - value) / slope
    calm = sum_so
    for back in range(PARTS + 1, CALM * PARTS + 1):
        row = buckets[int((here - back) % BUCKETS)]
        if row[B_ID] == here - back:
            calm += row[B_SO]
    mean = sum_sv / sum_s if sum_s > 0.0 else value
    # The reasons.
    latched = int(state[S_LATCHED])
    if (
        observed
        and value > L
        and mean > T
        and over_n >= max(2.0, OVER * (n + 1.0) - 1e-6)
        and sum_so >= OVER * P - 1e-6
    ):
        latched |= LEVEL
    elif top < T or calm < OVER * P - 1e-6:
        latched &= ~LEVEL
    if coming and observed:
        latched |= FORECAST
        state[S_FORECAST], state[S_SECONDS] = now, seconds
    elif now - state[S_FORECAST] > P:
        latched &= ~FORECAST
    if value >= BRIM:
        latched |= CAPACITY
    elif top < BRIM:
        latched &= ~CAPACITY
    if observed and reclaims > state[S_RECLAIMS] and (value > L or (value >= T and stall > STALL)):
        latched |= EVENT
        state[S_EVENT] = now
    elif now - state[S_EVENT] > P:
        latched &= ~EVENT
    state[S_RECLAIMS] = state[S_RECLAIMS] if math.isnan(reclaims) else reclaims
    # Take the reading in.
    row = buckets[int(here % BUCKETS)]
    if row[B_ID] != here:
        row[:] = 0.0
        row[B_ID], row[B_MAX], row[B_RISE] = here, -np.inf, -np.inf
    row[B_N] += 1.0
    dt, dv = now - row[B_T], value - row[B_V]
    row[B_T], row[B_V] = row[B_T] + dt / row[B_N], row[B_V] + dv / row[B_N]
    row[B_TT] += dt * (now - row[B_T])
    row[B_TV] += dt * (value - row[B_V])
    row[B_VV] += dv * (value - row[B_V])
    row[B_MAX] = max(row[B_MAX], value)
    state[S_RISE] = now if rise else state[S_RISE]
    if now - state[S_RISE] <= P:
        row[B_RISE] = max(row[B_RISE], value)
    row[B_S], row[B_SV], row[B_SO] = row[B_S] + secs, row[B_SV] + secs * value, row[B_SO] + over
    row[B_NO] += 1.0 if value > L else 0.0
    if state[S_N] > 0.0 and now > last3[2, 0]:
        state[S_RATE] = (value - last3[2, 1]) / (now - last3[2, 0])
    last3[0], last3[1] = last3[1].copy(), last3[2].copy()
    last3[2, 0], last3[2, 1] = now, value
    state[S_N] += 1.0
    state[S_LAST], state[S_LATCHED] = now, latched
    level = CRITICAL if latched & CAPACITY else PRUNE if latched else WARN if value >= T or mean >= T else OK
    return level + 16 * latched


@njit(cache=True)
def run(
    times: Floats, values: Floats, L: float, T: float, P: float, H: float, reclaims: Floats, stall: Floats
) -> NDArray[np.int64]:
    """Return (levels, reasons) of a whole trace (shares of the capacity)."""
    buckets, last3, state = fresh()
    out = np.zeros((2, times.size), np.int64)
    for i in range(times.size):
        word = step(buckets, last3, state, times[i], values[i], L, T, P, H, reclaims[i], stall[i])
        out[0, i], out[1, i] = word % 16, word // 16
    return out
