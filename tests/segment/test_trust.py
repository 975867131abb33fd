"""Whose segment is believed: not one that somebody else could have written."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import UntrustedError
from shm_monitor.segment import names
from shm_monitor.worker.attaching import attach
from tests.support.children import NOBODY, output_of

if TYPE_CHECKING:
    from tests.support.publishing import Bench

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")

AS_NOBODY = f"""
import json, logging, os, sys  # before the change of user, who may not see where Python is installed
from shm_monitor.segment import names
from shm_monitor.worker.attaching import attach
import shm_monitor.snapshot.decoder, shm_monitor.segment.names
os.setuid({NOBODY})
try:
    with attach(sys.argv[1], timeout=0.0) as reader:
        print(reader.snapshot().sequence)
except Exception as error:
    print(type(error).__name__, error)
with attach(sys.argv[1], timeout=0.0, required=False) as reader:
    assert reader.should_prune() is False
"""


def refusal(name: str) -> str:
    """Return why the object *name* is not trusted."""
    with pytest.raises(UntrustedError) as caught:
        attach(name, timeout=0.0)
    with attach(name, timeout=0.0, required=False) as reader:
        assert reader.should_prune() is False
        assert reader.status().state == "untrusted"
    return str(caught.value)


@needs_root
def test_a_foreign_owner_is_not_trusted(bench: Bench) -> None:
    os.chown(names.object_path(bench.name), NOBODY, -1)
    assert f"owner {NOBODY}" in refusal(bench.name)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_mode_that_lets_others_write_is_not_trusted(bench: Bench, mode: int) -> None:
    os.chmod(names.object_path(bench.name), mode)
    assert f"mode {mode:04o}" in refusal(bench.name)


def test_a_mode_that_lets_others_read_is_trusted(bench: Bench) -> None:
    os.chmod(names.object_path(bench.name), 0o644)
    with attach(bench.name, timeout=0.0) as reader:
        assert reader.snapshot().sequence == 1


def test_a_symlink_is_not_followed(bench: Bench) -> None:
    path = names.object_path(bench.name)
    os.rename(path, path + "~new")
    os.symlink(path + "~new", path)
    assert "cannot be opened" in refusal(bench.name)


def test_a_hard_link_is_not_trusted(bench: Bench) -> None:
    path = names.object_path(bench.name)
    os.link(path, path + "~new")
    assert "2 hard links" in refusal(bench.name)


def test_a_fifo_is_refused_at_once(name: str) -> None:
    """Opening a FIFO waits for a writer: somebody could put one there and hang every worker."""
    os.mkfifo(names.object_path(name), 0o600)
    assert "not a regular file" in refusal(name)


def test_a_directory_is_refused(name: str) -> None:
    path = names.object_path(name)
    os.mkdir(path, 0o700)
    try:
        assert "not a regular file" in refusal(name)
    finally:
        os.rmdir(path)


def test_a_socket_is_refused(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind(names.object_path(name))
        assert "cannot be opened" in refusal(name)


def give_to_nobody(bench: Bench, mode: int) -> str:
    """Put a copy of the segment, owned by root, where user nobody looks for it; return its path."""
    path = f"{names.SHM_DIRECTORY}/{names.PREFIX}.{NOBODY}.{bench.name}"
    Path(path).write_bytes(Path(names.object_path(bench.name)).read_bytes())
    os.chmod(path, mode)
    return path


@pytest.mark.processes
@needs_root
def test_a_reader_who_is_refused_says_so_and_changes_nothing(bench: Bench) -> None:
    """A failed attach through SharedMemory would unlink the live object."""
    path = give_to_nobody(bench, 0o600)
    before = os.stat(path)
    try:
        assert output_of(AS_NOBODY, bench.name).startswith("UntrustedError")
        assert os.stat(path).st_ino == before.st_ino
    finally:
        os.unlink(path)


@pytest.mark.processes
@needs_root
def test_a_segment_of_root_may_be_read(bench: Bench) -> None:
    path = give_to_nobody(bench, 0o644)
    try:
        assert output_of(AS_NOBODY, bench.name) == "1"
    finally:
        os.unlink(path)
