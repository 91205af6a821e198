"""Which RDMA devices NCCL is told to use, on a DGX Spark and on servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tests.unit.spark import ADDRESS, ONE_CABLE, UNSET, Device, down, link_local, of_ipv4, sysfs
from vllmray.cluster.spec.rdma import Hcas, choose
from vllmray.payload.probes.rdma import rdma_ports
from vllmray.payload.protocol import RdmaPort

PORTS = TypeAdapter(tuple[RdmaPort, ...])
Chosen = Callable[..., Hcas]
FIRST, SECOND, FIRST_AGAIN, SECOND_AGAIN = ONE_CABLE
BOTH = {"NCCL_IB_HCA": "=rocep1s0f0:1,roceP2p1s0f0:1"}


def rail(number: int, **changes: Any) -> Device:
    """One of a server's adapters, of which there is one for each GPU."""
    name, pci = f"mlx5_{number}", f"0000:{number}8:00.0"
    usual = Device(name, pci, f"ens{number}np0", adapter=f"a088:c203:0011:220{number}", gids=link_local(f"{number}"))
    return replace(usual, **changes)


@pytest.fixture
def chosen(tmp_path: Path) -> Chosen:
    """The choice on a host with devices like these."""

    def choice(*devices: Device, interface: str = "enp1s0f0np0", ip: str = ADDRESS, **stated: str) -> Hcas:
        ports = PORTS.validate_python(rdma_ports(sysfs(tmp_path, devices)))
        return choose(ports, ip=ip, interface=interface, stated=stated)

    return choice


def test_on_a_spark_both_halves_of_the_connected_port_are_used_and_the_index_is_left_to_nccl(chosen: Chosen) -> None:
    hcas = chosen(*ONE_CABLE)
    assert hcas.variables == BOTH
    assert hcas.summary == (
        "NCCL_IB_HCA==rocep1s0f0:1,roceP2p1s0f0:1: rocep1s0f0 (enp1s0f0np0, RoCE) has the node's address; "
        "roceP2p1s0f0 (enP2p1s0f0np0, RoCE) is the same port on its other PCIe link; "
        "not connected: roceP2p1s0f1 (enP2p1s0f1np1, RoCE, DOWN), rocep1s0f1 (enp1s0f1np1, RoCE, DOWN)"
    )
    assert (hcas.problems, hcas.usable) == ((), True)


def test_with_the_address_on_the_other_half_the_first_one_comes_along(chosen: Chosen) -> None:
    first, again = replace(FIRST, gids=link_local("1")), replace(FIRST_AGAIN, gids=of_ipv4(ADDRESS))
    hcas = chosen(first, SECOND, again, SECOND_AGAIN, interface="enP2p1s0f0np0")
    assert hcas.variables == {"NCCL_IB_HCA": "=roceP2p1s0f0:1,rocep1s0f0:1"}


def test_a_second_cable_of_a_spark_adds_no_bandwidth_and_is_left_out(chosen: Chosen) -> None:
    second, again = (replace(each, state=FIRST.state, rate=FIRST.rate) for each in (SECOND, SECOND_AGAIN))
    assert chosen(FIRST, second, FIRST_AGAIN, again).variables == BOTH


def test_a_half_that_is_down_is_said_with_what_it_costs_and_how_to_bring_it_up(chosen: Chosen) -> None:
    hcas = chosen(FIRST, SECOND, down(FIRST_AGAIN), SECOND_AGAIN)
    assert hcas.variables == {"NCCL_IB_HCA": "=rocep1s0f0:1"}
    assert hcas.problems == (
        "NCCL can't use RDMA device roceP2p1s0f0 (enP2p1s0f0np0, RoCE, DOWN), which halves the port's bandwidth: "
        "sudo ip link set enP2p1s0f0np0 up, and check the cable",
    )


def test_with_the_nodes_address_on_another_network_nccl_chooses(chosen: Chosen) -> None:
    hcas = chosen(*ONE_CABLE, interface="enP7s7", ip="10.0.0.11")
    assert (hcas.variables, hcas.problems, hcas.usable) == ({}, (), False)
    assert hcas.summary == (
        "none has enP7s7; NCCL chooses from roceP2p1s0f0 (enP2p1s0f0np0, RoCE), rocep1s0f0 (enp1s0f0np0, RoCE)"
    )


def test_a_port_that_is_down_with_the_nodes_address_on_it_is_a_problem(chosen: Chosen) -> None:
    hcas = chosen(down(FIRST), SECOND, FIRST_AGAIN, SECOND_AGAIN)
    assert (hcas.variables, hcas.usable) == ({}, False)
    assert hcas.problems == (
        "NCCL can't use RDMA device rocep1s0f0 (enp1s0f0np0, RoCE, DOWN): sudo ip link set enp1s0f0np0 up, and check "
        "the cable",
    )


def test_where_no_device_is_active_nccl_uses_tcp_and_that_is_said(chosen: Chosen) -> None:
    hcas = chosen(down(FIRST), SECOND)
    assert hcas.problems == (
        "no RDMA device is ACTIVE (rocep1s0f0 (enp1s0f0np0, RoCE, DOWN), rocep1s0f1 (enp1s0f1np1, RoCE, DOWN)): NCCL "
        "will use TCP",
    )


def test_a_host_without_rdma_has_nothing_to_say(chosen: Chosen) -> None:
    assert chosen() == Hcas()


