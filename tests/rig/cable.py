"""The cable between a host of the rig and the switch: cut, unplugged, lossy or slow.

    with cable.whole(3):          # in its plain state again at the end, whatever happens inside
        cable.cut(3)
        cable.mend(3)
        with cable.slow(3, delay_ms=200), cable.lossy(3, percent=20, direction="to"):
            ...

Every combination works. Nothing of it is in this process's memory, so repair() also undoes what a killed run left.
Needs nft, of Debian's nftables, besides what the rig needs.

Why as it is: not every kernel has netem. Frames are dropped where neither end can tell: on the switch, or after the
host's own interface has received them; a host that drops what it sends itself tells the sender. TCP hands veth up to
64 KB as one, which the cable would lose as one: a lossy cable has it cut into frames first.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tests.rig.hosts import SWITCH, run

BRIDGE = "br0"
WHOLE_SEGMENTS, SINGLE_FRAMES = 65536, 1500
"""Largest TCP segment that an interface takes as one: the kernel's default, and none that is larger than a frame."""


@contextlib.contextmanager
def whole(n: int) -> Iterator[None]:
    """The cable is restored to its plain state at the end of the block."""
    try:
        yield
    finally:
        repair(n)


def cut(n: int) -> None:
    """Frames vanish in both directions; both ends see a carrier."""
    ends = f'{{ "{_port(n)}", "{_far(n)}" }}'
    _nft(SWITCH, f"bridge {_cut_table(n)}", "forward priority 0", f"iifname {ends} drop", f"oifname {ends} drop")


def unplug(n: int) -> None:
    """The link is down; the host sees no carrier."""
    _switch("link", "set", _port(n), "down")


def mend(n: int) -> None:
    """Undo cut and unplug; a cable that is neither stays as it is."""
    _no_table(SWITCH, f"bridge {_cut_table(n)}")
    _switch("link", "set", _port(n), "up")


@contextlib.contextmanager
def lossy(n: int, *, percent: float, direction: Literal["from", "to"]) -> Iterator[None]:
    """Frames from, or to, the host are lost at random; ARP and TCP acknowledgements included."""
    drop = f"numgen random mod 10000 < {round(percent * 100)} drop"
    try:
        if direction == "from":
            _segments(_host(n), "eth0", SINGLE_FRAMES)
            ends = f'{{ "{_port(n)}", "{_far(n)}" }}'
            _nft(SWITCH, f"bridge {_loss_table(n)}", "forward priority 0", f"iifname {ends} {drop}")
        else:
            _segments(SWITCH, _port(n), SINGLE_FRAMES)
            _nft(_host(n), f"netdev {_loss_table(n)}", "ingress device eth0 priority 0", drop)
        yield
    finally:
        _not_lossy(n, direction)


@contextlib.contextmanager
def slow(n: int, *, delay_ms: float) -> Iterator[None]:
    """Every frame takes delay_ms longer, in each direction; frames in transit at the end of the block are lost."""
    relay: subprocess.Popen[bytes] | None = None
    try:
        _switch("link", "add", _near(n), "type", "veth", "peer", "name", _far(n))
        for end in (_near(n), _far(n)):
            _switch("link", "set", end, "addrgenmode", "none", "up")
        relay = subprocess.Popen(
            (
                *("nsenter", f"--net=/run/netns/{SWITCH}", sys.executable, "-I"),
                *(str(Path(__file__).with_name("cable_relay.py")), _port(n), _near(n), str(delay_ms)),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert relay.stdout is not None
        if relay.stdout.readline() != b"listening\n":
            raise RuntimeError(f"the slow cable of host {n} did not start")
        _switch("link", "set", _port(n), "nomaster")
        _switch("link", "set", _far(n), "master", BRIDGE)
        yield
    finally:
        _not_slow(n)
        if relay is not None:
            relay.communicate(timeout=10)


def repair(n: int) -> None:
    """Restore the cable's plain state, whatever this run, or one that was killed, did to it."""
    mend(n)
    _not_lossy(n, "from")
    _not_lossy(n, "to")
    _not_slow(n)


def _not_lossy(n: int, direction: Literal["from", "to"]) -> None:
    if direction == "from":
        _no_table(SWITCH, f"bridge {_loss_table(n)}")
        _segments(_host(n), "eth0", WHOLE_SEGMENTS)
    else:
        _no_table(_host(n), f"netdev {_loss_table(n)}")
        _segments(SWITCH, _port(n), WHOLE_SEGMENTS)


def _not_slow(n: int) -> None:
    run("ip", "-n", SWITCH, "link", "del", _near(n), check=False)
    _switch("link", "set", _port(n), "master", BRIDGE)


def _segments(namespace: str, interface: str, largest: int) -> None:
    run("ip", "-n", namespace, "link", "set", interface, "gso_max_size", str(largest))


def _switch(*argv: str) -> None:
    run("ip", "-n", SWITCH, *argv)


def _nft(namespace: str, table: str, hook: str, *rules: str) -> None:
    """A table with one chain of these rules, which atomically replaces an existing one."""
    lines = [
        *(f"add table {table}", f"delete table {table}", f"add table {table}"),
        f"add chain {table} drops {{ type filter hook {hook}; }}",
        *(f"add rule {table} drops {rule}" for rule in rules),
    ]
    run("nsenter", f"--net=/run/netns/{namespace}", "nft", "-f", "-", input="\n".join(lines) + "\n")


def _no_table(namespace: str, table: str) -> None:
    run("nsenter", f"--net=/run/netns/{namespace}", "nft", f"add table {table}; delete table {table}")


def _host(n: int) -> str:
    return f"vrt{n}"


def _port(n: int) -> str:
    """The switch's end of the cable."""
    return f"p{n}"


def _near(n: int) -> str:
    """A slow cable goes from here, after the relay, ..."""
    return f"q{n}"


def _far(n: int) -> str:
    """... to here, in the port's place on the switch."""
    return f"q{n}b"


def _cut_table(n: int) -> str:
    return f"cut{n}"


def _loss_table(n: int) -> str:
    return f"loss{n}"
