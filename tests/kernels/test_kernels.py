"""Atomics inside compiled loops, and kernels that start on any machine."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from numba import njit

from shm_monitor.kernels import Rolling, decide, load_word, roll, should_prune_at, store_word
from shm_monitor.kernels.compiled import Kernel
from tests.support.engine import Engine

PRESSED_BYTE, DIED_BYTE = 0x80, 0x40


@njit(nogil=True)
def turns_until_pressed(address: int, most: int) -> int:
    """Count the turns of a loop that ends when the flag at *address* presses, as a worker's loop would."""
    turns = 0
    while not should_prune_at(address) and turns < most:
        turns += 1
    return turns


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[Path, int, mmap.mmap]]:
    """A shared file, the address of its first byte in a mapping of this process, and that mapping."""
    path = tmp_path / "flags"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        holder = ctypes.c_char.from_buffer(memory)
        yield path, ctypes.addressof(holder), memory
        del holder


@pytest.mark.parametrize(
    ("byte", "answer"),
    [(0, False), (PRESSED_BYTE, True), (DIED_BYTE, False), (PRESSED_BYTE | DIED_BYTE, False)],
    ids=["calm", "pressed", "calm and dead", "pressed and dead"],
)
def test_a_flag_presses_while_its_sampler_lives(page: tuple[Path, int, mmap.mmap], byte: int, answer: bool) -> None:
    _, address, memory = page
    memory[3] = byte

    assert should_prune_at(address + 3) is answer


def test_a_word_is_stored_and_loaded_whole(page: tuple[Path, int, mmap.mmap]) -> None:
    _, address, memory = page

    store_word(address + 8, 2**63 + 5)

    assert load_word(address + 8) == 2**63 + 5
    assert int.from_bytes(memory[8:16], "little") == 2**63 + 5
    assert memory[:8] == memory[16:24] == bytes(8)


def test_the_loads_and_stores_are_atomic_in_the_code_that_llvm_gets(page: tuple[Path, int, mmap.mmap]) -> None:
    _, address, _ = page
    turns_until_pressed(address, 1)
    store_word(address, 0)
    load_word(address)

    for function, wanted in (
        (turns_until_pressed, "load atomic i8"),
        (load_word, "load atomic i64"),
        (store_word, "store atomic i64"),
    ):
        assert all(wanted in code for code in function.inspect_llvm().values()), function


@pytest.mark.processes
def test_a_compiled_loop_ends_when_another_process_sets_the_flag(page: tuple[Path, int, mmap.mmap]) -> None:
    path, address, _ = page
    turns_until_pressed(address, 1)  # compiled before the clock runs
    results: list[int] = []
    loop = threading.Thread(target=lambda: results.append(turns_until_pressed(address + 3, 2**62)), daemon=True)
    loop.start()

    press = "import sys; file = open(sys.argv[1], 'r+b'); file.seek(3); file.write(bytes([128]))"
    subprocess.run([sys.executable, "-c", press, str(path)], check=True, timeout=30)
    loop.join(timeout=30)

    assert not loop.is_alive()
    assert results[0] > 0


def test_kernels_take_arrays_over_a_read_only_mapping(page: tuple[Path, int, mmap.mmap]) -> None:
    """A ring that this process may not write: what replay of a live sampler's ring has."""
    path, _, memory = page
    engine = Engine(slots=8)
    memory[: engine.ring.nbytes] = engine.ring.tobytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as read_only:
        ring = np.frombuffer(read_only, engine.ring.dtype, 8)
        assert not ring.flags.writeable
        rolling = Rolling(ring, rolled=1, period_seconds=5.0)
        engine.record["number"], engine.record["mono_ns"], engine.record["values"][0, 0] = 1, 10**9, 5.0

        rolling.advance(engine.record)

        assert engine.record["means"][0, 0] == 5.0
        del rolling, ring


def test_a_kernel_runs_interpreted_until_it_is_compiled() -> None:
    kernel = Kernel(_double, "float64(float64)")
    assert kernel.run is _double

    kernel.compile()

    assert kernel.is_compiled
    assert kernel.run is not _double
    assert kernel.run(2.0) == 4.0


def _double(value: float) -> float:
    return 2 * value


@pytest.mark.parametrize("kernel", [decide, roll], ids=["decide", "roll"])
def test_a_kernel_calls_functions_of_its_own_file_alone(kernel: ModuleType) -> None:
    """Numba's cache does not see changes of another file."""
    from_elsewhere = [
        name
        for name, one in vars(kernel).items()
        if isinstance(one, FunctionType)
        and one.__module__.startswith("shm_monitor")
        and one.__module__ != kernel.__name__
    ]
    assert set(from_elsewhere) <= {"callable_from_kernels", "read_only"}


