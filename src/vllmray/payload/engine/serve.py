"""The vLLM server's process in the engine's container: imports vLLM, waits for launch.py, serves. launch.py starts it.

Standard library plus the container's own vLLM. The import takes tens of seconds, and so begins while the cluster still
forms; a line on standard input starts the server once the GPUs are available. It reports to launch.py through a pipe,
one word a line: "imported", and "listening" when the server listens.
"""

from __future__ import annotations

import argparse
import importlib
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in a container: not this folder, but the one from which vLLM imports the guard
    sys.path[0] = str(Path(__file__).parents[3])

# The server's main() since vLLM 0.26 or so; before, the module below it was the server itself.
SERVER_MODULE = "vllm.entrypoints.launchers.api_server.entry"
OLD_SERVER_MODULE = "vllm.entrypoints.openai.api_server"
LOOK_S = 0.1


def import_server() -> Any:
    """Import vLLM's server module, which is the slow part; serve() below starts it."""
    try:
        return importlib.import_module(SERVER_MODULE)
    except ModuleNotFoundError as error:
        if error.name is None or not SERVER_MODULE.startswith(error.name):
            raise
        return importlib.import_module(OLD_SERVER_MODULE)


def serve(server: Any, vllm_args: list[str]) -> None:
    """Run vLLM's server in this process, as if by its own command line; returns when it exits."""
    sys.argv = ["vllm", *vllm_args]
    if hasattr(server, "main"):
        server.main()
    else:
        import runpy

        runpy.run_module(OLD_SERVER_MODULE, run_name="__main__", alter_sys=True)


def share(port: int) -> None:
    """Let this process bind the port while another of this user listens there (socket(7), SO_REUSEPORT).

    door.py answers on it until the server listens. VLLM binds it at once but sets SO_REUSEPORT only where it has
    several API servers (vllm 0.32, vllm/entrypoints/launchers/launcher.py, create_server_socket).
    """
    bind = socket.socket.bind

    def sharing(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[1] == port:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bind(self, address)

    socket.socket.bind = sharing  # type: ignore[method-assign,assignment]


def listens(port: int) -> bool:
    """Whether this process has a socket that accepts connections there (socket(7), SO_ACCEPTCONN).

    VLLM binds its socket long before it listens, and uvloop listens without calling Python's socket module.
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError, ValueError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == port:
                    return True
    return False


def tell_when_it_listens(pipe: int, port: int) -> None:
    """Write "listening" to the pipe as soon as this process listens on the port."""

    def look() -> None:
        while not listens(port):
            time.sleep(LOOK_S)
        os.write(pipe, b"listening\n")

    threading.Thread(target=look, daemon=True).start()


def main(argv: list[str]) -> None:
    """Import, wait for the line on standard input, serve; returns when the server exits."""
    parser = argparse.ArgumentParser(prog="serve.py")
    parser.add_argument("--tell", type=int, required=True, help="file descriptor of the pipe")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("vllm_args", nargs="*")
    options = parser.parse_args(argv)
    os.set_inheritable(options.tell, False)  # noqa: FBT003  # the standard library's own
    server = import_server()
    os.write(options.tell, b"imported\n")
    if not os.read(0, 64):
        return  # launch.py is gone
    share(options.port)
    tell_when_it_listens(options.tell, options.port)
    serve(server, options.vllm_args)


if __name__ == "__main__":
    main(sys.argv[1:])
