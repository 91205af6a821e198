"""RDMA devices and memory, from files as a DGX Spark's kernel has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.spark import ADAPTER, ADDRESS, MEMINFO, ONE_CABLE, Device, sysfs
from vllmray.payload.probes.host import probe
from vllmray.payload.probes.meminfo import meminfo, swap
from vllmray.payload.probes.rdma import rdma_ports

MIB, GIB = 1024**2, 1024**3


def test_each_port_is_told_with_its_interface_state_and_addresses(tmp_path: Path) -> None:
    ports = {port["device"]: port for port in rdma_ports(sysfs(tmp_path, ONE_CABLE))}
    assert ports["rocep1s0f0"] == {
        "device": "rocep1s0f0",
        "port": 1,
        "state": "ACTIVE",
        "link_layer": "Ethernet",
        "rate": 200.0,
        "interfaces": ("enp1s0f0np0",),
        "adapter": ADAPTER,
        "pci": "0000:01:00.0",
        "gids": (
            {"index": 0, "address": "fe80::fe4c:eaff:fef9:4230", "kind": "IB/RoCE v1"},
            {"index": 1, "address": "fe80::fe4c:eaff:fef9:4230", "kind": "RoCE v2"},
            {"index": 2, "address": ADDRESS, "kind": "IB/RoCE v1"},
            {"index": 3, "address": ADDRESS, "kind": "RoCE v2"},
        ),
    }
    assert {name: (port["state"], port["interfaces"]) for name, port in ports.items()} == {
        "rocep1s0f0": ("ACTIVE", ("enp1s0f0np0",)),
        "rocep1s0f1": ("DOWN", ("enp1s0f1np1",)),
        "roceP2p1s0f0": ("ACTIVE", ("enP2p1s0f0np0",)),
        "roceP2p1s0f1": ("DOWN", ("enP2p1s0f1np1",)),
    }


def test_a_bond_on_the_port_is_an_interface_of_it(tmp_path: Path) -> None:
    root = sysfs(tmp_path, ONE_CABLE[:1])
    (Path(root) / "rocep1s0f0/ports/1/gid_attrs/ndevs/3").write_text("bond0\n")
    assert rdma_ports(root)[0]["interfaces"] == ("bond0", "enp1s0f0np0")


def test_of_several_ports_each_has_the_interface_of_its_own_addresses(tmp_path: Path) -> None:
    root = sysfs(tmp_path, ONE_CABLE[:1])
    second = Path(root) / "rocep1s0f0/ports/2/gid_attrs"
    second.mkdir(parents=True)
    assert [port["interfaces"] for port in rdma_ports(root)] == [("enp1s0f0np0",), ()]


def test_infiniband_has_no_addresses_of_interfaces(tmp_path: Path) -> None:
    ib = Device("mlx5_0", "0000:18:00.0", "ibp24s0", link_layer="InfiniBand", rate="400 Gb/sec (4X NDR)")
    (port,) = rdma_ports(sysfs(tmp_path, [replace(ib, gids=ONE_CABLE[0].gids[:1])]))
    assert (port["link_layer"], port["rate"], port["gids"]) == ("InfiniBand", 400.0, ())


def test_a_host_without_rdma_has_none_and_the_look_at_a_host_says_so(tmp_path: Path) -> None:
    assert rdma_ports(str(tmp_path)) == []
    answer = probe({"towards": "127.0.0.1", "ports": {}, "accelerator": "cpu"})
    assert answer["rdma"] == rdma_ports()
    words = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert answer["swap"]["total"] == int(words["SwapTotal"].split()[0]) * 1024


def test_swap_is_told_with_what_of_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    assert swap(str(path)) == {"total": 16777212 * 1024, "used": 524032 * 1024}
    assert meminfo(str(path))["MemAvailable"] == 118566368 * 1024
    path.write_text("MemTotal:       127600748 kB\n")
    assert swap(str(path)) is None
