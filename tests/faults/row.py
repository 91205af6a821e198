"""One fault, from a cluster that serves to one that serves again, and what was seen meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.faults.client import Client, errors, longest_gap
from tests.faults.cluster import Cluster, eventually
from tests.faults.faults import Fault

SETTLE_S = 15.0
"""Whatever is to break has broken by then: a frozen host is noticed after 9 s, a stall after twice the time set."""
HEAL_S = 400.0
LOOK_S = 4.0


@dataclass(slots=True)
class Row:
    """What was seen of one fault; times in seconds."""

    name: str
    errors: str = ""
    gap: float = 0.0
    """The longest between two correct answers."""
    healed: float | None = None
    """From the fault's end to the next correct answer that is not the last; None for never."""
    status: list[str] = field(default_factory=list)
    """What `status` said was wrong, each once."""
    events: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    by_hand: str = ""
    """The command that healed it where it can't heal by itself, and why it can't."""
    why: str = ""
    problems: list[str] = field(default_factory=list)
    """What is not as it must be; empty for a row that holds."""


def run(cluster: Cluster, fault: Fault) -> Row:
    """Inject it, wait until the cluster serves again, and look around."""
    row = Row(fault.name)
    assert eventually(cluster.serves, 60), f"the cluster did not serve before: {cluster.problem()}"
    client = cluster.client()
    before = cluster.traces()
    client.start()
    assert eventually(lambda: client.last_good() > 0, 30)
    watch = _StatusWatch(cluster, row)
    watch.start()
    began, clock = time.monotonic(), time.time()
    try:
        with fault.block(cluster):
            time.sleep(fault.lasts)
        over = time.monotonic()
        if fault.by_hand:
            time.sleep(SETTLE_S)
            number, argv = fault.by_hand
            row.why = fault.why
            done = cluster.vllmray(number, *argv)
            row.by_hand = "vllmray " + " ".join(argv[: argv.index("--")] if "--" in argv else argv)
            if done.returncode:
                row.problems.append(f"{row.by_hand}: {done.stdout}{done.stderr}")
        _wait_until_healed(cluster, client, row, over)
    finally:
        watch.stop()
        client.stop()
    answers = client.since(began)
    row.errors = errors(answers)
    row.gap = longest_gap(answers, began, max(client.last_good(), began))
    row.events = [f"{event['kind']}: {event['text']}" for event in cluster.events(clock - 1)]
    _judge(row, fault, client, cluster, before)
    return row


def _wait_until_healed(cluster: Cluster, client: Client, row: Row, over: float) -> None:
    """An outage may come late; so first for as long as it may take, then until answers are right and it is ready."""
    time.sleep(SETTLE_S)
    if not eventually(lambda: _steady(client) and cluster.serves(), HEAL_S):
        row.problems.append(f"not healed {HEAL_S:.0f} s after it: {cluster.problem()}")
        return
    bad = [answer.came for answer in client.since(over) if answer.what != "ok"]
    good = [answer.came for answer in client.since(max(bad, default=over)) if answer.what == "ok"]
    row.healed = (good[0] if good else time.monotonic()) - over if bad else 0.0


def _steady(client: Client) -> bool:
    """Five correct answers in a row, just now."""
    last = client.answers[-5:]
    return len(last) == 5 and all(answer.what == "ok" for answer in last) and time.monotonic() - last[-1].came < 5


def _judge(row: Row, fault: Fault, client: Client, cluster: Cluster, before: dict[str, int]) -> None:
    wrong = [answer.what for answer in client.answers if answer.what.startswith("wrong")]
    if wrong:
        row.problems.append(f"{len(wrong)} {wrong[0]}")
    if not fault.outage and row.gap > fault.lasts + 15:
        row.problems.append(f"no answer for {row.gap:.0f} s though the fault breaks nothing for good")
    late = [answer for answer in client.answers if answer.what.startswith("nothing for") and not fault.lasts]
    if late:
        row.problems.append("a request hung")
    for name, count in cluster.traces().items():
        had = before.get(name, 0)
        slack = 20 * 1024 if name.startswith("KiB") else 2 if name.startswith(("processes", "ports")) else 0
        if count > had + slack:
            row.leftovers.append(f"{name}: {had} → {count}")
    row.problems += [f"left over: {left}" for left in row.leftovers]


class _StatusWatch:
    """Asks `status` every few seconds, and keeps what it says is wrong."""

    def __init__(self, cluster: Cluster, row: Row) -> None:
        self._cluster = cluster
        self._row = row
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(90)

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            problem = self._cluster.problem()
            if problem and problem not in self._row.status:
                self._row.status.append(problem)
