"""Yesterday's readings through the kernels of the sampler."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.decision.rules import MEBIBYTE
from shm_monitor.errors import MissingDependencyError, TraceError
from shm_monitor.kernels.decide import BARS
from shm_monitor.traces import report
from shm_monitor.traces.binary import Table, Trace, read_trace
from shm_monitor.traces.episodes import LimitReport, Report, compare
from shm_monitor.traces.recorder import Recorder
from shm_monitor.traces.replay import decide_over, load, progress_bar, replay
from shm_monitor.traces.report import Tried, html, thinned
from shm_monitor.units import duration
from tests.support.engine import MEMORY, Engine, Settings, metric

Floats = NDArray[np.float64]
METRICS = (MEMORY[0], metric("gpu", "memory_percent", instance="0", rolled=True), *MEMORY[1:])
GPU = Settings(max_gpu_memory_percent=92.0)


def trace_of(percents: Floats, *, hz: float = 1.0, gpu: Floats | None = None) -> Trace:
    """Return a trace of *percents* of 100 MB, at *hz*."""
    count = len(percents)
    values = np.full((count, len(METRICS)), np.nan)
    values[:, 0], values[:, 2] = percents * MEBIBYTE, 100 * MEBIBYTE
    values[:, 1] = 40.0 if gpu is None else gpu
    times = 10**12 + (np.arange(count) * 1e9 / hz).astype(np.int64)
    table = Table(METRICS, round(1e9 / hz), {"0": "GPU-a"}, "test")
    return Trace(table, times, times.astype(np.uint64), np.zeros(count, np.uint64), values, source="a trace")


def step_up() -> Floats:
    """Return 60 for 30 s, 94 for 30 s, 60 for 40 s."""
    return np.repeat([60.0, 94.0, 60.0], [30, 30, 40])


def memory_of(report: Report) -> LimitReport:
    return next(limit for limit in report.limits if limit.name == "memory")


def test_a_replay_is_bit_identical_to_what_the_sampler_decided(tmp_path: Path) -> None:
    """Live, recorded sample by sample, read and replayed: the same verdicts, means and limits."""
    random = np.random.default_rng(8)
    engine = Engine(GPU, METRICS, hz=10)
    table = Table(METRICS, 10**8, {}, "live")
    bars = []
    with Recorder(tmp_path / "t", table) as recorder:
        for place in range(1500):
            engine.set("memory.reclaim_events_count", float(place // 400))
            engine.set("gpu:0.memory_percent", math.nan if place % 97 < 5 else 70 + 30 * math.sin(place / 90))
            late_ns = int(random.integers(-30_000_000, 30_000_000))
            engine.set("memory.usage_bytes", (85 + 13 * math.sin(place / 60) + random.normal(0, 1)) * MEBIBYTE)
            engine.sample(at_ns=10**12 + place * 10**8 + late_ns)
            recorder.write(
                engine.record["values"][0],
                number=engine.number,
                epoch=1,
                mono_ns=engine.now_ns,
                realtime_ns=engine.now_ns,
                verdict=engine.verdicts[-1],
            )
            bars.append(engine.tracks[-1][:, BARS])

    done = decide_over(read_trace(tmp_path / "t"), GPU)

    assert len({verdict >> 32 for verdict in engine.verdicts}) > 4
    assert done.verdicts.tolist() == engine.verdicts == done.trace.verdicts.tolist()
    assert done.words.tolist() == engine.words
    assert done.bars.tobytes() == np.array(bars).tobytes()


def test_the_replay_of_an_adaptive_trace_is_bit_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uneven times, and samples between two turns, in which what is not memory only repeats; over chunks, too."""
    monkeypatch.setattr("shm_monitor.traces.replay._CHUNK", 7)
    random = np.random.default_rng(9)
    engine = Engine(GPU, METRICS)
    rows, times, verdicts, at_ns = [], [], [], 10**12
    for place in range(1500):
        between = bool(random.random() < 0.4)
        at_ns += int(random.integers(20, 600)) * 10**6
        engine.set("memory.usage_bytes", (85 + 13 * math.sin(place / 60) + random.normal(0, 1)) * MEBIBYTE)
        if not between:
            engine.set("gpu:0.memory_percent", 80 + 18 * math.sin(place / 40))
        engine.sample(at_ns=at_ns, between=between)
        rows.append(engine.record["values"][0].copy())
        times.append(at_ns)
        verdicts.append(int(engine.record["verdict"][0]))
    stamps = np.array(times)
    trace = Trace(
        Table(METRICS, 10**9, {}, "live"),
        stamps,
        stamps.astype(np.uint64),
        np.array(verdicts, np.uint64),
        np.array(rows),
    )

    done = decide_over(trace, GPU)

    assert len({verdict >> 32 for verdict in engine.verdicts}) > 4
    assert done.verdicts.tolist() == engine.verdicts
    assert done.words.tolist() == engine.words


