"""Teaches schemathesis MessagePack, so that it checks those bodies against the schema too (``SCHEMATHESIS_HOOKS``)."""

from __future__ import annotations

from importlib import import_module

import httpx
import msgspec


def from_msgpack(ctx: object, response: httpx.Response) -> object:
    """Return the content of a MessagePack body."""
    return msgspec.msgpack.decode(response.content)


import_module("schemathesis").deserializer("application/msgpack")(from_msgpack)  # by name: few machines have it
