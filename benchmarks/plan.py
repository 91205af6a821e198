"""How long `vllmray plan` takes on a model whose files are cached, and `up` to refuse one. Prints a table; no root.

    .venv/bin/python -m benchmarks.plan

Whole processes, medians of nine, beside a bare `python -c 'import typer, pydantic, rich'` in turn.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rig.hub import COMMIT, index, safetensors
from tests.rig.image import VLLMRAY

from benchmarks.cli import Row, seconds

ROUNDS = 9
MODELS = Path(__file__).parents[1] / "tests/data/models"
SHARDS = 30


def cached(folder: Path, name: str, model: str) -> None:
    """The model in the hub's cache, as a download leaves it, with small weights in as many files as a large one has."""
    repository = folder / f"models/hub/models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    shutil.copy(MODELS / f"{name}.json", snapshot / "config.json")
    shards = [f"model-{number:05}-of-{SHARDS:05}.safetensors" for number in range(1, SHARDS + 1)]
    for shard in shards:
        (snapshot / shard).write_bytes(safetensors(**{f"{shard}.{row}": (4, 4) for row in range(24)}))
    (snapshot / "model.safetensors.index.json").write_bytes(index(**{shard: shard for shard in shards}))


def run(folder: Path, *argv: str, expected: int) -> None:
    """The command, which must end with that exit code."""
    done = subprocess.run([str(VLLMRAY), *argv], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != expected:
        raise RuntimeError(f"vllmray {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def measure(folder: Path, what: str, argv: tuple[str, ...], *, expected: int, bound: float) -> Row:
    """One line of the table."""
    bare = [sys.executable, "-c", "import typer, pydantic, rich.console"]
    ours, theirs = [], []
    run(folder, *argv, expected=expected)
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: run(folder, *argv, expected=expected)))
        theirs.append(seconds(lambda: subprocess.run(bare, check=True)))
    a, b = statistics.median(ours), statistics.median(theirs)
    return Row(what, a, "import typer, pydantic, rich", b, f"at most {bound} s", a <= bound)


def main() -> int:
    """Measure, and print the table; 1 when a bound does not hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cached(folder, "llama-3.1-70b", "meta-llama/Llama-3.1-70B-Instruct")
        cached(folder, "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct")
        gpus = ("--gpus", "2x80GiB,2x80GiB")
        refused = ("--role", "head", "--model", "HuggingFaceTB/SmolLM2-135M-Instruct", "--tensor-parallel-size", "2")
        rows = [
            measure(folder, "plan, 30 cached shards", ("plan", *gpus), expected=0, bound=0.5),
            measure(folder, "up, sizes refused", ("up", *refused), expected=2, bound=1.0),
        ]
    print("| what | seconds | beside | seconds | ratio | bound | holds |\n|---|---|---|---|---|---|---|")
    print("\n".join(str(row) for row in rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
