"""The main process of the engine container: import vLLM, wait for the GPUs, serve.

Standard library plus the container's own vLLM; copied into the container beside watch.py, which it starts to see Ray.

The import takes tens of seconds and goes on while the cluster forms. Then this process waits until watch.py says that
the GPUs suffice, and becomes the vLLM server. Docker's restart policy runs all of it again when the engine ends, so
the same gate holds after every failure: an engine never starts on a cluster too small for it.

What it is doing stands in a JSON file that the head container sees too (both mount the same /tmp/ray):
`{"phase": str, "detail": str, "since": unix seconds, "heartbeat": seconds since the boot, "ray": snapshot}`,
with the phases importing, waiting, starting and ready. Ready means that a completion of one token was answered: vLLM's
/health says 200 on engines whose first completion then kills them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

# The server's main() since vLLM 0.26 or so; before, the module below it was the server itself.
SERVER_MODULE = "vllm.entrypoints.launchers.api_server.entry"
OLD_SERVER_MODULE = "vllm.entrypoints.openai.api_server"

BEAT_S = 2.0
COMPLETION_TIMEOUT_S = 300.0


class State:
    """The state file, written whole at each change so that a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)

    def phase(self, phase: str, detail: str = "") -> None:
        """Enter a phase; `since` moves only when the phase does."""
        since = self._values.get("since") if self._values.get("phase") == phase else time.time()
        self.set(phase=phase, detail=detail, since=since)

    def set(self, **values: Any) -> None:
        with self._lock:
            self._values.update(values, heartbeat=time.clock_gettime(time.CLOCK_BOOTTIME))
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._values))
            new.replace(self._path)

    @property
    def current(self) -> str:
        return str(self._values.get("phase"))


class Gate:
    """Opens when watch.py first says that the GPUs suffice; goes on copying what it sees into the state file."""

    def __init__(self, state: State, watch: subprocess.Popen[str]) -> None:
        self._state = state
        self._watch = watch
        self._open = threading.Event()
        self._ended = threading.Event()
        self._waiting_for = "the first answer of Ray"
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        lines: IO[str] = self._watch.stdout  # type: ignore[assignment]  # Popen was given a pipe
        for line in lines:
            try:
                seen = json.loads(line)
                self._waiting_for = seen.get("error") or seen["shortfall"]
            except (ValueError, LookupError):
                continue  # something that Ray printed there, and none of watch.py's lines
            self._state.set(ray=seen)
            if self._state.current == "waiting":
                self._state.phase("waiting", self._waiting_for)
            if not self._waiting_for:
                self._open.set()
        self._ended.set()

    def wait(self) -> None:
        """Returns when the GPUs are there; raises RuntimeError when watch.py ended before that."""
        self._state.phase("waiting", self._waiting_for)
        while not self._open.wait(0.5):
            if self._ended.is_set():
                raise RuntimeError(f"watch.py ended with exit code {self._watch.wait()}")


def start_watch(address: str, gate: str) -> subprocess.Popen[str]:
    """watch.py as a child that ends with this process: its standard input is a pipe that only we hold."""
    script = Path(__file__).with_name("watch.py")
    argv = [sys.executable, str(script), "--address", address, "--gate", gate, "--beat", str(BEAT_S), "--stdin"]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Endpoint:
    """This container's own server, spoken to as any client would."""

    def __init__(self, port: int, vllm_args: list[str]) -> None:
        tls = any(arg.split("=")[0] == "--ssl-certfile" for arg in vllm_args)
        self._base = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._key = api_key()

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self._base + path, data=data, headers=headers)
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # it is ourselves, on loopback
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        with opener.open(request, timeout=COMPLETION_TIMEOUT_S) as reply:
            return json.load(reply)

    def complete_one_token(self) -> None:
        """One token from the served model; a model that has no completions need only be listed.

        Raises:
            OSError: no answer, or an HTTP error other than that the route does not exist.
        """
        model = self._call("/v1/models")["data"][0]["id"]
        try:
            self._call("/v1/completions", {"model": model, "prompt": "1", "max_tokens": 1})
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise


def api_key() -> str | None:
    """A key that the server will accept (guard.py reads the same file); None where it asks for none."""
    try:
        return (Path(__file__).parent / "secrets/api_key").read_text().splitlines()[0]
    except FileNotFoundError:
        return None


def announce_readiness(state: State, endpoint: Endpoint) -> None:
    """Ask for one token until it comes, then say ready. Runs beside the server for as long as that takes."""
    while True:
        try:
            endpoint.complete_one_token()
            state.phase("ready")
            return
        except (OSError, ValueError, LookupError) as error:
            refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            state.phase("starting", "loading the model" if refused else f"the first completion: {error}")
        time.sleep(0.5)


def import_server() -> Any:
    """VLLM's server module: the import is the slow part, and serve() below starts it."""
    try:
        return importlib.import_module(SERVER_MODULE)
    except ModuleNotFoundError as error:
        if error.name is None or not SERVER_MODULE.startswith(error.name):
            raise
        return importlib.import_module(OLD_SERVER_MODULE)


def serve(server: Any, vllm_args: list[str]) -> None:
    """VLLM's server in this process, as if started by its own command line; returns when it ends."""
    sys.argv = ["vllm", *vllm_args]
    if hasattr(server, "main"):
        server.main()
    else:
        import runpy

        runpy.run_module(OLD_SERVER_MODULE, run_name="__main__", alter_sys=True)


def main(argv: list[str]) -> None:
    """Import, wait, serve; returns when the server ends."""
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--address", required=True, help="HOST:PORT of Ray's GCS")
    parser.add_argument("--gate", required=True, help="JSON: the keyword arguments of watch.py's shortfall()")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("vllm_args", nargs="*")
    options = parser.parse_args(argv)
    state = State(options.state)
    state.phase("importing", "importing vLLM")
    gate = Gate(state, start_watch(options.address, options.gate))
    server = import_server()
    gate.wait()
    state.phase("starting", "loading the model")
    endpoint = Endpoint(options.port, options.vllm_args)
    threading.Thread(target=announce_readiness, args=(state, endpoint), daemon=True).start()
    serve(server, options.vllm_args)


if __name__ == "__main__":
    main(sys.argv[1:])