def test_a_replay_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of(85 + 13 * np.sin(np.arange(1000) / 20))
    whole = decide_over(trace, GPU)
    monkeypatch.setattr("shm_monitor.traces.replay._CHUNK", 7)
    done: list[int] = []

    chunked = decide_over(trace, GPU, progress=done.append)

    assert whole.words.tobytes() == chunked.words.tobytes()
    assert sum(done) == 1000


def test_a_report_tells_episodes_levels_and_the_warning_before_the_peak() -> None:
    percents = step_up()
    percents[50] = 96.0

    memory = memory_of(replay(trace_of(percents), GPU))

    (episode,) = memory.episodes
    assert (episode.begin_seconds, episode.end_seconds) == (38.0, 70.0)
    assert (episode.level, episode.reasons) == ("prune", ("level",))
    assert episode.value == 94 * MEBIBYTE
    assert episode.limit == 92 * MEBIBYTE
    assert episode.capacity == 100 * MEBIBYTE
    assert episode.peak_value == memory.peak_value == 96 * MEBIBYTE
    assert memory.first_prune_seconds == 38.0
    assert memory.peak_seconds == 50.0
    assert memory.seconds_before_peak == 12.0
    assert memory.seconds_at == {"ok": 59.0, "warn": 8.0, "prune": 32.0, "critical": 0.0, "unknown": 0.0}


def test_the_overall_report_has_the_episodes_of_all_limits() -> None:
    gpu = np.repeat([40.0, 98.0, 40.0], [5, 5, 90])

    report = replay(trace_of(step_up(), gpu=gpu), GPU)

    assert [limit.name for limit in report.limits] == ["overall", "memory", "gpu-memory:0"]
    assert [len(limit.episodes) for limit in report.limits] == [2, 1, 1]
    assert [episode.level for episode in report.limits[0].episodes] == ["critical", "prune"]


def test_a_leak_that_is_halved_when_told_has_an_episode_each_time() -> None:
    """As the worker counts them: its pressure never ends between them, for FORECAST presses for a whole period."""
    leak, percents, told = 40.0, [], 0.0
    engine = Engine(GPU, METRICS)
    for second in range(120):
        engine.set("memory.usage_bytes", leak * MEBIBYTE)
        engine.sample(at_ns=10**12 + second * 10**9)
        percents.append(leak)
        count = engine.track("episodes_count")
        leak = leak / 2 if count > told else leak + 6.0
        told = count

    report = replay(trace_of(np.array(percents)), GPU)

    overall, memory, _ = report.limits
    assert len(memory.episodes) == len(overall.episodes) == told > 3
    assert any(one.end_seconds == two.begin_seconds for one, two in itertools.pairwise(memory.episodes))


def test_an_episode_at_the_end_of_the_trace_has_no_end() -> None:
    memory = memory_of(replay(trace_of(step_up()[:50]), GPU))

    assert memory.episodes[0].end_seconds is None


def test_a_peak_that_nothing_pressed_for_has_no_warning() -> None:
    memory = memory_of(replay(trace_of(np.full(40, 60.0)), GPU))

    assert memory.seconds_before_peak is None
    assert memory.episodes == ()


def test_time_without_samples_counts_at_no_level() -> None:
    trace = trace_of(np.full(60, 60.0))
    trace.times_ns[30:] += 1000 * 10**9

    report = replay(trace, GPU)

    assert report.gap_seconds == 1001.0
    assert sum(memory_of(report).seconds_at.values()) == 58.0


def test_a_limit_without_readings_is_unknown_all_the_time() -> None:
    report = replay(trace_of(step_up(), gpu=np.full(100, np.nan)), GPU)

    assert report.limits[2].seconds_at["unknown"] == 99.0
    assert report.limits[2].peak_value is None


def test_the_real_configuration_replays() -> None:
    report = replay(trace_of(step_up()), ResourceConfig(max_memory_usage_mb=92.0, observation_period=5.0))

    assert memory_of(report).episodes[0].begin_seconds < 38.0


def test_two_configurations_are_compared_limit_by_limit() -> None:
    trace = trace_of(step_up())
    before, after = replay(trace, GPU), replay(trace, Settings(max_memory_usage_mb=96.0))

    comparison = compare(before, after)

    assert [change.name for change in comparison.changes] == ["overall", "memory", "gpu-memory:0"]
    assert comparison.changes[2].after is None
    lines = comparison.text().splitlines()
    assert re.search(r"memory\s+1 -> 0\s+38.0 s -> never\s+.*32.0 s -> 0.0 s", lines[2])


