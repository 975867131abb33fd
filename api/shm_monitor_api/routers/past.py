"""The samples that the ring still has, the log of episodes, and what other settings would have decided."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Sequence
from importlib.util import find_spec

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor.errors import install_command
from shm_monitor.segment import episode_file
from shm_monitor.segment.view import View
from shm_monitor.snapshot.episode_log import read as read_episodes
from shm_monitor.traces.what_if import Answer, Question, WhatIf
from shm_monitor.worker import without_sampler
from shm_monitor_api import bodies, problems
from shm_monitor_api.answers import answered
from shm_monitor_api.dependencies import AskedHistory, AskedSettings, AskedSince, CurrentService
from shm_monitor_api.openapi import DocumentedRoute, data
from shm_monitor_api.problems import FieldError
from shm_monitor_api.queries import EPISODES, HISTORY, REPLAY, HistoryQuery, parameters
from shm_monitor_api.readings import Reading
from shm_monitor_api.replaying import ReplayerError, TooManyReplaysError
from shm_monitor_api.service import Service

router = APIRouter(tags=["data"], route_class=DocumentedRoute)


@router.get("/history", **data(sm.History, 404, 422, parameters=parameters(HISTORY)))
async def get_history(request: Request, asked: AskedHistory, service: CurrentService) -> Response:
    """Return the samples that the ring still has, as columns: one of times, one per metric."""
    path, reading = request.scope["path"], service.readings.newest()
    names = None if asked.metrics is None else [one.strip() for one in asked.metrics.split(",") if one.strip()]
    values, limit = _most_values(service.reader, reading, names, asked), service.config.history_values_max
    if values > limit:
        detail = f"up to {values} numbers, allowed are {limit}; try: fewer metrics, fewer seconds, a larger step"
        return problems.problem(403, detail, instance=path)

    def columns() -> sm.History:
        return service.reader.history(metrics=names, seconds=asked.seconds, since=asked.since, step=asked.step)

    def answer() -> Response:
        return answered(request, service.large.of(reading), columns, request.scope["query_string"])

    try:
        return await service.large.made(answer)
    except sm.UnknownMetricError as error:
        detail = f"no metric {error.asked!r}; GET /schema lists them all"
        return problems.problem(404, detail, instance=path, kind=problems.UNKNOWN_METRIC)


@router.get("/episodes", **data(bodies.EpisodeEvents, 422, parameters=parameters(EPISODES)))
async def get_episodes(request: Request, since: AskedSince, service: CurrentService) -> Response:
    """Return when pressure began, changed and ended: what the log has, which outlives its sampler."""
    try:
        reading = _reading_of_log(service)
        return answered(request, reading, lambda: bodies.EpisodeEvents(read_episodes(service.reader.name, since=since)))
    except sm.SamplerError as error:  # too many open files
        return problems.problem(503, str(error), instance=request.scope["path"])


@router.get("/replay", **data(WhatIf, 422, parameters=parameters(REPLAY)))
async def get_replay(request: Request, settings: AskedSettings, service: CurrentService) -> Response:
    """Return what other settings would have decided over the samples that the ring still has, and what was."""
    path, reading, again = request.scope["path"], service.readings.newest(), {"retry-after": problems.RETRY_SECONDS}
    if find_spec("numpy") is None:
        detail = f"a replay takes numpy, which is not installed here; try: {install_command('sampler')}"
        return problems.problem(503, detail, instance=path)
    try:
        with service.replayer.place():
            answer = await asyncio.to_thread(service.replayer.ask, Question(service.reader.name, settings))
    except TooManyReplaysError as error:
        return problems.problem(503, str(error), instance=path, kind=problems.TOO_MANY_CLIENTS, headers=again)
    except ReplayerError as error:
        return problems.problem(503, str(error), instance=path, headers=again)
    found = answer.found
    return _refused(answer, path) if found is None else answered(request, reading, lambda: found)


def _reading_of_log(service: Service) -> Reading:
    """Return the newest sample; where there is none but a log, an empty one with the tag of the log.

    Raises:
        SegmentError: there is neither.
    """
    try:
        return service.readings.newest()
    except sm.SegmentError as error:
        inode, size = episode_file.state_of(service.reader.name)
        if not size:
            raise
        reading = Reading(without_sampler.snapshot(service.reader, error))
        reading.etag = f'W/"log-{inode}-{size}"'
        return reading


def _most_values(reader: sm.Reader, reading: Reading, names: Sequence[str] | None, asked: HistoryQuery) -> int:
    """Return how many numbers a history has at most, without reading all of it."""
    view, newest = reader.view(), reading.snapshot
    samples = min(max(newest.sequence - asked.since, 0), view.header.slot_count)
    if asked.seconds is not None and samples:
        # Looked up, not divided: while memory rises, samples are closer than the interval.
        numbers = range(newest.sequence - samples + 1, newest.sequence + 1)
        oldest_ns = _taken_ns(view, newest.sequence) - asked.seconds * 1e9
        samples -= bisect_left(numbers, oldest_ns, key=lambda number: _taken_ns(view, number))
    columns = view.schema.rolled_count if names is None else len(set(names))
    return math.ceil(samples / asked.step) * columns


def _taken_ns(view: View, number: int) -> float:
    """Return when sample *number* was taken; before all others where the ring has lost it."""
    sample = view.sample_at(number)
    return -math.inf if sample is None else float(sample.mono_ns)


def _refused(answer: Answer, path: str) -> Response:
    """Return the problem that says why there is no answer."""
    why = answer.refused
    if why is None or not why.setting:
        return problems.problem(503, "" if why is None else why.detail, instance=path)
    errors = (FieldError(f"query.{why.setting}", why.detail),)
    return problems.problem(422, f"query.{why.setting}: {why.detail}", instance=path, errors=errors)
