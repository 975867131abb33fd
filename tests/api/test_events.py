"""Server-sent events: who listens gets each sample once, who is slow loses some, and nobody keeps the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

import shm_monitor as sm
from shm_monitor_api.events import EventStream, sequence_of
from shm_monitor_api.readings import Readings
from tests.support.api_server import ApiProcess, MortalSampler, asked, connected, eventually, received
from tests.support.light_sampler import LightSamplers, end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

REQUEST = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


class Got(NamedTuple):
    """One event as a client parses it."""

    event: str
    data: dict[str, Any]
    id: str


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, check_interval=0.05)  # so that the stream looks often
    made.feed(50.0, 50.0)
    yield made
    made.die()


def parsed(data: bytes) -> list[Got]:
    """Return the events in *data*, by the rules of the specification."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append(Got(fields["event"], json.loads(fields["data"]), fields.get("id", "")))
    return found


def stream_of(name: str, *, max_clients: int = 8, kept: int = 16) -> EventStream:
    """Return the stream of the sampler *name*, without a server."""
    readings = Readings(sm.attach(name, timeout=0.0, required=False))
    return EventStream(readings, max_clients=max_clients, kept=kept)


async def taken(client: AsyncIterator[bytes], *, until: str, count: int = 1) -> list[Got]:
    """Return the events of *client* up to the *count*-th one called *until*."""
    found: list[Got] = []
    async with asyncio.timeout(20):
        async for data in client:
            found += parsed(data)
            if sum(one.event == until for one in found) >= count:
                return found
    return found


def test_a_client_begins_with_the_verdict_and_the_newest_sample(sampler: MortalSampler, name: str) -> None:
    async def listen() -> list[Got]:
        stream = stream_of(name)
        found = await taken(stream.follow(None), until="snapshot")
        stream.stop()
        return found

    prune, snapshot = asyncio.run(listen())
    assert (prune.event, prune.data["should_prune"]) == ("prune", False)
    assert (snapshot.event, snapshot.id, snapshot.data["sequence"]) == ("snapshot", "2", 2)


def test_each_sample_comes_once_and_the_verdict_when_it_changes(sampler: MortalSampler, name: str) -> None:
    async def listen() -> list[Got]:
        stream = stream_of(name)
        client = stream.follow(None)
        found = await taken(client, until="snapshot")
        for usage in (50.0, 98.0, 98.0):
            sampler.feed(usage)
            found += await taken(client, until="snapshot")
        stream.stop()
        return found

    found = asyncio.run(listen())
    assert [one.id for one in found if one.event == "snapshot"] == ["2", "3", "4", "5"]
    assert [(one.event, one.data.get("level")) for one in found if one.event == "prune"] == [
        ("prune", "ok"),
        ("prune", "critical"),
    ]


def test_a_sample_is_encoded_once_for_all_clients(sampler: MortalSampler, name: str) -> None:
    async def listen() -> tuple[int, list[list[Got]]]:
        stream = stream_of(name, max_clients=100)
        clients = [stream.follow(None) for _ in range(50)]
        await asyncio.gather(*(taken(client, until="snapshot") for client in clients))
        before = stream.encoded_count
        sampler.feed(60.0)
        found = await asyncio.gather(*(taken(client, until="snapshot") for client in clients))
        stream.stop()
        return stream.encoded_count - before, found

    encoded, found = asyncio.run(listen())
    assert encoded == 1
    assert {one[-1].id for one in found} == {"3"}


def test_a_client_resumes_where_it_left_off(sampler: MortalSampler, name: str) -> None:
    async def listen() -> list[Got]:
        stream = stream_of(name)
        client = stream.follow(None)
        await taken(client, until="snapshot")
        for usage in (51.0, 52.0, 53.0):
            sampler.feed(usage)
            await taken(client, until="snapshot")
        found = await taken(stream.follow(3), until="snapshot", count=2)
        stream.stop()
        return found

    assert [(one.event, one.id) for one in asyncio.run(listen())] == [("snapshot", "4"), ("snapshot", "5")]


