"""The reference, from what the program itself reads: public names, parsers, the OpenAPI document, settings."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from typing import Any

import shm_monitor
from docs.site.shell import PROG, verbs_of, whole_parser
from shm_monitor.cli.template import meanings
from shm_monitor.config.bounds import BOUNDS
from shm_monitor.config.resource import ResourceConfig
from shm_monitor_api import ApiConfig, create_app

GROUPS = {  # by what somebody wants; the homes of the public names
    "Ask": ("worker", "schema"),
    "Act": ("acting",),
    "Measure": ("manager", "monitor", "config"),
    "See": ("snapshot", "segment"),
    "Errors": ("errors",),
}


def pages() -> dict[str, str]:
    """Return the text of each page by its path."""
    return {
        "reference/python.md": python(),
        "reference/cli.md": command_line(),
        "reference/http.md": http(),
        "reference/settings.md": settings(),
    }


def python() -> str:
    """Return the page of the public names: directives that mkdocstrings fills in."""
    parts = ["# Python", "`import shm_monitor as sm`: every name here is `sm.NAME`, loaded when it is first used."]
    homes: dict[str, str] = shm_monitor._HOMES
    for group, wings in GROUPS.items():
        parts.append(f"## {group}")
        parts += [f"::: shm_monitor.{home}.{name}" for name, home in homes.items() if home.partition(".")[0] in wings]
    return "\n\n".join(parts) + "\n"


def command_line() -> str:
    """Return the page of the verbs, as their parsers tell them."""
    top = whole_parser()
    parts = ["# Command line", f"```text\n{top.description}\n```", "`man shm-monitor` has the same."]
    for verb, one in verbs_of(top).items():
        parts += [f"## {PROG} {verb}", f"```text\n{_help(one)}```"]
        for nested, other in verbs_of(one).items():
            parts += [f"### {PROG} {verb} {nested}", f"```text\n{_help(other)}```"]
    return "\n\n".join(parts) + "\n"


class _Wide(argparse.HelpFormatter):
    """The same on every terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _help(one: argparse.ArgumentParser) -> str:
    one.formatter_class = _Wide
    return one.format_help()


def settings() -> str:
    """Return the page of the settings, from the docstring and the bounds that check them."""
    told = meanings()
    rows = []
    for key, default in zip(ResourceConfig.__struct_fields__, ResourceConfig.__struct_defaults__, strict=True):
        rows.append(f"| `{key.upper()}` | `{default}` | {_cell(told[key])} | {_cell(BOUNDS[key].allowed)} |")
    head = "A setting of `ResourceConfig` in lower case, a line of a `.env` file, `--set KEY=VALUE`, or a variable "
    text = f"{head}`SHM_MONITOR_...` of the environment. What holds now, and from where: `shm-monitor config show`."
    return "\n".join(
        ["# Settings", "", text, "", "| key | default | meaning | allowed |", "|---|---|---|---|", *rows, ""]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def http() -> str:
    """Return the page of the paths, from the OpenAPI document."""
    document = create_app(ApiConfig(name="docs")).openapi()
    parts = ["# HTTP", f"From the OpenAPI {document['openapi']} document, which an API serves at `/openapi.json`."]
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            parts += [f"## {method.upper()} {path}", one.get("description") or one.get("summary", "")]
            parts += _table(("parameter", "meaning"), [_parameter(each) for each in one.get("parameters", ())])
            parts += _table(("status", "answer"), [_answer(*each) for each in one["responses"].items()])
    parts.append("# Bodies")
    for name, schema in sorted(document["components"]["schemas"].items()):
        head, meaning = _described(schema.get("description", ""))
        parts += [f"## {name}", head]
        required = set(schema.get("required", ()))
        rows = [
            (f"`{key}`{'' if key in required else ' (may be missing)'}", _type(each), meaning.get(key, ""))
            for key, each in schema.get("properties", {}).items()
        ]
        parts += _table(("field", "type", "meaning"), rows)
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(docstring: str) -> tuple[str, dict[str, str]]:
    """Return what comes before the fields in a docstring, and the meaning of each field."""
    head, _, fields = inspect.cleandoc(docstring).partition("\n\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", fields, re.MULTILINE)
    return head, {key: " ".join(words.split()) for key, words in found}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ("---",) * len(head), *((first, *map(_cell, rest)) for first, *rest in rows)]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _parameter(one: dict[str, Any]) -> tuple[str, str]:
    schema = one.get("schema", {})
    return f"`{one['name']}` ({one['in']})", f"{one.get('description', '')} {_type(schema)}".strip()


def _answer(status: str, one: dict[str, Any]) -> tuple[str, str]:
    found = ", ".join(f"`{media}`{_of(content)}" for media, content in one.get("content", {}).items())
    return f"`{status}`", f"{one.get('description', '')} {found}".strip()


def _of(content: dict[str, Any]) -> str:
    told = _type(content.get("schema", {}))
    return f" {told}" if told else ""


def _type(schema: dict[str, Any]) -> str:
    """Return a schema in words; what it refers to as a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(filter(None, map(_type, schema[key])))
    kind = schema.get("type", "")
    if kind == "array":
        return f"array of {_type(schema.get('items', {})) or 'anything'}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties']) or 'anything'}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