def test_an_infiniband_port_without_a_subnet_manager_is_said_to_lack_one(chosen: Chosen) -> None:
    ib = rail(0, interface="ib0", link_layer="InfiniBand")
    waiting = replace(ib, name="mlx5_1", pci="0000:19:00.0", interface="ib1", state="2: INIT", adapter="1")
    hcas = chosen(ib, waiting, interface="ib1")
    assert hcas.problems == (
        "NCCL can't use RDMA device mlx5_1 (ib1, InfiniBand, INIT): check the cable, and that a subnet manager runs",
    )


def test_a_slower_adapter_for_management_is_left_out(chosen: Chosen) -> None:
    slow = rail(1, rate="25 Gb/sec (1X EDR)")
    assert chosen(rail(0), slow, interface="ens0np0").variables == {"NCCL_IB_HCA": "=mlx5_0:1"}


def test_a_server_with_an_adapter_for_each_gpu_keeps_all_of_them(chosen: Chosen) -> None:
    hcas = chosen(*(rail(number) for number in range(3)), interface="ens1np0")
    assert hcas.variables == {}
    assert hcas.summary == (
        "NCCL chooses: besides mlx5_1 (ens1np0, RoCE) there are mlx5_0 (ens0np0, RoCE), mlx5_2 (ens2np0, RoCE), as "
        "fast or faster"
    )


def test_the_second_port_of_a_servers_adapter_is_as_good_as_the_first(chosen: Chosen) -> None:
    second = replace(rail(0), name="mlx5_1", pci="0000:08:00.1", interface="ens0np1")
    assert chosen(rail(0), second, interface="ens0np0").variables == {}


def test_like_addresses_on_the_bus_are_no_port_in_common_without_a_common_adapter(chosen: Chosen) -> None:
    """As on hosts with several PCI domains, where each has an adapter at the same place."""
    other = rail(1, pci="0002:08:00.0", rate="100 Gb/sec (4X EDR)")
    assert chosen(rail(0), other, interface="ens0np0").variables == {"NCCL_IB_HCA": "=mlx5_0:1"}


@pytest.mark.parametrize(
    ("more", "index"),
    [
        ([*of_ipv4("10.9.9.9"), *of_ipv4(ADDRESS)], {"NCCL_IB_GID_INDEX": "5"}),  # NCCL would take 10.9.9.9's
        ([*of_ipv4(ADDRESS), *of_ipv4("10.9.9.9")], {}),
        ([*of_ipv4(ADDRESS)[:1]], {}),  # of an adapter without RoCE v2
        ([UNSET, UNSET], {}),
    ],
)
def test_the_index_of_an_address_is_set_only_where_nccl_would_take_another_address(
    chosen: Chosen, more: list[tuple[str, str]], index: dict[str, str]
) -> None:
    hcas = chosen(rail(0, gids=[*link_local("1"), *more]), interface="ens0np0")
    assert hcas.variables == {"NCCL_IB_HCA": "=mlx5_0:1"} | index


def test_an_index_that_is_another_address_on_the_other_half_is_not_set(chosen: Chosen) -> None:
    first = replace(FIRST, gids=[*link_local("1"), *of_ipv4("10.9.9.9"), *of_ipv4(ADDRESS)])
    assert chosen(first, FIRST_AGAIN).variables == BOTH


@pytest.mark.parametrize("name", ["NCCL_IB_GID_INDEX", "NCCL_IB_ADDR_RANGE"])
def test_who_chooses_the_address_is_not_overruled(chosen: Chosen, name: str) -> None:
    gids = [*link_local("1"), *of_ipv4("10.9.9.9"), *of_ipv4(ADDRESS)]
    hcas = chosen(rail(0, gids=gids), interface="ens0np0", **{name: "3"})
    assert (hcas.variables, hcas.problems) == ({"NCCL_IB_HCA": "=mlx5_0:1"}, ())


def test_an_index_that_one_of_the_devices_does_not_have_is_said_with_those_it_has(chosen: Chosen) -> None:
    hcas = chosen(*ONE_CABLE, NCCL_IB_GID_INDEX="3")
    assert hcas.problems == (
        "NCCL_IB_GID_INDEX=3: roceP2p1s0f0 has no such GID, only 0 (fe80::fe4c:eaff:fef9:4234, IB/RoCE v1), 1 "
        "(fe80::fe4c:eaff:fef9:4234, RoCE v2); leave it out, and NCCL finds its own",
    )


@pytest.mark.parametrize(
    ("stated", "right"),
    [
        ("rocep1s0f0,roceP2p1s0f0", True),
        ("=rocep1s0f0:1", True),
        ("roce", True),
        ("^rocep1s0f1", True),
        ("", True),
        ("=roce", False),
        ("mlx5", False),
        ("rocep1s0f1", False),
        ("=rocep1s0f0:2", False),
        ("^roce", False),
    ],
)
def test_devices_that_are_stated_are_taken_at_their_word_and_must_be_active(
    chosen: Chosen, stated: str, right: bool
) -> None:
    hcas = chosen(*ONE_CABLE, NCCL_IB_HCA=stated)
    assert (hcas.variables, hcas.summary) == ({}, f"NCCL_IB_HCA={stated}, as set")
    assert bool(hcas.problems) is not right
    if not right:
        assert f"NCCL_IB_HCA={stated} names no ACTIVE device of this host, which has roceP2p1s0f0" in hcas.problems[0]


def test_who_switches_rdma_off_hears_no_more_of_it(chosen: Chosen) -> None:
    hcas = chosen(down(FIRST), SECOND, NCCL_IB_DISABLE="1")
    assert hcas == Hcas({}, "NCCL_IB_DISABLE=1, as set: NCCL uses TCP")
