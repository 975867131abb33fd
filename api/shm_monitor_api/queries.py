"""The parameters of a query: what they may be, once for who parses them and for the OpenAPI document."""

from __future__ import annotations

import math
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from shm_monitor_api.problems import FieldError

NAMES_MAX_LENGTH = 8192
STEP_MAX = 100_000

_SINCE = Annotated[int, Meta(ge=0, le=2**63 - 1, description="only samples after this sequence number")]
_SECONDS = Annotated[float, Meta(gt=0, description="only the newest so many seconds")]
_NAMES = Annotated[
    str, Meta(max_length=NAMES_MAX_LENGTH, description="names, separated by commas; else those with statistics")
]
_STEP = Annotated[int, Meta(ge=1, le=STEP_MAX, description="every n-th sample, the newest among them")]


class HistoryQuery(msgspec.Struct, frozen=True):
    """What part of the ring is asked for."""

    since: int = 0
    seconds: float | None = None
    metrics: str | None = None
    step: int = 1


TYPES: dict[str, Any] = {"since": _SINCE, "seconds": _SECONDS, "metrics": _NAMES, "step": _STEP}


class InvalidQueryError(Exception):
    """Some parameters cannot be obeyed."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{one.location}: {one.message}" for one in errors))
        self.errors = errors


def history_query(query: bytes) -> HistoryQuery:
    """Return what *query* asks for; of a name that comes twice the last counts, other names are nobody's.

    Raises:
        InvalidQueryError: a value is not of its type or out of its bounds.
    """
    found, errors = {}, []
    for name, text in dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)).items():
        if name in TYPES:
            try:
                found[name] = _converted(name, text)
            except msgspec.ValidationError as error:
                errors.append(FieldError(f"query.{name}", str(error)))
    if errors:
        raise InvalidQueryError(tuple(errors))
    return HistoryQuery(**found)


def _converted(name: str, text: str) -> Any:
    value = msgspec.convert(text, TYPES[name], strict=False)
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError("Expected a finite number")
    return value


def history_parameters() -> list[dict[str, Any]]:
    """Return how the OpenAPI document describes them."""
    schemas = {name: msgspec.json.schema(kind) for name, kind in TYPES.items()}
    return [
        {"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}
        for name, schema in schemas.items()
    ]
