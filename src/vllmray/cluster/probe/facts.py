"""What a host says of itself before any image is there: addresses, GPUs, memory, by a shell script."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vllmray.hosts.base import Host

TIMEOUT_S = 20.0
MIB = 1024**2
# nvidia-smi's fields: `nvidia-smi --help-query-gpu`. ip's -o gives one line an address (man 8 ip). A program that is
# missing leaves its section empty.
SCRIPT = r"""
LC_ALL=C; export LC_ALL
section() { printf '\n== %s\n' "$1"; }
section name; uname -n
section addresses; ip -4 -o addr show up scope global 2>/dev/null
section default; ip -4 -o route show default 2>/dev/null
section speeds; for file in /sys/class/net/*/speed; do printf '%s %s\n' "$file" "$(cat "$file" 2>/dev/null)"; done
section memory; sed -n 's/^MemTotal: *//p' /proc/meminfo
section gpus; nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits 2>/dev/null
section python; command -v python3
exit 0
"""


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of a host."""

    interface: str
    ip: str
    prefix: int
    """Bits of the network's part."""
    speed: int = 0
    """Of the link, Mbit/s; 0 where the driver gives none."""

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"{self.ip}/{self.prefix}", strict=False)


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU, as nvidia-smi lists it."""

    name: str
    memory: int
    """Bytes, as nvidia-smi gives them (memory.total); 0 where it gives none, as for unified memory."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the script found."""

    name: str = ""
    addresses: tuple[Address, ...] = ()
    default: str = ""
    """The interface of the default route."""
    memory: int = 0
    """Bytes."""
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    """NVIDIA's version."""
    python: str = ""
    """The path of python3."""


def host_facts(host: Host) -> HostFacts | None:
    """Ask a host; None where only its daemon is in reach.

    Raises:
        HostError: the script could not be run.
    """
    said = host.shell(SCRIPT, timeout=TIMEOUT_S)
    return None if said is None else facts_of(said)


def facts_of(said: str) -> HostFacts:
    """The script's output as facts; what a line lacks is left out."""
    sections = _sections(said)
    speeds = _speeds(sections["speeds"])
    gpus = [line.split(",") for line in sections["gpus"] if line.count(",") == 2]
    return HostFacts(
        name=_first(sections["name"]),
        addresses=tuple(_addresses(sections["addresses"], speeds)),
        default=_after("dev", _first(sections["default"]).split()),
        memory=int((_first(sections["memory"]) or "0").split()[0]) * 1024,
        gpus=tuple(_gpu(name.strip(), total.strip()) for name, total, _ in gpus),
        driver=gpus[0][2].strip() if gpus else "",
        python=_first(sections["python"]),
    )


def _sections(said: str) -> Mapping[str, list[str]]:
    names = ("name", "addresses", "default", "speeds", "memory", "gpus", "python")
    found: dict[str, list[str]] = {name: [] for name in names}
    current: list[str] = []
    for line in said.splitlines():
        if line.startswith("== "):
            current = found.setdefault(line[3:], [])
        elif line.strip():
            current.append(line.strip())
    return found


def _first(lines: list[str]) -> str:
    return lines[0] if lines else ""


def _after(word: str, words: list[str]) -> str:
    return words[words.index(word) + 1] if word in words[:-1] else ""


def _speeds(lines: Iterable[str]) -> dict[str, int]:
    """By interface; a virtual one has -1, or none."""
    pairs = (line.split() for line in lines)
    return {pair[0].split("/")[4]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _addresses(lines: Iterable[str], speeds: Mapping[str, int]) -> Iterable[Address]:
    """Of lines such as "2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0"."""
    for line in lines:
        words = line.split()
        ip, _, prefix = _after("inet", words).partition("/")
        if ip:
            interface = words[1].rstrip(":").partition("@")[0]
            yield Address(interface, ip, int(prefix or 32), speeds.get(interface, 0))


def _gpu(name: str, mebibytes: str) -> Gpu:
    return Gpu(name, int(mebibytes) * MIB if mebibytes.isdigit() else 0)


def shared_address(hosts: Mapping[str, HostFacts], of: str) -> Address | None:
    """The address of one host in a network that all hosts have an address in; None where there is no such network.

    Of several, the fastest link, then that of the default route. An address that two hosts have is not counted:
    docker0 has the same on each.
    """
    everyone = [address.ip for facts in hosts.values() for address in facts.addresses]
    own = [
        address
        for address in hosts[of].addresses
        if everyone.count(address.ip) == 1
        and all(_is_in(address, facts, everyone) for name, facts in hosts.items() if name != of)
    ]
    return max(own, key=lambda address: (address.speed, address.interface == hosts[of].default), default=None)


def _is_in(address: Address, other: HostFacts, everyone: list[str]) -> bool:
    return any(each.network == address.network and everyone.count(each.ip) == 1 for each in other.addresses)
