"""What anybody can cause is written a few times, and no query of a request ever."""

from __future__ import annotations

import logging

from shm_monitor_api.logs import ACCESS, BURST_LINES, BURST_SECONDS, KINDS_MAX, Throttle, WithoutQuery


class Clock:
    """Moves when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(text: str, *args: object, name: str = "uvicorn.error") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, text, args, None)


def test_a_line_that_comes_too_often_is_counted_instead() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    passed = sum(throttle.filter(record("bad request of %s", number)) for number in range(1000))
    clock.now = BURST_SECONDS
    later = record("bad request of %s", 7)

    assert passed == BURST_LINES
    assert throttle.filter(later)
    assert later.getMessage() == f"bad request of 7 ({1000 - BURST_LINES} more such lines were left out)"


def test_lines_of_another_kind_are_written_meanwhile() -> None:
    throttle = Throttle(Clock())
    for _ in range(100):
        throttle.filter(record("noise"))

    assert throttle.filter(record("news"))
    assert throttle.filter(record("noise", name="shm_monitor.api"))


def test_the_kinds_that_are_remembered_are_bounded() -> None:
    throttle = Throttle(Clock())
    for number in range(10 * KINDS_MAX):
        throttle.filter(record(f"kind {number}"))

    assert len(throttle._kinds) <= KINDS_MAX


def test_requests_that_are_to_be_logged_are_all_logged() -> None:
    throttle = Throttle(Clock())

    assert all(throttle.filter(record('%s - "%s"', "a", "b", name=ACCESS)) for _ in range(100))


def test_the_query_of_a_request_is_not_written() -> None:
    line = record('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/snapshot?token=secret&a=b", "1.1", 200)

    assert WithoutQuery().filter(line)
    assert line.getMessage() == '127.0.0.1:1 - "GET /snapshot?... HTTP/1.1" 200'
