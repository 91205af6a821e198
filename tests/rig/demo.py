"""What scripts/demo shows: the two commands on two hosts, and a question."""

from __future__ import annotations

import subprocess
import sys
import threading

from openai import OpenAI

from tests.rig import hosts
from tests.rig.settings import ENGINE_FLAGS, base_settings

QUESTION = "What is the capital of France?"


def main(keep: bool) -> int:
    """Bring the hosts up, run the commands as a user would, ask, and take everything down unless told to keep it."""
    rig = hosts.start(2)
    try:
        return show(rig)
    finally:
        if keep:
            for host in rig.hosts:
                print(f"host {host.number}: {host.address}, DOCKER_HOST={host.docker_host}")
            print("take it down with: scripts/demo, which starts anew and ends clean")
        else:
            rig.stop()


def show(rig: hosts.Rig) -> int:
    """The two commands at the same time, then the question."""
    settings = base_settings(rig)
    results: dict[int, int] = {}

    def up(number: int, *argv: str) -> None:
        results[number] = user(rig, number, settings, "up", "--role", *argv)

    head = rig.host(1).address
    threads = [
        threading.Thread(target=up, args=(1, "head", *ENGINE_FLAGS)),
        threading.Thread(target=up, args=(2, "worker", "--head-ip", head)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(results.values()):
        return 1
    print(f"\n> {QUESTION}")
    with OpenAI(base_url=f"http://{head}:8000/v1", api_key="none") as client:
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=30,
            temperature=0,
            stream=True,
        )
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print("\n")
    return user(rig, 1, settings, "status")


def user(rig: hosts.Rig, number: int, settings: dict[str, str], *argv: str) -> int:
    """A command in a user's folder on a host, every line of it marked with the host."""
    host = rig.host(number)
    folder = hosts.RUN_FOLDER / f"user-{number}"
    folder.mkdir(exist_ok=True)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    print(f"host {number}$ vllmray {' '.join(argv)}", flush=True)
    process = host.start_vllmray(*argv, cwd=folder, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    for line in process.stdout:
        print(f"host {number} | {line}", end="", flush=True)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(keep="--keep" in sys.argv[1:]))