@pytest.mark.processes
def test_without_numba_the_kernels_run_interpreted_and_a_compiled_loop_says_what_to_install() -> None:
    code = """
import sys
sys.path[:0] = sys.argv[1:]
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from importlib import util
util.find_spec = lambda name, find=util.find_spec: None if name == "numba" else find(name)
import shm_monitor.kernels
from tests.support.engine import Engine
print(Engine().feed([60.0] * 10 + [99.0]).levels[-1].name, [k.is_compiled for k in shm_monitor.kernels.of_one_sample()])
try:
    shm_monitor.kernels.should_prune_at
except Exception as error:
    print(type(error).__name__, error)
"""
    lines = start(code, environ=dict(os.environ), path=Path(__file__).parents[2]).splitlines()
    assert lines[0] == "CRITICAL [False, False]"
    assert lines[1].startswith("MissingDependencyError shm_monitor.kernels.should_prune_at needs the package")


DECIDE_ONCE = """
import logging, sys
sys.path[:0] = sys.argv[1:]
log = logging.getLogger("shm_monitor.kernels")
log.setLevel(logging.INFO)
log.addHandler(logging.StreamHandler(sys.stdout))
from shm_monitor.kernels import of_one_sample
from tests.support.engine import Engine
engine = Engine().feed([60.0] * 10 + [99.0])
print(engine.levels[-1].name, *(kernel.is_compiled for kernel in of_one_sample()))
"""


def start(code: str, *, environ: dict[str, str], path: Path) -> str:
    """Return what *code* prints in a fresh process that imports from *path*."""
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code, str(path)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the package in which numba may put no cache, as in a read-only image: its own folders are files."""
    root = Path(__file__).parents[2]
    site = tmp_path / "site"
    for source in [*root.glob("shm_monitor/**/*.py"), root / "tests" / "support" / "engine.py"]:
        target = site / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (site / "shm_monitor" / "kernels" / "__pycache__").write_bytes(b"")  # root may write anywhere, but not into a file
    return site


@pytest.mark.slow
def test_a_read_only_installation_without_a_home_decides_all_the_same(installed: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "a file"
    nowhere.write_bytes(b"")
    environ = {"HOME": str(nowhere / "home"), "XDG_CACHE_HOME": str(nowhere / "cache"), "PATH": os.environ["PATH"]}

    *logged, decided = start(DECIDE_ONCE, environ=environ, path=installed).splitlines()

    assert decided == "CRITICAL True True"
    said = [f"compiling {kernel} without numba's cache, which fails: " for kernel in ("roll", "decide")]
    assert [line[: len(start)] for line, start in zip(logged, said, strict=True)] == said


@pytest.mark.slow
def test_a_damaged_cache_is_not_used(tmp_path: Path) -> None:
    root, cache = Path(__file__).parents[2], tmp_path / "cache"
    environ = {"NUMBA_CACHE_DIR": str(cache), "PATH": os.environ["PATH"]}
    start(DECIDE_ONCE, environ=environ, path=root)
    files = [file for file in cache.rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(b"damage" * 100)

    assert start(DECIDE_ONCE, environ=environ, path=root).endswith("CRITICAL True True")


@pytest.mark.processes
def test_importing_the_kernels_imports_no_numba() -> None:
    """110 MB of private memory, which an interpreted sampler in a small container does without."""
    code = """
import sys
sys.path[:0] = sys.argv[1:]
import shm_monitor.kernels, shm_monitor.sampler.loop
before = [name for name in ("numba", "llvmlite") if name in sys.modules]
from shm_monitor.kernels import should_prune_at
print(before, "numba" in sys.modules)
"""
    assert start(code, environ=dict(os.environ), path=Path(__file__).parents[2]) == "[] True"


@pytest.mark.processes
def test_the_kernels_know_nothing_of_the_package_but_its_words() -> None:
    """Errors, levels, reasons and the bits of a flag."""
    code = """
import sys
sys.path[:0] = sys.argv[1:]
import shm_monitor.kernels
print(sorted(name for name in sys.modules if name.startswith("shm_monitor.") and ".kernels" not in name))
"""
    assert start(code, environ=dict(os.environ), path=Path(__file__).parents[2]) == str(
        [f"shm_monitor.{name}" for name in ("errors", "forks", "light", "schema", "segment", "segment.flags")]
    )
