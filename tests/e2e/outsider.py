"""Runs in a container on a host that is no part of the cluster: speaks to what listens there, and prints what it got.

    python3 outsider.py '{"head": address, "ports": {address: [[service, port], …]}, "token": text}'

One JSON object: name of the attempt -> what came back. The token is the right one, for the attempts that show that the
others could have worked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

# One call of each service, without arguments (src/ray/protobuf/*.proto of ray 2.60).
CALLS = {
    "gcs": "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "node_manager": "/ray.rpc.NodeManagerService/GetNodeStats",
    "object_manager": "/ray.rpc.ObjectManagerService/Pull",
    "dashboard_agent_grpc": "/ray.rpc.ReporterService/GetTraceback",
    "worker": "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
}
WEB = {
    "dashboard": ("/", "/api/version", "/api/jobs/", "/api/v0/nodes", "/nodes?view=summary", "/logs/"),
    "dashboard_agent_listen": ("/", "/api/job_agent/jobs/", "/logs/", "/api/local_raylet_healthz"),
    "runtime_env_agent": ("/", "/get_or_create_runtime_env"),
}


def call(address: str, service: str, token: str | None) -> str:
    """The status that a gRPC call ends with, and "OK" when it was answered."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(CALLS[service], request_serializer=bytes, response_deserializer=bytes)
        try:
            ask(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def get(url: str, token: str | None, body: bytes | None = None) -> str:
    """The status of an HTTP request, or why there is none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data=body, headers=headers), timeout=10) as answer:
            return f"{answer.status} {answer.read(60)!r}"
    except urllib.error.HTTPError as error:
        error.close()
        return str(error.code)
    except OSError as error:
        return f"refused: {getattr(error, 'reason', error)}"


def run(argv: list[str], token: str | None) -> str:
    """A command of Ray's; "works: …" or "fails: …", with the end of its words."""
    env = {**os.environ, "RAY_AUTH_MODE": "token" if token else "disabled"}
    with tempfile.NamedTemporaryFile("w") as file:
        if token:
            file.write(token)
            file.flush()
            env["RAY_AUTH_TOKEN_PATH"] = file.name
        try:
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=90, check=False)
        except subprocess.TimeoutExpired:
            return "fails: no answer"
    text = done.stdout + done.stderr
    return f"{'works' if done.returncode == 0 else 'fails'}: {text[-3000:]}"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def main(head: str, ports: dict[str, list[tuple[str, int]]], token: str) -> dict[str, str]:
    """Every attempt, without a token, with a wrong one, and with the right one."""
    unknown = {service for listed in ports.values() for service, _ in listed} - CALLS.keys() - WEB.keys()
    if unknown:
        raise ValueError(f"no attempt is known here for {', '.join(sorted(unknown))}: add it to CALLS or WEB")
    said: dict[str, str] = {}
    marker = Path("/tmp/ran")
    submit = (
        "from ray.job_submission import JobSubmissionClient as C\n"
        f"print(C('http://{head}:8265').submit_job(entrypoint='touch {marker}'))"
    )
    driver = "import ray; ray.init(address={!r}); print(len(ray.nodes()), 'nodes')"
    commands = {
        "ray status": ["ray", "status", f"--address={head}:6379"],
        "ray job submit": python(submit),
        "ray.init": python(driver.format(f"{head}:6379")),
        "ray client": python(driver.format(f"ray://{head}:10001")),
    }
    for kind, given in (("none", None), ("wrong", "f" * 64), ("right", token)):
        for address, listed in ports.items():
            for service, port in listed:
                if service in CALLS:
                    said[f"{kind} {service} {address}:{port}"] = call(f"{address}:{port}", service, given)
                for path in WEB.get(service, ()):
                    body = b"{}" if "job_agent" in path or "get_or_create" in path else None
                    said[f"{kind} {service} {address}:{port}{path}"] = get(
                        f"http://{address}:{port}{path}", given, body
                    )
    # With the right token `ray status` alone: a driver on a host without a raylet would wait in vain.
    tries: list[tuple[str, str, str | None]] = [("none", name, None) for name in commands]
    tries += [("wrong", "ray status", "f" * 64), ("wrong", "ray.init", "f" * 64), ("right", "ray status", token)]
    with ThreadPoolExecutor(4) as pool:
        for (kind, name, _), words in zip(
            tries, pool.map(lambda each: run(commands[each[1]], each[2]), tries), strict=True
        ):
            said[f"{kind} {name}"] = words
    return said


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
