"""Holds each kind of daemon to the contract, runs clusters on them, and writes docs/support.md.

    python -m tests.support [KIND …]      only those kinds; the table keeps what it has of the others

Rows of other runs (scripts/test --pythons, --arm64) are read from build/support. A row that this run could not make is
in the table with the reason.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tests.rig.kinds import BY_NAME, DOCKER_20, DOCKER_28_CONTAINERD, PODMAN_5_8
from tests.support.rows import REPOSITORY, Row, counts, keep, kept

DOCUMENT = REPOSITORY / "docs/support.md"
CONTRACT = ("tests/contract", "-k", "docker and over and unix")
CENTRAL = ("tests/e2e/test_cluster.py",)
CLUSTERS = (
    (DOCKER_20, DOCKER_28_CONTAINERD, DOCKER_20),
    (PODMAN_5_8, PODMAN_5_8, PODMAN_5_8),
)
MARK = "<!-- rows: written by scripts/test --support -->\n"

TABLES = {"Daemons": ("daemons", "--support"), "Python": ("pythons", "--pythons"), "arm64": ("arm64", "--arm64")}
"""By title the name of the rows' file, and the option of scripts/test that makes them."""
CONTRACT_WORDS = "the contract of a host"
CLUSTER_WORDS = "a cluster of three hosts, PP=3: a right answer, nothing left"
Key = tuple[str, str]
"""Kind and what."""


def contract(name: str) -> Row:
    """One kind of daemon, held to what every host must do."""
    return _row(name, CONTRACT_WORDS, _pytest(("--kind", name, *CONTRACT)))


def cluster(names: tuple[str, ...]) -> Row:
    """A cluster whose hosts have these kinds of daemon: a right answer, and nothing left."""
    kinds = [argument for name in names for argument in ("--kind", name)]
    return _row(", ".join(names), CLUSTER_WORDS, _pytest((*kinds, *CENTRAL)))


def _pytest(arguments: Iterable[str]) -> tuple[int, str, float]:
    began = time.monotonic()
    argv = [sys.executable, "-m", "pytest", "-q", *arguments]
    print(f"$ pytest {' '.join(argv[3:])}", file=sys.stderr, flush=True)
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-6000:] + done.stderr[-2000:])
    return done.returncode, done.stdout, time.monotonic() - began


def _row(kind: str, what: str, ran: tuple[int, str, float]) -> Row:
    code, output, took = ran
    detail = f"{counts(output) or 'no test ran'}; {took / 60:.0f} min"
    return Row(kind, what, "failed" if code else "passed", detail)


def planned(chosen: list[str]) -> Iterator[tuple[Key, Callable[[], Row]]]:
    """What this run makes: each row's place in the table, and what makes it."""
    for name in chosen or BY_NAME:
        yield (name, CONTRACT_WORDS), partial(contract, name)
    for kinds in CLUSTERS:
        names = tuple(kind.name for kind in kinds)
        if not chosen or set(chosen) & set(names):
            yield (", ".join(names), CLUSTER_WORDS), partial(cluster, names)


def table() -> dict[Key, Row]:
    """Every row, as the last run that made it left it."""
    places = [(name, CONTRACT_WORDS) for name in BY_NAME]
    places += [(", ".join(kind.name for kind in kinds), CLUSTER_WORDS) for kinds in CLUSTERS]
    found = {(row.kind, row.what): row for row in kept("daemons")}
    return {place: found.get(place) or Row(*place, "not run", "") for place in places}


def document() -> str:
    """The page with every run's rows; what is above the mark is written by hand."""
    by_hand = DOCUMENT.read_text().partition(MARK)[0]
    lines = [f"Run on {time.strftime('%Y-%m-%d')}, Linux {platform.release().split('-')[0]}, {platform.machine()}.\n"]
    for title, (name, option) in TABLES.items():
        lines.append(f"## {title}\n")
        found = kept(name)
        if not found:
            lines.append(f"Not run here: `scripts/test {option}`.\n")
            continue
        lines += ["| on | what | result | |", "|---|---|---|---|"]
        lines += [f"| {row.kind} | {row.what} | {row.result} | {row.detail} |" for row in found]
        lines.append("")
    return by_hand + MARK + "\n" + "\n".join(lines).rstrip() + "\n"


def main(chosen: list[str]) -> int:
    """The exit code: whether every row of this run passed."""
    unknown = set(chosen) - set(BY_NAME)
    if unknown:
        sys.exit(f"no such kind: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    failed = False
    for place, make in planned(chosen):
        found = table()
        found[place] = row = make()
        failed = failed or row.result == "failed"
        keep("daemons", found.values())
        DOCUMENT.write_text(document())
        print(f"{row.result:8} {row.kind}: {row.what} ({row.detail})", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
