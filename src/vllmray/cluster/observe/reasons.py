"""Why a program ended, from the lines that it printed; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 200
"""Characters."""
COLOUR = re.compile("\x1b\\[[0-9;]*m")
"""Ray paints the beginning of a line that comes from another process."""
# What stands before it: Ray's and vLLM's names of processes, then a level, a time and a place of vLLM's log
# (vllm/logger.py): "(EngineCore pid=123) ERROR 11-25 08:00:00 [core.py:1] ". Other levels are no reason to end.
BEFORE = r"(?:\([^()]*\) ?)*(?:(?:ERROR|CRITICAL) \S+ \S+ \[[^\]]*\] )?"
NAME = r"(?:\w+\.)*(?:[A-Z]\w*)?(?:Error|Exception|Timeout|TimeoutExpired)(?:\(\w+\))?"
SAID = re.compile(rf"{BEFORE}((?:{NAME}|Fatal Python error)(?::\s.*)?)$")
# vLLM's own words where one process ends because of another's exception (vllm/v1/engine/utils.py, exceptions.py,
# vllm/v1/executor/multiproc_executor.py).
ELSEWHERE = re.compile(r"\bSee (?:root cause|stack trace)")


def reason(lines: Iterable[str]) -> str | None:
    """The last line that looks like an exception's, less what a log puts before it, in at most 200 characters.

    One that only says that the reason stands elsewhere is none.
    """
    found = None
    for line in lines:
        said = _exception(line)
        if said and not ELSEWHERE.search(said):
            found = said
    if found is None or len(found) <= LONGEST:
        return found
    return f"{found[: LONGEST - 1]}…"


def _exception(line: str) -> str | None:
    match = SAID.match(COLOUR.sub("", line).rstrip())
    return match[1] if match else None
