"""Which RDMA devices (HCAs) NCCL uses on a host, and what is wrong with them; pure.

NCCL takes every ACTIVE one by itself. It is told to take only those in the network of the node's address where that is
no loss, by NCCL_IB_HCA (NCCL's user guide, "Environment Variables": after "=" a list of device:port and no others).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vllmray.payload.protocol import RdmaPort

HCA = "NCCL_IB_HCA"
GID = "NCCL_IB_GID_INDEX"
DISABLE = "NCCL_IB_DISABLE"
OTHER_GID_WORDS = ("NCCL_IB_ADDR_RANGE", "NCCL_IB_ADDR_FAMILY", "NCCL_IB_ROCE_VERSION_NUM")
"""Other variables that select the GID."""
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Hcas:
    """The choice among a host's RDMA devices."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """For the node's containers."""
    summary: str = ""
    """Which devices NCCL uses, and why; empty on a host without any."""
    problems: tuple[str, ...] = ()
    usable: bool = False
    """An ACTIVE device has the node's interface."""


def choose(ports: Sequence[RdmaPort], *, ip: str, interface: str, stated: Mapping[str, str] = NOTHING) -> Hcas:
    """Choose the devices in the network of the node's address.

    Args:
        ports: of all devices of the host.
        ip: the node's address.
        interface: the one that has it.
        stated: the user's own variables, which are left as they are.
    """
    if not ports:
        return Hcas()
    if stated.get(DISABLE, "0") not in ("", "0"):
        return Hcas({}, f"{DISABLE}={stated[DISABLE]}, as set: NCCL uses TCP")
    active = [port for port in ports if port.state == "ACTIVE"]
    own = [port for port in ports if interface in port.interfaces]
    halves = [port for port in ports if port not in own and any(_same_qsfp_port(port, each) for each in own)]
    picked = [port for port in (*own, *halves) if port in active]
    problems = [_inactive(port, half=port in halves) for port in (*own, *halves) if port not in active]
    usable = any(port in active for port in own)
    if HCA in stated:
        missed = [] if _matching(stated[HCA], active) else [_matches_nothing(stated[HCA], ports)]
        return Hcas({}, f"{HCA}={stated[HCA]}, as set", (*missed, *_stated_gid(picked, stated)), usable)
    if not active:
        return Hcas({}, "", (f"no RDMA device is ACTIVE ({_listed(ports)}): NCCL will use TCP",))
    if not usable:
        return Hcas({}, f"none has {interface}; NCCL chooses from {_listed(active)}", tuple(problems))
    rivals = _as_fast(active, picked, halves)
    if rivals:
        summary = f"NCCL chooses: besides {_listed(picked)} there are {_listed(rivals)}, as fast or faster"
        return Hcas({}, summary, tuple(problems), usable)
    variables = {HCA: "=" + ",".join(f"{port.device}:{port.port}" for port in picked), **_gid(picked, ip, stated)}
    idle = [port for port in ports if port not in (*active, *own, *halves)]
    summary = _summary(picked, interface, variables) + (f"; not connected: {_listed(idle)}" if idle else "")
    return Hcas(variables, summary, (*problems, *_stated_gid(picked, stated)), usable)


def _same_qsfp_port(port: RdmaPort, other: RdmaPort) -> bool:
    """Whether both are the same QSFP port of the same adapter, on two PCIe links.

    A DGX Spark's adapter has two PCIe links of four lanes. Each of its QSFP ports appears as a device on both links,
    rocep1s0f0 at 0000:01:00.0 and roceP2p1s0f0 at 0002:01:00.0, and one of them reaches half of the 200 Gbit/s.
    """
    domain, _, function = port.pci.partition(":")
    other_domain, _, other_function = other.pci.partition(":")
    same_adapter = port.adapter == other.adapter != ""
    return same_adapter and port.port == other.port and function == other_function and domain != other_domain


def _as_fast(active: Sequence[RdmaPort], picked: Sequence[RdmaPort], halves: Sequence[RdmaPort]) -> list[RdmaPort]:
    """ACTIVE devices that are as fast as the picked ones: many servers have one adapter for each GPU.

    If a QSFP port uses both PCIe links of its adapter, the adapter's other ports add no bandwidth.
    """
    complete = {port.adapter for port in picked} if halves else set()
    slowest = min(port.rate for port in picked)
    return [p for p in active if p not in picked and p.rate >= slowest and p.adapter not in complete]


