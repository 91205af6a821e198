"""A client that asks without pause, and remembers what it got."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from tests.rig.settings import API_KEY

TIMEOUT_S = 60.0
PAUSE_S = 0.1


@dataclass(slots=True)
class Answer:
    """What one question got; times are time.monotonic()."""

    asked: float
    came: float
    what: str
    """"ok", or what else, in few words."""
    retry_after: str | None = None


@dataclass(slots=True)
class Client:
    """Asks one question again and again, each on a connection of its own, until it is stopped."""

    url: str
    model: str
    answers: list[Answer] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread:
            self._thread.join(TIMEOUT_S + 10)

    def _run(self) -> None:
        while not self._over.is_set():
            self.answers.append(self.ask())
            self._over.wait(PAUSE_S)

    def ask(self) -> Answer:
        """Whether the model still knows the capital of France."""
        body = {"model": self.model, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0}
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/completions", data=json.dumps(body).encode(), headers=headers)
        asked = time.monotonic()
        retry_after = None
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                text = json.load(reply)["choices"][0]["text"]
                what = "ok" if "Paris" in text else f"wrong answer {text!r}"
        except urllib.error.HTTPError as error:
            error.close()
            what, retry_after = f"HTTP {error.code}", error.headers.get("Retry-After")
        except TimeoutError:
            what = f"nothing for {TIMEOUT_S:.0f} s"
        except OSError as error:
            reason = getattr(error, "reason", error)
            what = "nothing for 60 s" if isinstance(reason, TimeoutError) else type(reason).__name__
        return Answer(asked, time.monotonic(), what, retry_after)

    def since(self, moment: float) -> list[Answer]:
        """Those that came after it."""
        return [answer for answer in list(self.answers) if answer.came >= moment]

    def last_good(self) -> float:
        """When the last correct answer came; 0 for never."""
        return next((answer.came for answer in reversed(list(self.answers)) if answer.what == "ok"), 0.0)


def errors(answers: list[Answer]) -> str:
    """As in "3 HTTP 500, 210 HTTP 503"."""
    counted = Counter(answer.what for answer in answers if answer.what != "ok")
    return ", ".join(f"{number} {what}" for what, number in counted.most_common()) or "none"


def longest_gap(answers: list[Answer], begin: float, end: float) -> float:
    """Seconds between two correct answers, the longest time in that span."""
    moments = [begin, *(answer.came for answer in answers if answer.what == "ok" and begin <= answer.came <= end), end]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))
