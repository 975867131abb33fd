"""Network on recorded trees: which interfaces count, and interfaces that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.network import MAX_INTERFACES, NetworkCollector
from tests.support.host_trees import Tree, readings, sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAD = "Inter-|   Receive |  Transmit\n face |bytes |bytes\n"
RATES = ("receive_bytes_per_second", "transmit_bytes_per_second")


def network(tree: Tree, interfaces: Sequence[str] = ()) -> NetworkCollector:
    return NetworkCollector(interfaces, tree.roots, clock=tree.clock)


def write(tree: Tree, *rows: tuple[str, int, int]) -> None:
    """Write /proc/net/dev: name, received and sent bytes of each interface."""
    lines = [f"{name:>6}: {got} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n" for name, got, sent in rows]
    tree.write("proc/net/dev", HEAD + "".join(lines))


def test_hardware_counts_and_what_stands_on_it_does_not_count_again(tmp_path: Path) -> None:
    """docker0 shows bytes that eth0 has shown already; lo never leaves the host."""
    tree = Tree("v2", tmp_path)
    collector = network(tree)
    write(tree, ("lo", 1000, 1000), ("eth0", 1000, 500), ("docker0", 1000, 1000))
    sample(collector)
    tree.clock.forward(2)
    write(tree, ("lo", 9000, 9000), ("eth0", 3000, 600), ("docker0", 5000, 6000))
    found = sample(collector)

    assert collector.facts == {"counted": ["eth0"]}
    assert [found[f"network.{field}"] for field in ("usage_bytes_per_second", *RATES)] == [1050, 1000, 50]
    assert [found[f"network:docker0.{field}"] for field in RATES] == [2000, 2500]
    assert [found[f"network:lo.{field}"] for field in RATES] == [4000, 4000]


def test_the_fast_half_of_azures_netvsc_does_not_count_again(tmp_path: Path) -> None:
    """eth0 (netvsc) counts what its virtual function moves; of a bond, which is no hardware, its members count."""
    tree = Tree("v2", tmp_path)
    for name in ("enP1s1", "eth1"):
        tree.write(f"sys/class/net/{name}/device/uevent", "")
    (tmp_path / "sys/class/net/enP1s1/master").symlink_to("../eth0")
    (tmp_path / "sys/class/net/eth1/master").symlink_to("../bond0")
    write(tree, ("eth0", 1, 1), ("enP1s1", 1, 1), ("eth1", 1, 1), ("bond0", 1, 1))

    assert network(tree).facts == {"counted": ["eth0", "eth1"]}


def test_without_hardware_as_in_a_container_all_but_loopback_counts(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    tree.remove("sys/class/net/eth0/device/uevent")
    (tmp_path / "sys/class/net/eth0/device").rmdir()

    assert network(tree).facts == {"counted": ["docker0", "eth0"]}


@pytest.mark.parametrize(("wanted", "counted"), [(["lo", "docker0"], ["docker0", "lo"]), (["e*"], ["eth0"])])
def test_the_configuration_chooses_what_counts(tmp_path: Path, wanted: list[str], counted: list[str]) -> None:
    assert network(Tree("v2", tmp_path), wanted).facts == {"counted": counted}


def test_the_first_rate_is_unknown_while_the_counts_are_known(tmp_path: Path) -> None:
    found = sample(network(Tree("v2", tmp_path)))

    assert found["network.usage_bytes_per_second"] == "not_yet_sampled"
    assert found["network:eth0.receive_bytes_count"] == 168056490
    assert found["network:eth0.transmit_bytes_count"] == 295406
    assert found["network:eth0.drops_count"] == 2 + 4
    assert found["network:eth0.errors_count"] == 1 + 3


def test_counters_that_went_backwards_are_unknown_once_never_negative(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = network(tree)
    write(tree, ("eth0", 5000, 5000))
    sample(collector)
    for received, expected in ((100, "error"), (300, 200)):
        tree.clock.forward(1)
        write(tree, ("eth0", received, 5000))
        assert readings(collector, "receive_bytes_per_second") == (expected,)


def test_an_interface_that_comes_later_counts_from_its_second_sample_on(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = network(tree, ["eth*"])
    write(tree, ("eth0", 0, 0))
    sample(collector)
    for eth1, expected in ((700_000, 10), (700_005, 15)):
        tree.clock.forward(1)
        received = 10 if expected == 10 else 20
        write(tree, ("eth0", received, 0), ("eth1", eth1, 0))
        assert readings(collector, "receive_bytes_per_second") == (expected,)


def test_an_interface_that_is_gone_is_unknown_and_the_total_goes_on(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    write(tree, ("eth0", 0, 0), ("eth1", 0, 0))
    collector = network(tree, ["eth0", "eth1"])
    sample(collector)
    tree.clock.forward(1)
    write(tree, ("eth0", 7, 0))
    found = sample(collector)

    assert found["network.receive_bytes_per_second"] == 7
    assert found["network:eth1.receive_bytes_per_second"] == found["network:eth1.drops_count"] == "not_supported"


def test_a_configured_interface_has_its_columns_before_it_is_there(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = network(tree, ["ib0"])

    assert sample(collector)["network:ib0.receive_bytes_count"] == "not_supported"
    write(tree, ("ib0", 5, 6))
    assert sample(collector)["network:ib0.receive_bytes_count"] == 5


def test_a_host_with_hundreds_of_interfaces_has_columns_for_some_and_sums_all(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    write(tree, *((f"eth{index}", 0, 0) for index in range(300)))
    collector = network(tree, ["eth*"])
    sample(collector)
    tree.clock.forward(1)
    write(tree, *((f"eth{index}", 2, 0) for index in range(300)))

    assert len(collector.metrics) == 3 + 6 * MAX_INTERFACES
    assert readings(collector, "receive_bytes_per_second") == (600,)


def test_one_garbage_line_costs_its_own_interface_and_the_total_it_counts_in(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = network(tree)
    sample(collector)
    tree.clock.forward(1)
    tree.write("proc/net/dev", HEAD + "  eth0: x y z\n    lo: 4000 1 0 0 0 0 0 0 4000 1 0 0 0 0 0 0\n")
    found = sample(collector)

    assert found["network.usage_bytes_per_second"] == found["network:eth0.receive_bytes_count"] == "error"
    assert found["network:lo.receive_bytes_count"] == 4000


@pytest.mark.parametrize(("text", "reason"), [(None, "not_supported"), ("garbage\n", "error"), ("", "error")])
def test_an_unreadable_list_makes_everything_unknown(tmp_path: Path, text: str | None, reason: str) -> None:
    tree = Tree("v2", tmp_path)
    collector = network(tree)
    if text is None:
        tree.remove("proc/net/dev")
    else:
        tree.write("proc/net/dev", text)

    assert set(sample(collector).values()) == {reason}
