"""What others named (interfaces, mounts, GPUs, scopes, processes) reaches a terminal as text and never as an order."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from shm_monitor.cli import main
from shm_monitor.errors import UntrustedError
from shm_monitor.schema import TRACK_FIELDS, Level, Limit
from shm_monitor.supervision.log_lines import log_to_stderr
from shm_monitor.tui.plain import line_of
from shm_monitor.tui.source import Frame, LocalSource
from shm_monitor.units import printable, printable_lines
from shm_monitor.worker.explanation import ReasonState
from tests.support.publishing import Bench
from tests.support.samples import FACTS, GPU, GPU_FACTS, USUAL, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator

EVIL = (
    "e\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\x7f"  # sets the title, clears the screen, colours (C1), turns the direction
)
TOLD = "e\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\u007f"


def obeyed(text: str) -> str:
    """Return what of *text* a terminal may act upon."""
    return "".join(sign for sign in text if not sign.isprintable() and sign != "\n")


@pytest.fixture
def evil(name: str) -> Iterator[str]:
    """A segment whose schema is full of names that somebody else chose."""
    schema = schema_of(
        USUAL,
        {"network": f"{EVIL}/receive_bytes_per_second", "mount": f"/{EVIL}/used_bytes#"},
        GPU,
        limits=[Limit("memory", "memory.usage_bytes", "bytes"), Limit(f"net:{EVIL}", "cpu.cpu_percent", "percent")],
        facts={
            **FACTS,
            "memory": {"scopes": ["host", f"/{EVIL}"]},
            "gpu": {"devices": [{**GPU_FACTS, "name": EVIL}], "unavailable": ""},
        },
    )
    bench = Bench(name, schema)
    bench.publisher.record["values"] = 1.0
    bench.publisher.record["limits"][..., TRACK_FIELDS.index("reasons")] = 1.0
    bench.publisher.record["limits"][..., TRACK_FIELDS.index("level")] = float(Level.PRUNE)
    bench.publish(Level.PRUNE, Level.PRUNE)
    yield name
    bench.close()


@pytest.mark.parametrize(
    ("command", "tells"),
    [
        ("snapshot", True),
        ("snapshot --json", True),
        ("schema", True),
        ("schema --json", True),
        ("check", True),
        ("check --json", True),
        ("check --watch nonsense", True),
        ("top --once --plain", True),
        ("top --once --width 120", True),
        ("status", False),
        ("list", False),
    ],
)
def test_no_face_passes_on_what_a_terminal_obeys(
    evil: str, command: str, tells: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("top --once --w"):
        pytest.importorskip("textual", reason="the extra tui is not installed")
    main([*command.split(), *(["--name", evil] if command != "list" else [])])
    out, err = capsys.readouterr()

    assert obeyed(out + err) == ""
    assert (TOLD in out + err) is tells


def test_a_reason_in_words_is_inert() -> None:
    reason = ReasonState(EVIL, "level", "prune", "bytes", EVIL, 0.0, 1.0, 1.0, 1.0, None, None)

    assert TOLD in str(reason)
    assert obeyed(str(reason)) == ""


def test_an_error_in_words_is_inert_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise UntrustedError("x", f"/dev/shm/{EVIL}", EVIL)

    monkeypatch.setattr("shm_monitor.segment.side_files.scan", refuse)

    assert main(["list"]) == 3
    assert obeyed(capsys.readouterr().err) == ""


def test_a_view_that_has_no_sampler_is_inert(name: str) -> None:
    assert line_of(Frame("untrusted", detail=EVIL)) == f"untrusted: {TOLD}"
    with_names = LocalSource(name)
    with_names.close()
    assert obeyed(line_of(with_names.newest())) == ""


def test_a_line_of_the_log_is_inert(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    root = logging.Logger("of this test")  # noqa: LOG001 - stands for the root, and for this test only
    monkeypatch.setattr(logging, "root", root)
    log_to_stderr(logging.INFO, "shm-monitor: %(message)s")
    root.warning("the limit %s presses\nand so on", EVIL)

    assert out.getvalue() == f"shm-monitor: the limit {TOLD} presses\nand so on\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("eth0", "eth0"),
        ("größe 日本 °C ┃", "größe 日本 °C ┃"),
        ("tab\tnewline\n", "tab\\tnewline\\n"),
        ("\udc9b not utf-8", "\\udc9b not utf-8"),
        ("tag \U000e0041", "tag \\udb40\\udc41"),
        ("", ""),
    ],
)
def test_what_is_printed_stays_and_the_rest_is_escaped_as_json_does(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines() -> None:
    assert printable_lines("a\nb\r\x1b") == "a\nb\\r\\u001b"
