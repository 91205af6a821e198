"""What docs/security.md says of nodes that are processes."""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from tests.native.conftest import NativeUser
from tests.native.test_killed import HEAD_FLAGS, wait_for
from tests.rig.model import CPU_PYTHON
from tests.rig.settings import ENGINE_FLAGS
from vllmray.ray.ports import METRICS, RayPorts

CALL = """
import grpc, sys
with grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
    ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
    metadata = [("authorization", "Bearer " + sys.argv[2])] if len(sys.argv) > 2 else []
    try:
        ask(b"", timeout=10, metadata=metadata)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
"""


def started(user: NativeUser) -> str:
    """A head whose engine waits for a second node; its token."""
    user.write_settings(HF_TOKEN="hf_not_a_real_token_but_a_secret")
    assert user.vllmray(*HEAD_FLAGS, "--no-wait", *ENGINE_FLAGS).returncode == 0
    wait_for(lambda: len(user.status()["nodes"]) == 1, "the head in Ray", 60)
    return user.vllmray("token").stdout.strip()


def processes(user: NativeUser) -> list[psutil.Process]:
    """Those of the head's node, by its mark, and what has a title over its environment by its session."""
    main = user.process("vllmray-head", "main")
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == os.getsid(main.pid):
                found.append(process)
    return found


def test_natively_the_same_ports_listen_and_ask_for_the_token(user: NativeUser) -> None:
    token = started(user)
    ports = {
        connection.laddr.port
        for process in processes(user)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    known = RayPorts()
    worker = range(known.min_worker, known.max_worker + 1)
    fixed = {port for name, port in known.single().items() if name not in METRICS}
    assert {port for port in ports if port not in worker} == fixed
    for given, outcome in (((), "UNAUTHENTICATED"), (("f" * 64,), "UNAUTHENTICATED"), ((token,), "OK")):
        argv = [str(CPU_PYTHON), "-c", CALL, f"127.0.0.1:{known.gcs}", *given]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
        assert said.strip() == outcome


def test_natively_nodes_have_the_users_own_rights_and_their_secrets_are_files_of_the_user(user: NativeUser) -> None:
    token = started(user)
    key = user.vllmray("key").stdout.strip()
    secrets = (token, key, "hf_not_a_real_token_but_a_secret")
    seen = ""
    for process in processes(user):
        assert process.uids().effective == os.geteuid()
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                seen += Path(f"/proc/{process.pid}/{name}").read_bytes().decode(errors="replace")
    assert "RAY_AUTH_MODE" in seen
    state = user.home / ".local/state/vllmray"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    kept = 0
    for path in state.rglob("*"):
        if path.is_file() and any(secret in path.read_text(errors="replace") for secret in secrets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert path.parent.name == "secrets" or path.parent.parent.name == "secrets", path
            kept += 1
    assert kept >= len(secrets)
    assert not [secret for secret in secrets if secret in seen]
