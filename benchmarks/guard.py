"""What the key check and the allow-list cost a request, on a real vLLM server. Prints a table; no root.

    .venv/bin/python -m benchmarks.guard      after scripts/test has made .venv-cpu; about five minutes

One server, with a middleware that sends a request past the guard when a header says so: requests with and without the
guard take turns within the same second, so that the machine's drift is in both. The model is a tiny one with random
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
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PYTHON = REPOSITORY / ".venv-cpu/bin/python"
KEY = "sk-a-key-of-the-usual-length-0123456789abcdef0123456789abcdef"
PAST = "x-past-the-guard"
STREAM_TOKENS = 1000
BOUND_MS = 0.3
BOUND_RATIO = 1.01

BOTH = f"""
from vllmray_guard import Guard

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


@dataclass(slots=True)
class Figures:
    """Of one way: milliseconds of each request, and seconds that each round took."""

    latencies: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """A vLLM server of the tiny model with both ways in; yields its port."""
    (folder / "model").mkdir()
    subprocess.run([PYTHON, "-c", MODEL, str(folder / "model")], check=True)
    (folder / "vllmray_guard.py").write_text((REPOSITORY / "src/vllmray/engine/guard.py").read_text())
    (folder / "both.py").write_text(BOTH)
    (folder / "secrets").mkdir()
    (folder / "secrets/api_key").write_text(KEY)
    (folder / "secrets/scrape_token").write_text(KEY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PYTHONPATH": str(folder),
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


async def turn(port: int, clients: int, each: int, tokens: int, figures: Figures, *, guarded: bool) -> None:
    async def client() -> None:
        for _ in range(each):
            figures.latencies.append(await request(port, guarded=guarded, tokens=tokens))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    figures.rounds.append(time.perf_counter() - began)


def measure(port: int, what: str, *, clients: int, each: int, tokens: int, rounds: int) -> bool:
    """Both ways in turn, in either order; prints a line of the table."""
    ways = {True: Figures(), False: Figures()}
    for number in range(rounds + 1):
        for way in (True, False) if number % 2 else (False, True):
            figures = ways[way] if number else Figures()  # the first round warms up
            asyncio.run(turn(port, clients, each, tokens, figures, guarded=way))
    guarded, bare = ways[True], ways[False]
    with_it, without = statistics.median(guarded.latencies), statistics.median(bare.latencies)
    # Of the pairs of neighbouring rounds, the median: what one round of the two lost to something else is left out.
    throughput = statistics.median(b / a for a, b in zip(guarded.rounds, bare.rounds, strict=True))
    added, ratio = with_it - without, with_it / without
    holds = (added < BOUND_MS or clients > 1) and ratio <= BOUND_RATIO and throughput >= 1 / BOUND_RATIO
    print(
        f"| {what} | {clients} | {with_it:.2f} | {without:.2f} | {added:+.2f} | {ratio:.4f} | {throughput:.4f} "
        f"| {'yes' if holds else 'NO'} |",
        flush=True,
    )
    return holds


def alone() -> float:
    """Microseconds that the guard takes of a request, without a server: the one figure that has no noise in it."""
    code = (
        "import timeit; from vllmray.engine.guard import Policy\n"
        f"policy = Policy(keys=[{KEY!r}])\n"
        f"headers = [(b'content-type', b'application/json'), (b'authorization', b'Bearer ' + {KEY!r}.encode())]\n"
        "scope = {'type': 'http', 'method': 'POST', 'path': '/v1/completions', 'headers': headers}\n"
        "print(min(timeit.repeat(lambda: policy.status(scope), number=20000, repeat=5)) / 20000 * 1e6)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """0 when every bound holds."""
    print(f"the guard alone: {alone():.1f} microseconds a request\n")
    print("| what | clients | ms with | ms without | added | ratio | throughput with : without | holds |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as port:
        held = [
            measure(port, "completion of 1 token", clients=1, each=50, tokens=1, rounds=20),
            measure(port, "completion of 1 token", clients=64, each=4, tokens=1, rounds=20),
            measure(port, f"stream of {STREAM_TOKENS} tokens", clients=1, each=1, tokens=STREAM_TOKENS, rounds=15),
            measure(port, f"stream of {STREAM_TOKENS} tokens", clients=64, each=1, tokens=STREAM_TOKENS, rounds=5),
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
