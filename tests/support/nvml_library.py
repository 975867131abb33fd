"""The stand-in for libnvidia-ml (tests/support/nvml): built once, scripted by a file, loaded by processes of their own.

NVML keeps global state, so nothing here loads it into the test's process. For any process::

    nvml = StandIn.create(tmp_path)              # skips the test where there is no C compiler
    nvml.script("devices 8", "* 3 error 15")     # now and whenever it should change
    subprocess.run([...], env={**os.environ, **nvml.environ})

and to talk to one collector: ``GpuProcess``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_SOURCE = Path(__file__).parent / "nvml" / "nvml_stand_in.c"
_CUDA_SOURCE = Path(__file__).parent / "nvml" / "cuda_stand_in.c"

Sample = dict[str, float | str]
"""Metric name -> value, or the reason why it is unknown."""


@functools.cache
def _built_in() -> tempfile.TemporaryDirectory[str]:
    """Build the libraries with the system compiler; the folder lives as long as the test run."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build the stand-in for libnvidia-ml")
    folder = tempfile.TemporaryDirectory(prefix="nvml-stand-in-")
    for source, soname in ((_SOURCE, "libnvidia-ml.so.1"), (_CUDA_SOURCE, "libcuda.so.1")):
        flags = ["-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread", f"-Wl,-soname,{soname}"]
        built = subprocess.run(
            [compiler, *flags, "-o", f"{folder.name}/{soname}", str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            pytest.fail(f"{compiler} cannot build {source.name}: {built.stderr}")
    return folder


def library_folder() -> Path:
    """Return the folder with libnvidia-ml.so.1 and libcuda.so.1; skips the test where there is no compiler."""
    return Path(_built_in().name)


class StandIn:
    """One scripted NVML: what to put into a process's environment, and the file that it obeys."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / "nvml-script.txt"
        self._log = folder / "nvml-calls.txt"
        self._folder = library_folder()
        self.library = self._folder / "libnvidia-ml.so.1"
        self.script("devices 1")

    @classmethod
    def create(cls, folder: Path) -> StandIn:
        """Return a stand-in with one healthy device; its files are in *folder*."""
        return cls(folder)

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to load the stand-in in place of NVIDIA's library."""
        old = os.environ.get("LD_LIBRARY_PATH")
        return {
            "LD_LIBRARY_PATH": f"{self._folder}:{old}" if old else str(self._folder),
            "NVML_STAND_IN_SCRIPT": str(self._script),
            "NVML_STAND_IN_LOG": str(self._log),
        }

    def script(self, *lines: str) -> None:
        """Replace the script at once, for every process that uses it."""
        fresh = self._script.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.rename(self._script)

    def calls(self, name: str, device: str = "-") -> int:
        """Return how often *name* was called for *device* (``-``: for none) since ``forget``."""
        if not self._log.exists():
            return 0
        return self._log.read_text().splitlines().count(f"{name} {device}")

    def forget(self) -> None:
        """Count calls from here on."""
        self._log.unlink(missing_ok=True)


class RemoteError(Exception):
    """The collector's process answered with an exception: its type and message."""


class GpuProcess:
    """A process (tests/support/gpu_process.py) with one GpuCollector, whose clock stands still until it is moved."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.support.gpu_process"],
            cwd=_ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def discover(self, **arguments: object) -> dict[str, Any]:
        """Make a new collector (the one before is closed) with *arguments* of discover_gpu; return its facts.

        Unless told otherwise it waits long: a busy machine must not look like a device that hangs.
        """
        patient = {"timeout_seconds": 30.0, "open_timeout_seconds": 60.0}
        facts: dict[str, Any] = self._ask("discover", {**patient, **arguments})
        return facts

    def collect(self) -> Sample:
        """Return one sample."""
        sample: Sample = self._ask("collect")
        return sample

    def advance(self, seconds: float) -> None:
        """Move the collector's clock."""
        self._ask("advance", seconds)

    def threads(self) -> int:
        """Return how many threads the process has."""
        return int(self._ask("threads"))

    def end(self) -> int:
        """Close the collector, let the process end and return its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self._ask("close")
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(30)

    def kill(self) -> None:
        """End the process, whatever it hangs in."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _ask(self, what: str, argument: object = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, argument]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process ended with status {self._process.wait()} while asked to {what}"
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["result"]


@contextlib.contextmanager
def gpu_process(environ: dict[str, str]) -> Iterator[GpuProcess]:
    """Give a process with *environ* that is gone afterwards, also when the test failed."""
    process = GpuProcess(environ)
    try:
        yield process
    finally:
        process.kill()


def of_device(sample: Sample, instance: str) -> Sample:
    """Return the fields of one device, without the time that reading it took."""
    prefix = f"gpu:{instance}."
    return {
        name.removeprefix(prefix): value
        for name, value in sample.items()
        if name.startswith(prefix) and not name.endswith("read_seconds")
    }
