"""Runs on a host, in a short-lived container of the node's image: prints what a node will find there.

Standard library only; its argument is one JSON object, and it prints one. vllmray may also call `probe()` in its own
process, where that shares the host's network.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import socket
import struct
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in a container: the folder that holds vllmray's package
    sys.path[0] = str(Path(__file__).parents[3])

from vllmray.payload.probes.gpus import gpu_answer
from vllmray.payload.probes.meminfo import swap
from vllmray.payload.probes.rdma import rdma_ports
from vllmray.payload.protocol import CacheAccess

# Nothing is sent there: connecting a UDP socket only looks up the route. An address for documentation (RFC 5737).
_ANYWHERE = "198.51.100.1"
_SIOCGIFCONF = 0x8912
NOT_ALLOWED = (errno.EACCES, errno.EPERM)
_IFREQ = 40  # sizeof(struct ifreq) on 64-bit Linux


def addresses() -> dict[str, str]:
    """The host's IPv4 addresses, each with its interface (ioctl SIOCGIFCONF, man 7 netdevice)."""
    buffer = array.array("B", bytes(_IFREQ * 256))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        (used,) = struct.unpack_from("i", fcntl.ioctl(probe, _SIOCGIFCONF, request))
    raw = buffer.tobytes()[:used]
    entries = (raw[at : at + _IFREQ] for at in range(0, used, _IFREQ))
    return {socket.inet_ntoa(entry[20:24]): entry[:16].split(b"\0")[0].decode().split(":")[0] for entry in entries}


def source_address(towards: str | None) -> str | None:
    """The source address of packets to that host; without one, of packets to the default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards or _ANYWHERE, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def choose_address(towards: str | None, node_ip: str | None, interface: str | None) -> dict[str, Any]:
    """The node's address and interface: as given, the missing one by the other or by the route."""
    known = addresses()
    listed = ", ".join(f"{ip} ({name})" for ip, name in known.items())
    if node_ip is None and interface is not None:
        node_ip = next((ip for ip, name in known.items() if name == interface), None)
        if node_ip is None:
            return {"problem": f"no interface {interface} with an IPv4 address on this host; it has {listed}"}
    node_ip = node_ip or source_address(towards)
    if node_ip is None:
        return {"problem": f"no route to {towards or 'any host'}, so this host's address is unknown; it has {listed}"}
    if node_ip.startswith("127.") and "127.0.0.1" in known:
        known[node_ip] = known["127.0.0.1"]  # the whole of 127.0.0.0/8 is this machine's (RFC 1122, 3.2.1.3)
    if node_ip not in known:
        return {"problem": f"{node_ip} is not an address of this host; it has {listed}"}
    return {"node_ip": node_ip, "interface": interface or known[node_ip]}


def connect(address: str, port: int, wait: float) -> str:
    """Try until it accepts or the time is over: "open", "refused", "no answer", or the system's error."""
    deadline = time.monotonic() + wait
    while True:
        left = max(deadline - time.monotonic(), 0.1)
        try:
            socket.create_connection((address, port), timeout=left).close()
            return "open"
        except TimeoutError:
            seen = "no answer"
        except ConnectionRefusedError:
            seen = "refused"
        except OSError as error:
            seen = error.strerror or str(error)
        if time.monotonic() + 0.2 >= deadline:
            return seen
        time.sleep(0.2)


def taken(ports: dict[str, int]) -> dict[str, int]:
    """Those of the ports that are in use."""
    return {name: port for name, port in ports.items() if _bound(port) not in (None, *NOT_ALLOWED)}


def forbidden(ports: dict[str, int]) -> dict[str, int]:
    """Those of the ports that this user may not listen on, free or not (man 7 ip, ip_unprivileged_port_start)."""
    return {name: port for name, port in ports.items() if _bound(port) in NOT_ALLOWED}


def _bound(port: int) -> int | None:
    """Try to bind the port: None on success, else the errno."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            return error.errno or -1
    return None


def cache(folder: str) -> dict[str, Any]:
    """Whether this container's user may write into the model cache, and who that is; see protocol.CacheAccess."""
    path = Path(folder)
    readable = os.access(path, os.R_OK, effective_ids=True)
    return asdict(
        CacheAccess(
            writable=os.access(path, os.W_OK | os.X_OK, effective_ids=True),
            user=f"{os.getuid()}:{os.getgid()}",
            fresh=path.stat().st_uid == 0 and readable and not any(path.iterdir()),
        )
    )


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Answer what the request asks for; see protocol.HostAnswer for the fields."""
    answer = choose_address(request.get("towards"), request.get("node_ip"), request.get("interface"))
    answer["taken"] = taken(request.get("ports", {}))
    answer["forbidden"] = forbidden(request.get("ports", {}))
    answer |= gpu_answer(request)
    answer |= {"swap": swap(), "rdma": rdma_ports()}
    if "cache" in request:
        answer["cache"] = cache(request["cache"])
    if "connect" in request:
        host, port, wait = request["connect"]
        answer["connect"] = connect(host, port, wait)
    return answer


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(sys.argv[1]))))
