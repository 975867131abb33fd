"""Which of our formats a client takes: the ``Accept`` header of RFC 9110, 12.5.1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

JSON = "application/json"
MSGPACK = "application/msgpack"
DATA_FORMATS = (JSON, MSGPACK)  # the first one wins a draw
EVENT_FORMATS = ("text/event-stream",)
PROMETHEUS = "text/plain"
OPENMETRICS = "application/openmetrics-text"
METRICS_FORMATS = (PROMETHEUS, OPENMETRICS)
_ALIASES = {"application/x-msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK}


@lru_cache(maxsize=256)
def chosen(accept: str, offers: tuple[str, ...] = DATA_FORMATS) -> str | None:
    """Return which of *offers* the header *accept* wants most, or None for none of them.

    >>> chosen(""), chosen("application/msgpack, */*;q=0.5"), chosen("text/html")
    ('application/json', 'application/msgpack', None)
    """
    if not accept.strip():
        return offers[0]
    ranges = [_parsed(part) for part in accept.split(",") if part.strip()]
    rated = [(*_quality(offer, ranges), -place) for place, offer in enumerate(offers)]
    quality, _, place = max(rated)
    return offers[-place] if quality > 0 else None


def _parsed(part: str) -> tuple[str, float]:
    """Return media range and weight; a weight that is no number refuses the range."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = max(0.0, min(1.0, float(value)))  # in this order a NaN is 0
            except ValueError:
                quality = 0.0
    return _ALIASES.get(media, media), quality


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """Return the weight that *ranges* give to *offer*, and how closely they name it; the closest range counts."""
    kind = offer.partition("/")[0]
    for specificity, media in ((3, offer), (2, f"{kind}/*"), (1, "*/*")):
        weights = [quality for found, quality in ranges if found == media]
        if weights:
            return max(weights), specificity
    return 0.0, 0
