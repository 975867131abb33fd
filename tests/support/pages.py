"""The code blocks of a page, and what a printed output stands for.

A comment directly before a block says what its reader needs to know and a person does not:

* ``not run: REASON``: of the whole block; ``not run, WORDS: REASON`` of its command that begins with these words.
* ``file: NAME``: the block is a file of that name; a command of the page uses it.
* ``here: CODE``: what the page leaves to the person, in the language of the block; it runs before it.
* ``again: REASON``: it runs until it shows what is printed, for what comes between its commands.
* ``continues``: the block goes on after the Python block before it.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

RUN = {"console", "python"}
SHOWN = {"ini", "text", "toml", "yaml"}
NOTES = {"not run", "file", "here", "again", "continues"}
_BLOCK = re.compile(r"((?:^<!--(?:(?!-->).)*-->\n+)*)^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"<!--\s*([\w ]+?)(?:, ([^:]+))?(?:: ?(.*?))?\s*-->", re.DOTALL)

_NUMBER = r"-?\d[\d,_]*(?:\.\d+)?(?:e[+-]?\d+)?"
_ANY_OF = {  # what a part of a printed output stands for, the first that fits
    r"^\d$": "",  # the status of `echo $?`: itself
    r"\s*^ *\.\.\.$": r"[\s\S]*?",  # further lines
    r" ?\.\.\. ?": r"[\s\S]*?",
    r"\d{4}-\d\d-\d\d": r"\d{4}-\d\d-\d\d",
    r"\d\d:\d\d:\d\d": r"\d\d:\d\d:\d\d",
    r"\w{3}, \d\d \w{3} \d{4}": r"\w{3}, \d\d \w{3} \d{4}",
    rf"\[(?:{_NUMBER}|null)(?:, ?(?:{_NUMBER}|null))*\]": rf"\[(?:(?:{_NUMBER}|null),? ?)*\]",
    r"(?<=:)null": rf"(?:null|{_NUMBER})",  # unknown here, and known elsewhere
    r"memory:(?:host|\d+)": r"memory:(?:host|\d+)",
    r"memory of (?:the host|our cgroup \S+)": r"memory of (?:the host|(?:our|the parent|the) cgroup \S+)",
    rf"{_NUMBER}(?: (?=[KMGT]?B\b))[KMGT]?B": rf"{_NUMBER} [KMGT]?B",
    rf"{_NUMBER} of {_NUMBER} [KMGT]?B": rf"{_NUMBER}(?: [KMGT]?B)? of {_NUMBER} [KMGT]?B",
    r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b": r"[0-9a-f]{8,}",
    _NUMBER: _NUMBER,
    r"\s+": r"\s+",
}
_PARTS = re.compile("|".join(f"({part})" for part in _ANY_OF), re.MULTILINE)


class Block(NamedTuple):
    """One block of a page.

    Attributes:
        line: of the page, where it begins.
        notes: of the comments before it: what, of which command (else empty), and the words.
    """

    line: int
    language: str
    text: str
    notes: tuple[tuple[str, str, str], ...] = ()

    def note(self, what: str, command: str = "") -> str | None:
        """Return the words of the note *what* about the block or its *command*; None where there is none."""
        for found, of, words in self.notes:
            if found == what and command.startswith(of):
                return words
        return None

    def runs(self) -> bool:
        """Say whether something of it runs."""
        return self.language in RUN and self.note("not run") is None

    def source(self) -> str:
        """Return what runs."""
        return "\n".join(filter(None, (self.note("here"), self.text)))

    def commands(self) -> list[tuple[str, str]]:
        """Return each command of a console block, without its comment, and what is printed of its output."""
        before, *shown = re.split(r"^\$ ", self.source(), flags=re.MULTILINE)
        found = [(line, "") for line in before.splitlines()]
        for text in shown:
            command = re.match(r"(?:.*\\\n)*.*\n?", text)
            assert command is not None
            words = re.sub(r"\s+# .*", "", command[0].strip())
            found.append((words, text[command.end() :].strip()))
        return found


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of *page*, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start(3)), found[2], textwrap.dedent(found[3]), _notes(found[1]))
        for found in _BLOCK.finditer(text)
    ]


def _notes(comments: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((what, of.strip(), words.strip()) for what, of, words in _NOTE.findall(comments))


def stands_for(printed: str, shown: str) -> bool:
    """Say whether what was *shown* is what *printed* promises: numbers, times, sizes and names may be others."""
    pattern, end = "", 0
    for found in _PARTS.finditer(printed):
        stands = list(_ANY_OF.values())[(found.lastindex or 1) - 1]
        pattern += re.escape(printed[end : found.start()]) + (stands or re.escape(found[0]))
        end = found.end()
    return re.fullmatch(pattern + re.escape(printed[end:]), shown.strip()) is not None
