"""What a DGX Spark's kernel tells of its RDMA devices and its memory.

Names, PCI addresses, states and rates are those of published outputs of ibdev2netdev and ibstat on a GB10 with one
cable; so are nvidia-smi's line, MemTotal and MemAvailable. Addresses and swap are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

NVIDIA_SMI = "0, GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5, NVIDIA GB10, [N/A], [N/A], [N/A], [N/A]\n"
MEMINFO = """MemTotal:       127600748 kB
MemFree:        103822164 kB
MemAvailable:   118566368 kB
Buffers:          204112 kB
Cached:         14533312 kB
SwapCached:            0 kB
SwapTotal:      16777212 kB
SwapFree:       16253180 kB
HugePages_Total:       0
"""
ADAPTER = "fc4c:ea03:00f9:4230"


@dataclass(frozen=True)
class Device:
    """One device with one port, as its files in /sys are to be."""

    name: str
    pci: str
    interface: str
    state: str = "4: ACTIVE"
    rate: str = "200 Gb/sec (4X HDR)"
    link_layer: str = "Ethernet"
    adapter: str = ADAPTER
    gids: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """Address and type, from index 0 on; an empty type is a GID that is not set."""


def link_local(end: str) -> list[tuple[str, str]]:
    """The two GIDs that an interface has without any address."""
    address = f"fe80:0000:0000:0000:fe4c:eaff:fef9:{end}"
    return [(address, "IB/RoCE v1"), (address, "RoCE v2")]


def of_ipv4(address: str) -> list[tuple[str, str]]:
    """The two GIDs of an IPv4 address."""
    high, low = (f"{int(a):02x}{int(b):02x}" for a, b in zip(*[iter(address.split("."))] * 2, strict=True))
    mapped = f"0000:0000:0000:0000:0000:ffff:{high}:{low}"
    return [(mapped, "IB/RoCE v1"), (mapped, "RoCE v2")]


def down(device: Device) -> Device:
    """The same without a cable, or with its interface down."""
    return replace(device, state="1: DOWN", rate="40 Gb/sec (4X QDR)")


UNSET = ("0000:0000:0000:0000:0000:0000:0000:0000", "")
ADDRESS = "192.168.177.11"
ONE_CABLE = (
    Device("rocep1s0f0", "0000:01:00.0", "enp1s0f0np0", gids=[*link_local("4230"), *of_ipv4(ADDRESS), UNSET]),
    down(Device("rocep1s0f1", "0000:01:00.1", "enp1s0f1np1", gids=[*link_local("4231"), UNSET])),
    Device("roceP2p1s0f0", "0002:01:00.0", "enP2p1s0f0np0", gids=[*link_local("4234"), UNSET]),
    down(Device("roceP2p1s0f1", "0002:01:00.1", "enP2p1s0f1np1", gids=[*link_local("4235"), UNSET])),
)
"""Two Sparks with a cable between their first QSFP ports."""


def sysfs(root: Path, devices: Sequence[Device]) -> str:
    """These devices as files below the folder, and the path that stands for /sys/class/infiniband."""
    for device in devices:
        pci = root / "devices" / f"pci{device.pci[:7]}" / device.pci
        (pci / "net" / device.interface).mkdir(parents=True)
        real = pci / "infiniband" / device.name
        port = real / "ports/1"
        for folder in ("gids", "gid_attrs/types", "gid_attrs/ndevs"):
            (port / folder).mkdir(parents=True)
        (real / "device").symlink_to(pci)
        (real / "sys_image_guid").write_text(f"{device.adapter}\n")
        (port / "state").write_text(f"{device.state}\n")
        (port / "rate").write_text(f"{device.rate}\n")
        (port / "link_layer").write_text(f"{device.link_layer}\n")
        for index, (address, kind) in enumerate(device.gids):
            (port / f"gids/{index}").write_text(f"{address}\n")
            if kind:  # of a GID that is not set the kernel refuses to tell the type
                (port / f"gid_attrs/types/{index}").write_text(f"{kind}\n")
                (port / f"gid_attrs/ndevs/{index}").write_text(f"{device.interface}\n")
        shown = root / "class/infiniband" / device.name
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.symlink_to(real)
    return str(root / "class/infiniband")