@pytest.mark.parametrize("last", [None, 0, 999, 10**18])
def test_a_client_that_knows_no_event_of_ours_begins_with_the_newest(
    sampler: MortalSampler, name: str, last: int | None
) -> None:
    async def listen() -> list[Got]:
        stream = stream_of(name)
        await taken(stream.follow(None), until="snapshot")
        found = await taken(stream.follow(last), until="snapshot")
        stream.stop()
        return found

    assert [one.event for one in asyncio.run(listen())] == ["prune", "snapshot"]


@pytest.mark.parametrize(
    ("header", "sequence"), [(None, None), ("", None), ("17", 17), ("-1", None), ("1" * 40, None), ("½", None)]
)
def test_only_a_sequence_number_resumes(header: str | None, sequence: int | None) -> None:
    assert sequence_of(header) == sequence


def test_who_reads_too_slowly_loses_samples_and_costs_nothing(sampler: MortalSampler, name: str) -> None:
    async def listen() -> list[Got]:
        stream = stream_of(name, kept=3)
        slow, fast = stream.follow(None), stream.follow(None)
        await taken(slow, until="snapshot")
        await taken(fast, until="snapshot")
        for _ in range(8):
            sampler.feed(50.0)
            await taken(fast, until="snapshot")
        found = await taken(slow, until="snapshot", count=2)
        stream.stop()
        return found

    found = asyncio.run(listen())
    assert [int(one.id) for one in found] == [8, 9]  # 3 to 7 are lost


def test_the_death_and_the_return_of_the_sampler_are_told(name: str) -> None:
    async def listen() -> list[Got]:
        sampler = MortalSampler(name)
        sampler.feed(50.0)
        stream = stream_of(name)
        client = stream.follow(None)
        found = await taken(client, until="snapshot")
        sampler.die()
        found += await taken(client, until="stale")
        again = MortalSampler(name, gpus=3)
        again.feed(50.0)
        found += await taken(client, until="stale")
        stream.stop()
        again.die()
        return found

    stale = [one.data for one in asyncio.run(listen()) if one.event == "stale"]
    assert [(one["stale"], one["state"]) for one in stale] == [(True, "stopped"), (False, "live")]


def test_a_client_before_the_sampler_is_told_that_there_is_none(name: str) -> None:
    async def listen() -> list[Got]:
        stream = stream_of(name)
        client = stream.follow(None)
        found = await taken(client, until="stale")
        sampler = MortalSampler(name)
        sampler.feed(50.0)
        found += await taken(client, until="snapshot")
        stream.stop()
        sampler.die()
        return found

    first, *_, last = asyncio.run(listen())
    assert (first.event, first.data["state"], last.event) == ("stale", "absent", "snapshot")
    assert first.data["detail"].endswith(f"try: shm-monitor run --name {name}")


def test_an_idle_stream_says_that_it_lives(sampler: MortalSampler, name: str) -> None:
    now = [0.0]

    async def listen() -> bytes:
        stream = EventStream(Readings(sm.attach(name)), max_clients=1, clock=lambda: now[0])
        client = stream.follow(None)
        await taken(client, until="snapshot")
        now[0] += 16.0
        async with asyncio.timeout(20):
            found = await anext(client)
        stream.stop()
        return found

    assert asyncio.run(listen()).startswith(b":")


def test_only_so_many_may_listen(sampler: MortalSampler, name: str) -> None:
    response = asked(name, max_event_clients=0)("/events")

    assert response.status_code == 503
    assert response.json()["type"] == "urn:shm-monitor:too-many-clients"
    assert response.headers["retry-after"] == "1"


def test_nothing_but_events_is_acceptable_as_events(sampler: MortalSampler, name: str) -> None:
    assert asked(name)("/events", headers={"accept": "application/json"}).status_code == 406


# With a server


