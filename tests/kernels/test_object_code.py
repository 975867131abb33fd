"""Compiled kernels in a process that never loads the compiler: the same results; what is not understood is refused."""

from __future__ import annotations

import platform
import struct
import subprocess
import weakref
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shm_monitor.errors import MonitorError
from shm_monitor.kernels import object_code, of_one_sample
from shm_monitor.kernels.object_code import Linked, Native, ObjectCode
from shm_monitor.kernels.rehearsal import OUTCOMES
from tests.support.children import PYTHON, output_of
from tests.support.surroundings import child_environment

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="object code is linked on x86-64 alone"),
    pytest.mark.timeout(700),
]


@pytest.fixture(scope="module")
def made() -> bytes:
    """What a child hands over that has compiled, or found in numba's cache, the kernels of a sample."""
    done = subprocess.run(
        [*PYTHON, "-m", "shm_monitor.kernels.compile_ahead"],
        env=child_environment(),
        capture_output=True,
        check=True,
        timeout=600,  # it has the lowest priority
    )
    return done.stdout


@pytest.fixture(scope="module")
def codes(made: bytes) -> list[ObjectCode]:
    return msgspec.msgpack.decode(made, type=list[ObjectCode])


def test_linked_kernels_do_to_the_bit_what_the_interpreted_ones_do(codes: list[ObjectCode]) -> None:
    for kernel, code in zip(of_one_sample(), codes, strict=True):
        outcome = OUTCOMES[kernel.name]
        interpreted = kernel._function
        assert outcome(Native(code)) == outcome(interpreted), kernel.name


def test_a_rehearsal_sees_every_argument(codes: list[ObjectCode]) -> None:
    """A kernel that forgets one number of one sample does not pass."""
    for kernel, code in zip(of_one_sample(), codes, strict=True):
        native, calls = Native(code), [0]

        def forgetful(*arguments: object, native: Native = native, calls: list[int] = calls) -> object:
            calls[0] += 1
            return 0 if calls[0] == 100 else native(*arguments)

        assert OUTCOMES[kernel.name](forgetful) != OUTCOMES[kernel.name](kernel._function), kernel.name


def test_a_process_that_links_them_has_no_compiler_in_its_memory(made: bytes, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(made)
    said = output_of(f"""
from pathlib import Path
from shm_monitor.kernels import of_one_sample
from shm_monitor.kernels.rehearsal import OUTCOMES
from shm_monitor.sampler.compilation import link
print(link(Path({str(tmp_path / "made")!r}).read_bytes()), [kernel.is_compiled for kernel in of_one_sample()])
before = [OUTCOMES[kernel.name](kernel.run) for kernel in of_one_sample()]
print(before == [OUTCOMES[kernel.name](kernel._function) for kernel in of_one_sample()])
print("llvmlite" in Path("/proc/self/maps").read_text())
""")
    assert said.split("\n")[:3] == ["True [True, True]", "True", "False"]


def test_arrays_that_went_in_are_not_kept_alive(codes: list[ObjectCode]) -> None:
    """A sampler closes the mapping that they look into."""
    native = Native(codes[0])
    seen: list[weakref.ref[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = []

    def run(*arguments: object) -> object:
        seen.extend(weakref.ref(one) for one in arguments if isinstance(one, np.ndarray))
        return native(*arguments)

    OUTCOMES["roll"](run)
    assert seen
    assert not any(one() is not None for one in seen)


def test_code_that_is_cut_off_or_of_another_machine_is_refused(codes: list[ObjectCode]) -> None:
    code = codes[0]
    for size in (0, 10, 64, len(code.elf) // 3, len(code.elf) - 40):
        with pytest.raises(MonitorError):
            Linked(code._replace(elf=code.elf[:size]))
    for place, value in ((0, 0), (4, 1), (5, 2), (18, 183)):  # the magic, 32 bits, big-endian, aarch64
        other = bytearray(code.elf)
        other[place] = value
        with pytest.raises(MonitorError):
            Linked(code._replace(elf=bytes(other)))
    with pytest.raises(MonitorError, match="damaged"):
        Linked(code._replace(symbol="another"))


def test_code_that_calls_what_is_not_known_or_needs_another_relocation_is_refused(
    codes: list[ObjectCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = codes[1].elf.replace(b"NRT_MemInfo_call_dtor", b"NRT_MemInfo_call_eter")
    with pytest.raises(MonitorError, match="it calls NRT_MemInfo_call_eter"):
        Linked(codes[1]._replace(elf=renamed))
    monkeypatch.setattr(object_code, "_R_64", 99)
    with pytest.raises(MonitorError, match="relocation of type 1"):
        Linked(codes[0])


def test_on_another_machine_nothing_is_linked(codes: list[ObjectCode], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(MonitorError, match="riscv64"):
        Linked(codes[0])


def test_memory_that_holds_code_cannot_be_written(codes: list[ObjectCode]) -> None:
    linked = Linked(codes[0])
    lines = Path("/proc/self/maps").read_text().splitlines()
    (line,) = [one for one in lines if _holds(one, linked.address)]
    assert line.split()[1].startswith("r-x")


def _holds(line: str, address: int) -> bool:
    first, last = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
    return first <= address < last


def test_where_code_cannot_be_linked_numba_loads_its_cache_instead() -> None:
    said = output_of(
        """
import platform
platform.machine = lambda: "riscv64"
from shm_monitor.kernels import of_one_sample
from shm_monitor.sampler import compilation
compilation._compile(lambda: "")
print([kernel.is_compiled for kernel in of_one_sample()], "llvmlite" in open("/proc/self/maps").read())
""",
        timeout=600.0,
    )
    assert said.strip() == "[True, True] True"


@pytest.mark.parametrize(
    "garbage", [b"", b"\x90", b"\x92\xc0\xc0", struct.pack("<Q", 7), b"\x91\x93\xa1a\xa1b\xc4\x01x"]
)
def test_what_a_child_says_is_looked_at_before_it_is_believed(garbage: bytes) -> None:
    said = output_of(f"""
from shm_monitor.kernels import of_one_sample
from shm_monitor.sampler.compilation import link
print(link({garbage!r}), [kernel.is_compiled for kernel in of_one_sample()])
""")
    assert said.strip() == "False [False, False]"
