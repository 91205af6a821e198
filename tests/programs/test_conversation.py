"""`vllmray chat` at a real terminal, with a server of ours behind a cluster of the tests' own programs."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.programs.test_interrupt import CTRL_C, Terminal, wait_for
from tests.programs.test_token import HEAD_IP, User, user

__all__ = ["user"]  # pytest takes it for this file's too
CTRL_D = b"\x04"


class Model(BaseHTTPRequestHandler):
    """Answers as it is asked to: "silent", "endless", "many" at once, "circle", or "so: " and the last message."""

    server: Server

    def do_GET(self) -> None:
        self._head("application/json")
        model = {"id": "small", "object": "model", "created": 1, "owned_by": "us"}
        self.wfile.write(json.dumps({"object": "list", "data": [model]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        said = asked["messages"][-1]["content"]
        words = {
            "silent": iter(()),
            "endless": paced(0),
            "many": paced(650),
            "circle": itertools.cycle(("round ", "and ")),
        }.get(said, iter((f"so: {said}",)))
        if said == "silent":
            self.server.released.wait(30)
        with suppress(OSError):  # the client has heard enough
            self._head("text/event-stream")
            for word in words:
                self._event({"content": word}, None)
            self._event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
            return
        self.server.left.append(said)

    def _head(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def _event(self, delta: dict[str, str], reason: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "small", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass


def paced(at_once: int) -> Iterator[str]:
    """Words without end, so many of them at once, and then with time between in which a terminal is still."""
    for number in itertools.count():
        if number >= at_once:
            time.sleep(0.05)
        yield f"w{number} "


class Server(ThreadingHTTPServer):
    daemon_threads = True
    asked: list[dict[str, Any]]
    left: list[str]
    released: threading.Event


@pytest.fixture
def server(user: User) -> Iterator[Server]:
    user.head()
    for program in (user.home / "bin").iterdir():  # what the engine said before it was started counts for nothing
        program.write_text(program.read_text().replace('"since": 1.0', f'"since": {time.time() + 60}'))
    with Server((HEAD_IP, user.port), Model) as made:
        made.asked, made.left, made.released = [], [], threading.Event()
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.released.set()
        made.shutdown()


class Chat(Terminal):
    """A conversation, from its first prompt on."""

    def __init__(self, user: User, *argv: str) -> None:
        super().__init__(f"unix://{user.home}/no.sock", user.home, "chat", "--cluster", "lab", *argv)

    def shows(self, text: str, times: int = 1) -> None:
        wait_for(lambda: self.said.decode(errors="replace").count(text) >= times, self, 40)


@pytest.fixture
def chat(user: User, server: Server) -> Iterator[Chat]:
    made = Chat(user)
    try:
        made.shows("> ")
        yield made
    finally:
        made.close()


def test_ctrl_c_ends_what_is_under_way_and_never_the_conversation(chat: Chat, server: Server) -> None:
    # At the prompt, with something typed.
    chat.type(b"never sent")
    chat.shows("never sent")
    chat.type(CTRL_C)
    chat.shows("exit with Ctrl-D", 2)
    # Before the first token.
    chat.type(b"silent\n")
    wait_for(lambda: len(server.asked) == 1, chat)
    chat.type(CTRL_C)
    chat.shows("> ", 3)
    # In the middle of an answer.
    chat.type(b"endless\n")
    chat.shows("w5 ")
    chat.type(CTRL_C)
    chat.shows("> ", 4)
    wait_for(lambda: server.left == ["endless"], chat)
    chat.type(b"hello\n")
    chat.shows("so: hello")
    chat.type(CTRL_D)
    assert chat.end(10) == 0
    assert b"Traceback" not in chat.said
    # A question that nothing was said to is not asked again; one whose answer was cut stands with what there is of it.
    turns = server.asked[-1]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [turns[0]["content"], turns[2]["content"]] == ["endless", "hello"]
    assert turns[1]["content"].startswith("w0 w1 ")


def test_an_answer_without_end_is_stopped_in_a_conversation_that_goes_on(chat: Chat, server: Server) -> None:
    chat.type(b"circle\n")
    chat.shows("stopped: the answer repeats itself")
    chat.type(b"many\n")
    chat.shows("stopped: the answer has 512 tokens (--max-tokens N allows more)")
    assert b"w511 " in chat.said
    assert b"w512 " not in chat.said
    wait_for(lambda: server.left == ["circle", "many"], chat)
    chat.type(b"hello\n")
    chat.shows("so: hello")
    assert [asked.get("max_tokens") for asked in server.asked] == [None] * 3


@pytest.mark.parametrize("said", ["silent", "many"])
def test_ctrl_c_ends_a_single_question_with_130(user: User, server: Server, said: str) -> None:
    one = Chat(user, "--max-tokens", "9999", said)
    try:
        wait_for(lambda: len(server.asked) == 1, one)
        assert server.asked[0]["max_tokens"] == 9999
        if said == "many":
            one.shows("w600 ")  # a bound that was given is the server's to keep
        one.type(CTRL_C)
        assert one.end(10) == 130
    finally:
        one.close()
    assert b"error: interrupted" in one.said
    assert b"Traceback" not in one.said


def test_what_was_stopped_is_said_beside_the_answer_and_not_in_it(user: User, server: Server) -> None:
    said = user.vllmray("chat", "--cluster", "lab", "circle")
    answer, _, why = said.rstrip("\n").rpartition("\n")
    assert why == "stopped: the answer repeats itself"
    assert set(answer.split()) == {"round", "and"}