@pytest.mark.processes
def test_a_seat_is_free_again_when_a_client_leaves(light: LightSamplers, name: str) -> None:
    light.one(name, interval_seconds=0.05)
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0", "--max-event-clients", "1") as server:
        with connected(server.port) as first:
            first.sendall(REQUEST)
            assert b"event: snapshot" in received(first, until=b"event: snapshot")
            assert httpx.get(f"{server.url}/events").status_code == 503
        eventually(lambda: _listens(server.port))

    assert "Traceback" not in server.log


def _listens(port: int) -> bool:
    with connected(port) as connection:
        connection.sendall(REQUEST)
        return b" 200 " in received(connection, until=b"\r\n\r\n")


@pytest.mark.processes
def test_two_hundred_clients_do_not_keep_the_server_from_stopping(light: LightSamplers, name: str) -> None:
    light.one(name, interval_seconds=0.1)
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(server.port)) for _ in range(200)]
        for client in clients:
            client.sendall(REQUEST)
        ended = _drain(clients, stop=server.process.terminate)
        status = server.process.wait(20)

    assert status == 0
    assert ended["clean"] == 200
    assert "Traceback" not in server.log


def _drain(clients: list[socket.socket], *, stop: Any) -> dict[str, int]:
    """Read all *clients*; when each has had a sample call *stop*, then read on to their ends."""
    seen = {"asked_to_stop": 0, "clean": 0}
    tails: dict[socket.socket, bytes] = dict.fromkeys(clients, b"")
    waiting = set(clients)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map():
            events = selector.select(20)
            assert events, "nothing comes any more"
            for key, _ in events:
                client = clients[clients.index(key.fileobj)]  # type: ignore[arg-type]
                part = client.recv(1 << 16)
                tails[client] = (tails[client] + part)[-20_000:]
                if b"event: snapshot" in tails[client]:
                    waiting.discard(client)
                if not part:
                    selector.unregister(client)
                    seen["clean"] += tails[client].endswith(b"0\r\n\r\n")  # the end of a chunked body
            if not waiting and not seen["asked_to_stop"]:
                seen["asked_to_stop"] = 1
                stop()
    return seen


@pytest.mark.slow
def test_a_client_that_never_reads_does_not_keep_the_server_from_stopping(light: LightSamplers, name: str) -> None:
    light.one(name, interval_seconds=0.005, metric_count=200)
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(REQUEST)
        time.sleep(2.0)  # until the buffers of the kernel are full
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        status = server.stop()

    assert status == 0
    assert "Traceback" not in server.log


@pytest.mark.processes
def test_ctrl_c_ends_it_too(light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=0.1)
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server, connected(server.port) as client:
        client.sendall(REQUEST)
        received(client, until=b"event: snapshot")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
    end(started.pid)

    assert "Traceback" not in server.log


@pytest.mark.processes
def test_the_stock_server_stops_too(light: LightSamplers, name: str) -> None:
    """``uvicorn shm_monitor_api:app`` waits for its streams for ever, unless they end by themselves."""
    light.one(name, interval_seconds=0.1)
    command = ("uvicorn", "shm_monitor_api:app", "--port", "0", "--host", "127.0.0.1")
    with ApiProcess(command=command, environ={"SHM_MONITOR_NAME": name}) as server, connected(server.port) as client:
        client.sendall(REQUEST)
        assert received(client, until=b"event: snapshot")
        server.process.terminate()
        server.process.wait(10)

    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_client_that_never_reads_loses_its_seat(light: LightSamplers, name: str) -> None:
    light.one(name, interval_seconds=0.005, metric_count=200)
    with (
        ApiProcess("--name", name, "--bind", "127.0.0.1:0", "--max-event-clients", "1") as server,
        socket.socket() as one,
    ):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", server.port))
        one.sendall(REQUEST)
        eventually(lambda: not _listens(server.port))
        eventually(lambda: _listens(server.port), seconds=60)

    assert "Traceback" not in server.log
