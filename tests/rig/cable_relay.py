"""A slow stretch of cable: carries frames between two interfaces, each of them late by the same time.

    python cable_relay.py INTERFACE INTERFACE DELAY_MS

Prints a line when it listens, and ends with its standard input, so also when who started it was killed. Only the
standard library: it runs in the switch's network, by itself.

Why as it is: a virtual cable carries segments not yet cut into frames, their checksums not yet computed.
PACKET_VNET_HDR says before each what remains to be done, and the same bytes say so to the other interface: nothing
needs to be switched off on the hosts.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections import deque

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ETH_P_ALL = 0x0003
BUFFER = 64 * 1024 * 1024
LARGEST = 10 + 18 + 65536
"""The header of PACKET_VNET_HDR, that of Ethernet with a VLAN, and an IP packet before it is cut into frames."""
BATCH = 128

Late = deque[tuple[float, bytes]]


def relay(first: str, second: str, delay: float) -> None:
    """Relay frames until standard input ends."""
    os.nice(-10)
    sockets = [_open(first), _open(second)]
    ways: list[tuple[socket.socket, socket.socket, Late]] = [
        (sockets[0], sockets[1], deque()),
        (sockets[1], sockets[0], deque()),
    ]
    print("listening", flush=True)
    while True:
        due = min((late[0][0] for _, _, late in ways if late), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        readable = select.select([*sockets, sys.stdin], [], [], wait)[0]
        if sys.stdin in readable:
            return
        for source, target, late in ways:
            if source in readable:
                _take(source, late, delay)
            _pass_on(target, late)


def _open(interface: str) -> socket.socket:
    # Bound to no protocol first: what comes before all options are set would lack its header.
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setblocking(False)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    end.bind((interface, ETH_P_ALL))
    return end


def _take(source: socket.socket, late: Late, delay: float) -> None:
    """Queue the frames that arrived; an interface that is down reports an error once, and has no frames."""
    with contextlib.suppress(OSError):
        for _ in range(BATCH):
            late.append((time.monotonic() + delay, source.recv(LARGEST)))


def _pass_on(target: socket.socket, late: Late) -> None:
    """Send the frames that are due; they are lost when the other end is down."""
    now = time.monotonic()
    while late and late[0][0] <= now:
        with contextlib.suppress(OSError):
            target.send(late.popleft()[1])


if __name__ == "__main__":
    relay(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000)