def _gid(picked: Sequence[RdmaPort], ip: str, stated: Mapping[str, str]) -> dict[str, str]:
    """The GID index of the node's address, if NCCL would select another address.

    Since 2.21 NCCL selects the first RoCE v2 GID with an IPv4 address on each device, at each start (nccl,
    src/transport/net_ib, ncclIbGetGidIndex). For an interface with one address that is right, and stays right: the
    index differs between hosts and devices, and may change when addresses change or the host reboots.
    """
    if GID in stated or any(name in stated for name in OTHER_GID_WORDS):
        return {}
    usual = [_first_index(port) for port in picked]
    wanted = [gid.index for port in picked for gid in port.gids if gid.kind == "RoCE v2" and gid.address == ip]
    if not wanted or wanted[0] in usual:
        return {}
    on_all = all(any(gid.index == wanted[0] and _is_routable(gid.kind, gid.address) for gid in p.gids) for p in picked)
    return {GID: str(wanted[0])} if on_all else {}


def _first_index(port: RdmaPort) -> int | None:
    return next((gid.index for gid in port.gids if _is_routable(gid.kind, gid.address)), None)


def _is_routable(kind: str, address: str) -> bool:
    return kind == "RoCE v2" and ":" not in address


def _stated_gid(picked: Sequence[RdmaPort], stated: Mapping[str, str]) -> tuple[str, ...]:
    index = stated.get(GID, "")
    without = [port for port in picked if port.gids and index not in {str(gid.index) for gid in port.gids}]
    if not index.isdecimal() or not without:
        return ()
    has = ", ".join(f"{gid.index} ({gid.address}, {gid.kind})" for gid in without[0].gids)
    return (f"{GID}={index}: {without[0].device} has no such GID, only {has}; leave it out, and NCCL finds its own",)


def _matching(stated: str, active: Sequence[RdmaPort]) -> list[RdmaPort]:
    """The devices that NCCL_IB_HCA selects: names are prefixes unless the list begins with =; ^ excludes."""
    without, exact = stated.startswith("^"), stated.lstrip("^").startswith("=")
    named = [part.partition(":") for part in stated.lstrip("^=").split(",") if part]

    def is_named(port: RdmaPort) -> bool:
        return any(
            (port.device == name if exact else port.device.startswith(name))
            and number.split(":")[0] in ("", f"{port.port}")
            for name, _, number in named
        )

    return [port for port in active if not named or is_named(port) != without]


def _matches_nothing(stated: str, ports: Sequence[RdmaPort]) -> str:
    return f"{HCA}={stated} names no ACTIVE device of this host, which has {_listed(ports)}: NCCL will use TCP"


def _inactive(port: RdmaPort, *, half: bool) -> str:
    loss = ", which halves the port's bandwidth" if half else ""
    check = "check the cable"
    if port.link_layer == "InfiniBand":
        check = "check the cable, and that a subnet manager runs"
    elif port.interfaces:
        check = f"sudo ip link set {port.interfaces[0]} up, and check the cable"
    return f"NCCL can't use RDMA device {_named(port)}{loss}: {check}"


def _summary(picked: Sequence[RdmaPort], interface: str, variables: Mapping[str, str]) -> str:
    halves = [port for port in picked if interface not in port.interfaces]
    same = f"; {_listed(halves)} is the same port on its other PCIe link" if halves else ""
    words = ", ".join(f"{name}={value}" for name, value in variables.items())
    return f"{words}: {_listed([port for port in picked if port not in halves])} has the node's address{same}"


def _listed(ports: Sequence[RdmaPort]) -> str:
    return ", ".join(_named(port) for port in ports)


def _named(port: RdmaPort) -> str:
    of = "InfiniBand" if port.link_layer == "InfiniBand" else "RoCE"
    words = [*port.interfaces, of, *(() if port.state == "ACTIVE" else (port.state,))]
    return f"{port.device} ({', '.join(words)})"
