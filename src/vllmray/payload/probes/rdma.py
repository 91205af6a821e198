"""The RDMA devices of a host, from /sys; a container in the host's network sees them too.

Standard library only. Source of the files: Linux, Documentation/ABI/stable/sysfs-class-infiniband and
Documentation/ABI/testing/sysfs-class-net.
"""

from __future__ import annotations

import glob
import ipaddress
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vllmray.payload.protocol import Gid, RdmaPort

SYSFS = "/sys/class/infiniband"


def rdma_ports(sysfs: str = SYSFS) -> list[dict[str, Any]]:
    """Each port of each device, as the fields of protocol.RdmaPort."""
    return [asdict(_port(Path(path))) for path in sorted(glob.glob(f"{sysfs}/*/ports/*"))]


def _port(port: Path) -> RdmaPort:
    device = port.parents[1]
    link_layer = _text(port / "link_layer")
    rate = re.match(r"[\d.]+", _text(port / "rate"))
    return RdmaPort(
        device=device.name,
        port=int(port.name),
        state=_text(port / "state").rpartition(":")[2].strip(),  # "4: ACTIVE"
        link_layer=link_layer,
        rate=float(rate[0]) if rate else 0.0,
        interfaces=_interfaces(port),
        adapter=_text(device / "sys_image_guid"),
        pci=(device / "device").resolve().name if (device / "device").exists() else "",
        gids=_gids(port) if link_layer == "Ethernet" else (),
    )


def _interfaces(port: Path) -> tuple[str, ...]:
    """Interfaces of the port's GIDs, and those of the device, which may have no address."""
    names = {_text(path) for path in (port / "gid_attrs/ndevs").glob("*")}
    if len(list(port.parent.iterdir())) == 1:  # with several ports only the GIDs show which one it is
        names |= {path.name for path in (port.parents[1] / "device/net").glob("*")}
    return tuple(sorted(names - {""}))


def _gids(port: Path) -> tuple[Gid, ...]:
    """The GIDs that are set: reading the type of another one fails with EINVAL."""
    found = []
    for path in sorted((port / "gids").glob("*"), key=lambda path: int(path.name)):
        kind = _text(port / "gid_attrs/types" / path.name)
        if kind and (address := _address(_text(path))):
            found.append(Gid(int(path.name), address, kind))
    return tuple(found)


def _address(text: str) -> str:
    """Empty for a GID that is not set: all zero, or a prefix alone."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return ""
    if int(address) & 0xFFFFFFFFFFFFFFFF == 0:
        return ""
    return str(address.ipv4_mapped or address)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
