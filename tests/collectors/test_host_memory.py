"""What the host can give, from /proc/meminfo as people have reported it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.collectors.host_memory import HostMemory, Meminfo
from tests.support.host_trees import is_root

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
GIB = 1 << 30
FIELDS = (
    "MemTotal",
    "MemAvailable",
    "MemFree",
    "Buffers",
    "Cached",
    "SReclaimable",
    "AnonPages",
    "SwapTotal",
    "SwapFree",
)
ARCSTATS = """13 1 0x01 147 39984 8203519417 1157042862915151
name                            type data
hits                            4    123456789
c_min                           4    {least}
c_max                           4    {size}
size                            4    {size}
"""


def host(proc: Path, *, arc: tuple[int, int] | None = None, **kib: int) -> HostMemory:
    """Read a meminfo with *kib* of each field; *arc* is size and least size of the cache of ZFS, bytes."""
    (proc / "meminfo").write_text("".join(f"{key}:{value:>15} kB\n" for key, value in kib.items()))
    if arc is not None:
        arcstats = proc / "spl/kstat/zfs/arcstats"
        arcstats.parent.mkdir(parents=True, exist_ok=True)
        arcstats.write_text(ARCSTATS.format(size=arc[0], least=arc[1]))
    meminfo = Meminfo(str(proc))
    try:
        return meminfo.read()
    finally:
        meminfo.close()


def test_huge_pages_that_were_set_aside_are_neither_used_nor_to_be_had(tmp_path: Path) -> None:
    """566 GiB, 520 of them reserved: 13 of the other 46 GiB are in use, not 94 percent of everything."""
    memory = host(tmp_path, MemTotal=593_026_380, MemAvailable=34_258_672, Hugetlb=545_259_520)

    assert memory.total == 593_026_380 * KIB
    assert memory.reading == (13_508_188 * KIB, 47_766_860 * KIB)
    assert memory.reading.usage / memory.reading.limit == pytest.approx(0.283, abs=0.001)


def test_the_cache_of_zfs_above_its_least_can_be_had(tmp_path: Path) -> None:
    memory = host(tmp_path, arc=(42 * GIB, 2 * GIB), MemTotal=65_536_000, MemAvailable=4_915_200)

    assert memory.available == 4_915_200 * KIB + 40 * GIB


@pytest.mark.parametrize(("arc", "available"), [((GIB, 2 * GIB), 4_915_200), ((200 * GIB, 0), 65_536_000)])
def test_a_small_cache_of_zfs_gives_nothing_and_no_cache_gives_more_than_there_is(
    tmp_path: Path, arc: tuple[int, int], available: int
) -> None:
    memory = host(tmp_path, arc=arc, MemTotal=65_536_000, MemAvailable=4_915_200)

    assert memory.available == available * KIB


@pytest.mark.processes
@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_a_meminfo_of_lxcfs_knows_nothing_of_the_cache_of_its_host(tmp_path: Path) -> None:
    """lxcfs mounts its meminfo, of the container, over the kernel's; ZFS counts the whole host."""
    host(tmp_path, arc=(GIB, 0), MemTotal=4_096_000, MemAvailable=1_024_000)
    other = tmp_path / "other"
    other.mkdir()
    code = (
        "import sys; from shm_monitor.collectors.host_memory import Meminfo\n"
        "print(int(Meminfo(sys.argv[1]).read().available))"
    )
    script = (
        'mount -t tmpfs none "$1" && cp "$0/meminfo" "$1" && mount --bind "$1/meminfo" "$0/meminfo" && '
        'exec "$2" -c "$3" "$0"'
    )
    command = ["unshare", "--mount", "/bin/sh", "-c", script, str(tmp_path), str(other), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare: " in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr}")

    assert (done.stdout, done.stderr) == (f"{1_024_000 * KIB}\n", "")


@given(kib=st.fixed_dictionaries({field: st.integers(0, 10**12) for field in (*FIELDS, "Hugetlb")}))
def test_nothing_is_negative_and_no_part_is_more_than_the_whole(
    tmp_path_factory: pytest.TempPathFactory, kib: dict[str, int]
) -> None:
    """Whatever meminfo says: lxcfs was seen to write more available than there is."""
    memory = host(tmp_path_factory.getbasetemp(), arc=None, **kib)

    assert all(value >= 0 for value in (*memory, *memory.reading))
    assert memory.available <= memory.capacity <= memory.total
