"""9: a GPU that another program fills, as `up` finds it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gpu.engine import DUMMY
from tests.gpu.machine import GIB
from tests.gpu.places import Place
from tests.gpu.results import Row
from tests.gpu.setting import Setting, nothing_left

FILL = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
block = torch.empty(free - 4 * 2**30, dtype=torch.uint8, device="cuda")
print("full", flush=True)
sys.stdin.read()
"""
SOON_S = 10.0
"""Far below the 85 s that vLLM needed to find it out, on the first H200 that was full."""


def full_gpu(setting: Setting, place: Place) -> list[Row]:
    """A refusal within seconds, with the program's number, before anything is started."""
    row = Row(f"9 {place.name}", f"a GPU that another program fills, {place.name}")
    model = str(setting.model(setting.small))
    with _filled(setting.python) as pid:
        for role in (("head", *setting.one_host.argv), ("worker", "--head-ip", place.settings["VLLMRAY_NODE_IP"])):
            done = place.vllmray("up", "--role", *role, "--model", model, *_rest(role[0], place))
            row.must(done.code == 3, f"{role[0]}: exit code {done.code}: {' / '.join(done.stderr.splitlines()[-4:])}")
            row.must(done.seconds < SOON_S, f"{role[0]}: it took {done.seconds:.1f} s")
            row.must(f"pid {pid}, user " in done.stderr, f"{role[0]}: the program is not named: {done.stderr}")
            row.saw(f"{role[0]}: exit code {done.code} after {done.seconds:.1f} s, {_named(done.stderr)}")
    row.must(place.vllmray("down").code == 0, "down failed")
    nothing_left(setting, row)
    return [row]


def _rest(role: str, place: Place) -> tuple[str, ...]:
    if role == "head":
        return ("--", *DUMMY)
    token = place.folder / "some-token"
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef" * 4)
    return ("--token-file", str(token))


@contextmanager
def _filled(python: str) -> Iterator[int]:
    """The first GPU, all but 4 GiB of it, by a process whose number is given."""
    with subprocess.Popen([python, "-c", FILL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "full\n":
            raise RuntimeError(f"{4 * GIB} bytes of a GPU were to be left, and the program that fills it ended")
        try:
            yield process.pid
        finally:
            process.stdin.close()


def _named(said: str) -> str:
    found = re.search(r"pid \d+, user .*", said)
    return found[0].strip() if found else "no program named"
