"""A TCP proxy that breaks connections off in the middle, to stand before a registry.

    python cutting_proxy.py LISTEN_PORT TARGET_PORT BYTES TIMES

On loopback. A connection is reset once it has carried BYTES to the client, TIMES times in all; prints a line when it
listens and one for each cut. Only the standard library: it runs in a rig host's network, by whatever Python is there.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading


def serve(listen: int, target: int, limit: int, times: int) -> None:
    """Serve until it is killed."""
    cuts = iter(range(times))
    with socket.create_server(("127.0.0.1", listen)) as server:
        print("listening", flush=True)
        while True:
            client, _ = server.accept()
            upstream = socket.create_connection(("127.0.0.1", target))
            threading.Thread(target=_upwards, args=(client, upstream), daemon=True).start()
            threading.Thread(target=_downwards, args=(upstream, client, limit, cuts), daemon=True).start()


def _upwards(client: socket.socket, upstream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)


def _downwards(upstream: socket.socket, client: socket.socket, limit: int, cuts: object) -> None:
    carried = 0
    with contextlib.suppress(OSError), upstream, client:
        while data := upstream.recv(65536):
            client.sendall(data)
            carried += len(data)
            if carried > limit and next(cuts, None) is not None:  # type: ignore[call-overload]
                # Linger of no seconds: close sends a reset; and the other thread must not be waiting for more.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RD)
                print("cut", flush=True)
                return


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
