"""The parameters of a query: what they may be, once for who parses them and for the OpenAPI document."""

from __future__ import annotations

import math
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from shm_monitor.config.bounds import BOUNDS, Number
from shm_monitor.traces.what_if import SETTINGS
from shm_monitor_api.problems import FieldError, InvalidQueryError

NAMES_MAX_LENGTH = 8192
STEP_MAX = 100_000

_SINCE = Annotated[int, Meta(ge=0, le=2**63 - 1, description="only samples after this sequence number")]
_SECONDS = Annotated[float, Meta(gt=0, description="only the newest so many seconds")]
_NAMES = Annotated[
    str, Meta(max_length=NAMES_MAX_LENGTH, description="names, separated by commas; else those with statistics")
]
_AFTER = Annotated[float, Meta(ge=0, description="only events after that time, in unix seconds")]
_STEP = Annotated[int, Meta(ge=1, le=STEP_MAX, description="every n-th sample, the newest among them")]


class HistoryQuery(msgspec.Struct, frozen=True):
    """What part of the ring is asked for."""

    since: int = 0
    seconds: float | None = None
    metrics: str | None = None
    step: int = 1


class EpisodesQuery(msgspec.Struct, frozen=True):
    """What part of the log of episodes is asked for."""

    since: float = 0.0


HISTORY: dict[str, Any] = {"since": _SINCE, "seconds": _SECONDS, "metrics": _NAMES, "step": _STEP}
EPISODES: dict[str, Any] = {"since": _AFTER}


def _of_setting(bounds: Number) -> Any:
    """Return the type of a parameter that is a setting; 0 is left out where it is the lower end."""
    low = {"ge": bounds.low} if bounds.low else {"gt": 0}
    return Annotated[float, Meta(le=bounds.high, description=f"to try; {bounds.unit}", **low)]


REPLAY: dict[str, Any] = {key: _of_setting(one) for key in SETTINGS if isinstance(one := BOUNDS[key], Number)}


def history_query(query: bytes) -> HistoryQuery:
    """Return what *query* asks of the history.

    Raises:
        InvalidQueryError: a value is not of its type or out of its bounds.
    """
    return HistoryQuery(**_parsed(query, HISTORY))


def episodes_query(query: bytes) -> EpisodesQuery:
    """Return what *query* asks of the log of episodes.

    Raises:
        InvalidQueryError: a value is not of its type or out of its bounds.
    """
    return EpisodesQuery(**_parsed(query, EPISODES))


def replay_query(query: bytes) -> dict[str, float]:
    """Return the settings that *query* would try.

    Raises:
        InvalidQueryError: a value is not of its type or out of its bounds.
    """
    return _parsed(query, REPLAY)


def _parsed(query: bytes, types: dict[str, Any]) -> dict[str, Any]:
    """Return the values in *query* by name; of a name that comes twice the last counts, other names are nobody's."""
    found, errors = {}, []
    for name, text in dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)).items():
        if name in types:
            try:
                found[name] = _converted(text, types[name])
            except msgspec.ValidationError as error:
                errors.append(FieldError(f"query.{name}", str(error)))
    if errors:
        raise InvalidQueryError(tuple(errors))
    return found


def _converted(text: str, kind: Any) -> Any:
    value = msgspec.convert(text, kind, strict=False)
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError("Expected a finite number")
    return value


def parameters(types: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how the OpenAPI document describes those of *types*."""
    schemas = {name: msgspec.json.schema(kind) for name, kind in types.items()}
    return [
        {"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}
        for name, schema in schemas.items()
    ]
