"""vLLM itself, asked a line at a time."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.model import CPU_PYTHON

Ask = Callable[..., dict[str, Any]]
PROGRAM = Path(__file__).with_name("vllm_oracle.py")


@pytest.fixture(scope="module")
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """vLLM in a process of its own; a module's ORACLE_ARGUMENTS are the program's."""
    arguments = getattr(request.module, "ORACLE_ARGUMENTS", ())
    if not CPU_PYTHON.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("CI leaves nothing out, but there is no .venv-cpu here")
        pytest.skip("no .venv-cpu here: scripts/test makes it")
    with subprocess.Popen([str(CPU_PYTHON), str(PROGRAM), *arguments], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin
        assert process.stdout

        def answer(**request: Any) -> dict[str, Any]:
            print(json.dumps(request), file=process.stdin, flush=True)
            said: dict[str, Any] = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            return said

        yield answer
        process.stdin.close()