def test_the_text_says_what_the_report_knows() -> None:
    text = replay(trace_of(step_up()), GPU).text()

    assert "a trace: 100 samples over 1 min 39 s" in text
    assert "memory (memory.usage_bytes, limit 92.0 MB)" in text
    assert "38.0 s to 70.0 s: prune (level), at 94.0 MB" in text


def test_a_report_is_data() -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(replay(trace_of(step_up()), GPU)))

    assert decoded["limits"][1]["episodes"][0]["reasons"] == ["level"]


@pytest.mark.parametrize(
    ("trace", "settings", "seen"),
    [
        (trace_of(np.empty(0)), GPU, "no sample"),
        (
            Trace(
                Table((metric("cpu", "load_1"),), 10**9, {}, ""),
                np.array([1, 2]),
                np.zeros(2, np.uint64),
                np.zeros(2, np.uint64),
                np.zeros((2, 1)),
            ),
            GPU,
            "no limit",
        ),
    ],
    ids=["empty", "nothing limited"],
)
def test_a_trace_that_decides_nothing_is_refused(trace: Trace, settings: Settings, seen: str) -> None:
    with pytest.raises(TraceError, match=seen):
        replay(trace, settings)


def test_a_table_of_text_is_loaded_by_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "\n".join(f"{second},{percent * MEBIBYTE}" for second, percent in enumerate(step_up()))
    path.write_text(f"time,memory.usage_bytes\n{rows}\n")

    memory = memory_of(replay(load(path), GPU))

    assert memory.episodes[0].begin_seconds == 38.0
    assert memory.episodes[0].capacity is None


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def test_a_page_is_whole_and_asks_no_network() -> None:
    done = decide_over(trace_of(step_up(), gpu=np.repeat([40.0, 98.0], 50)), GPU)

    page = html(Tried("these settings", GPU, done))
    limits = data_of(page)["tried"][0]["limits"]

    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert "<title>shm-monitor replay: a trace</title>" in page
    assert "{{" not in page.partition("<script>")[0]
    assert [len(limits[name]["episodes"]) for name in ("memory", "gpu-memory:0")] == [1, 1]
    assert limits["gpu-memory:0"]["episodes"][0]["label"] == "critical (capacity, level)"
    assert [line["name"] for line in limits["memory"]["lines"]] == ["value", "limit", "target", "capacity", "mean"]


def test_a_page_has_settings_beside_each_other() -> None:
    trace = trace_of(step_up())
    lower = Settings(max_memory_usage_mb=50.0)

    data = data_of(
        html(Tried("now", GPU, decide_over(trace, GPU)), Tried("lower.env", lower, decide_over(trace, lower)))
    )

    assert [one["name"] for one in data["tried"]] == ["now", "lower.env"]
    assert next(row for row in data["settings"] if row[0] == "max_memory_usage_mb")[2] == "50"
    assert [len(one["limits"]["memory"]["episodes"]) for one in data["tried"]] == [1, 1]
    assert data["rows"][1][0] == "memory"
    assert data["rows"][1][1] != data["rows"][1][2]


def test_nothing_in_a_trace_becomes_markup() -> None:
    trace = replace(trace_of(step_up()), source="</script><b>&")

    page = html(Tried("</script>", GPU, decide_over(trace, GPU)))

    assert page.count("</script><b>") == 0
    assert data_of(page)["tried"][0]["name"] == "</script>"


def test_a_page_without_plotly_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    done = decide_over(trace_of(step_up()), GPU)
    monkeypatch.setattr(report, "find_spec", lambda _: None)

    with pytest.raises(MissingDependencyError, match=r"pip install .*\[report\]"):
        html(Tried("these settings", GPU, done))


def test_a_thinned_line_keeps_a_spike_of_one_sample() -> None:
    values = np.random.default_rng(0).normal(60, 1, 100_000)
    values[54_321], values[77_777] = 99.0, 1.0
    values[10_000:30_000] = np.nan

    shown = thinned(values)

    assert len(shown) <= 8000
    assert {54_321, 77_777} <= set(shown.tolist())
    assert np.isnan(values[shown]).any()


def test_short_traces_and_no_terminal_have_no_bar() -> None:
    with progress_bar(10) as short, progress_bar(10**9) as no_terminal:
        assert short is None
        assert no_terminal is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (90, "1 min 30 s"), (3600, "1 h 0 min"), (86_399.7, "24 h 0 min")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
