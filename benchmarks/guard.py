"""What the key check and the allow-list cost a request, on a real vLLM server. Prints a table; no root.

    .venv/bin/python -m benchmarks.guard      after scripts/test has made .venv-cpu; about eight minutes

One server, with a middleware that sends a request past the guard when a header says so: each client asks with and
without the guard in turn, so that the machine's drift is in both. The model is a tiny one with random
weights: the less it costs, the more the guard shows.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs.support import copy_payload

REPOSITORY = Path(__file__).parents[1]
PYTHON = REPOSITORY / ".venv-cpu/bin/python"
KEY = "sk-a-key-of-the-usual-length-0123456789abcdef0123456789abcdef"
PAST = "x-past-the-guard"
STREAM_TOKENS = 1000
BOUND_MS = 0.3
BOUND_RATIO = 1.01

BOTH = f"""
from vllmray.payload.engine.guard import Guard

class Both:
    def __init__(self, app):
        self.app, self.guard = app, Guard(app)

    async def __call__(self, scope, receive, send):
        past = scope["type"] == "http" and any(name == b"{PAST}" for name, _ in scope["headers"])
        await (self.app if past else self.guard)(scope, receive, send)
"""
MODEL = """
import sys
from pathlib import Path
from transformers import LlamaConfig
from tokenizers import Tokenizer, models, pre_tokenizers
folder = Path(sys.argv[1])
words = {f"w{number}": number for number in range(256)}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "w255"}')
LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=2048, architectures=["LlamaForCausalLM"],
).save_pretrained(folder)
"""


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """A vLLM server of the tiny model with both ways in; yields its port."""
    (folder / "model").mkdir()
    subprocess.run([PYTHON, "-c", MODEL, str(folder / "model")], check=True)
    copy_payload(folder)
    (folder / "both.py").write_text(BOTH)
    (folder / "secrets").mkdir()
    (folder / "secrets/api_key").write_text(KEY)
    (folder / "secrets/scrape_token").write_text(KEY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PYTHONPATH": f"{folder}:{folder}/site",
        "VLLMRAY_GUARD": json.dumps({"keyed": True, "allow_routes": []}),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    argv = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")),
        *("--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port), "--middleware", "both.Both"),
        *("--served-model-name", "tiny", "--max-num-seqs", "64", "--disable-uvicorn-access-log", "--enforce-eager"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + 300
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()[-4000:])
            time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


async def request(port: int, *, guarded: bool, tokens: int) -> float:
    """One completion, streamed to its end; milliseconds. By a bare socket: a library would cost more than a guard."""
    body = json.dumps(
        {"model": "tiny", "prompt": "w1 w2 w3", "max_tokens": tokens, "ignore_eos": True, "stream": tokens > 8}
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    head += f"Authorization: Bearer {KEY}\r\nConnection: close\r\n" + ("" if guarded else f"{PAST}: 1\r\n") + "\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    answer = await reader.read(-1)
    took = (time.perf_counter() - began) * 1000
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer[:300].decode())
    return took


async def client(port: int, first: int, pairs: int, tokens: int, took: dict[bool, list[float]]) -> None:
    """Requests with and without the guard in turn, so that whatever slows the machine slows both.

    Clients fall into step, so half of them begin with the one way and half with the other.
    """
    for number in range(first, first + pairs):
        for guarded in (True, False) if number % 2 else (False, True):
            took[guarded].append(await request(port, guarded=guarded, tokens=tokens))


async def together(port: int, clients: int, pairs: int, tokens: int) -> dict[bool, list[float]]:
    took: dict[bool, list[float]] = {True: [], False: []}
    await asyncio.gather(*(client(port, first, pairs, tokens, took) for first in range(clients)))
    return took


def measure(port: int, what: str, *, clients: int, pairs: int, tokens: int) -> bool:
    """One line of the table. A client waits for each answer, so its throughput is one by the mean of its latencies."""
    asyncio.run(together(port, clients, max(pairs // 10, 1), tokens))  # warms up
    took = asyncio.run(together(port, clients, pairs, tokens))
    with_it, without = statistics.median(took[True]), statistics.median(took[False])
    # How far the median would move by chance: that of the one half against that of the other, without the guard.
    half = took[False][::2], took[False][1::2]
    chance = abs(statistics.median(half[0]) - statistics.median(half[1]))
    added, ratio = with_it - without, with_it / without
    throughput = statistics.mean(took[False]) / statistics.mean(took[True])
    verdict = "yes" if added < BOUND_MS and ratio <= BOUND_RATIO else "not told from chance" if added < chance else "NO"
    print(
        f"| {what} | {clients} | {with_it:.2f} | {without:.2f} | {added:+.2f} | {chance:.2f} | {ratio:.4f} "
        f"| {throughput:.4f} | {verdict} |",
        flush=True,
    )
    return verdict != "NO"


def alone() -> float:
    """Microseconds that the guard takes of a request, without a server: the one figure that has no noise in it."""
    code = (
        "import timeit; from vllmray.payload.engine.guard import Policy\n"
        f"policy = Policy(keys=[{KEY!r}])\n"
        f"headers = [(b'content-type', b'application/json'), (b'authorization', b'Bearer ' + {KEY!r}.encode())]\n"
        "scope = {'type': 'http', 'method': 'POST', 'path': '/v1/completions', 'headers': headers}\n"
        "print(min(timeit.repeat(lambda: policy.status(scope), number=20000, repeat=5)) / 20000 * 1e6)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """0 when every bound holds."""
    print(f"the guard alone: {alone():.1f} microseconds a request\n")
    print("| what | clients | ms with | ms without | added | by chance | ratio | throughput with : without | holds |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as port:
        held = [
            measure(port, "completion of 1 token", clients=1, pairs=1500, tokens=1),
            measure(port, "completion of 1 token", clients=64, pairs=15, tokens=1),
            measure(port, f"stream of {STREAM_TOKENS} tokens", clients=1, pairs=20, tokens=STREAM_TOKENS),
            measure(port, f"stream of {STREAM_TOKENS} tokens", clients=64, pairs=2, tokens=STREAM_TOKENS),
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
