"""The names of processes beside a segment: replaced whole, believed only when they are what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shm_monitor.process_names import ProcessName
from shm_monitor.segment import names, process_file
from tests.support.children import NOBODY
from tests.support.surroundings import files_of

TRAIN = ProcessName("train.py", "alice")


def test_what_is_written_is_read_until_it_is_removed(name: str) -> None:
    assert process_file.read(name) == {}
    process_file.write(name, {7: TRAIN})
    assert process_file.read(name) == {7: TRAIN}
    process_file.write(name, {7: TRAIN, 8: ProcessName("bash")})
    assert process_file.read(name) == {7: TRAIN, 8: ProcessName("bash")}
    process_file.remove(name)
    process_file.remove(name)
    assert process_file.read(name) == {}
    assert files_of(name) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": ["a", "b"]}', '{"1": "a"}', '{"1": 5}', "[" * 100_000])
def test_garbage_names_nobody(name: str, text: str) -> None:
    process_file.write(name, {})
    Path(names.side_path(name, names.PROCESSES_SUFFIX)).write_text(text)

    assert process_file.read(name) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_file_of_somebody_else_names_nobody(name: str) -> None:
    process_file.write(name, {7: TRAIN})
    os.chown(names.side_path(name, names.PROCESSES_SUFFIX), NOBODY, -1)
    os.utime(names.side_path(name, names.PROCESSES_SUFFIX), (1.0, 1.0))

    assert process_file.read(name) == {}
