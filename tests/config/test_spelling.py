"""What somebody may have meant."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.config.spelling import is_one_edit_from, nearest

WORDS = st.text(string.ascii_uppercase[:4], max_size=7)


def edits(word: str) -> set[str]:
    """Return all that one edit makes of *word*, by Norvig's four lists."""
    cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    letters = string.ascii_uppercase[:4]
    return {
        *(a + b[1:] for a, b in cuts if b),
        *(a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1),
        *(a + letter + b[1:] for a, b in cuts if b for letter in letters),
        *(a + letter + b for a, b in cuts for letter in letters),
    } - {word}


@given(word=WORDS, data=st.data())
def test_one_edit_is_what_the_four_lists_say(word: str, data: st.DataObject) -> None:
    other = data.draw(WORDS | st.sampled_from(sorted(edits(word))))

    assert is_one_edit_from(word, other) == (other in edits(word))


@pytest.mark.parametrize(("word", "end"), [("staus", "did you mean status?"), ("zzz", "known are status, run")])
def test_the_nearest_is_named_or_all_are(word: str, end: str) -> None:
    assert nearest(word, ["status", "run"]) == f"; {end}"
