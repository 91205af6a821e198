"""An answer is stopped when it goes round in a circle, or past its bound, and not before."""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator, Iterable

import pytest

from vllmray.endpoint.limits import LEAST, LONGEST, TIMES, Repeats, limited


def answer(pieces: Iterable[str], reason: str | None = "stop") -> Generator[str, None, str | None]:
    yield from pieces
    return reason


def tokens(text: str) -> list[str]:
    """In pieces of one to six characters, as tokens are."""
    sizes, at = random.Random(1), 0
    found = []
    while at < len(text):
        size = sizes.randint(1, 6)
        found.append(text[at : at + size])
        at += size
    return found


def said(pieces: Iterable[str], most: int | None = None, reason: str | None = "stop") -> tuple[str, list[str]]:
    """What is let through, and why it was cut."""
    why: list[str] = []
    return "".join(limited(answer(pieces, reason), most=most, cut=why.append)), why


WORDS = random.Random(2)
UNLIKE = " ".join("".join(WORDS.choices("abcdefghij", k=WORDS.randint(2, 9))) for _ in range(1000))


@pytest.mark.parametrize(
    "passage",
    [
        "La femme de France, le capital de la femme de France, le paysage de la femme de France. ",
        "ha",
        "\n",
        "Step: do it again.\n",
        UNLIKE[:LONGEST],
    ],
)
@pytest.mark.parametrize("start", ["", "First, an answer that is one. "])
def test_a_passage_again_and_again_is_stopped_soon(passage: str, start: str) -> None:
    text, why = said(itertools.chain(tokens(start), itertools.cycle(tokens(passage))))
    assert why == ["the answer repeats itself"]
    assert text.startswith(start + passage)
    assert len(text) - len(start) <= max(LEAST, TIMES * len(passage)) + 30


@pytest.mark.parametrize(
    "text",
    [
        UNLIKE,
        "-" * 200,
        "| a | b | c |\n|---|---|---|\n" + "".join(f"| {n} | {n * n} | {n**3} |\n" for n in range(50)),
        ", ".join(str(number) for number in range(300)),
        "".join(f"{n}. The same words again, but for the number.\n" for n in range(30)),
        "We shall go on to the end. " * (TIMES - 1) + UNLIKE[:400],
        "".join(f"    self.{name} = {name}\n" for name in UNLIKE.split()[:40]),
        "Row, row, row your boat, gently down the stream, merrily, merrily, merrily, merrily, life is but a dream. "
        * 3,
    ],
    ids=["words", "a line", "a table", "numbers", "a list", "three times", "code", "a song"],
)
def test_what_only_looks_like_it_is_whole(text: str) -> None:
    assert said(tokens(text)) == (text, [])


def test_past_its_bound_an_answer_is_stopped_and_the_option_named() -> None:
    text, why = said((f"w{number} " for number in itertools.count()), most=5)
    assert text == "w0 w1 w2 w3 w4 "
    assert why == ["the answer has 5 tokens (--max-tokens N allows more)"]


def test_reasoning_that_is_not_seen_is_no_part_of_the_answers_bound_and_has_an_end_too() -> None:
    assert said(itertools.chain([""] * 79, ["a", "b"]), most=5) == ("ab", [])
    text, why = said(itertools.chain(["a"], itertools.repeat("")), most=5)
    assert text == "a"
    assert why == ["80 tokens of reasoning without an answer (--max-tokens N allows more)"]


def test_one_that_the_server_cut_is_said_to_be() -> None:
    text, why = said(["a", "b"], reason="length")
    assert text == "ab"
    assert len(why) == 1
    assert "--max-tokens" in why[0]


def test_what_is_stopped_is_closed_so_that_the_server_makes_no_more() -> None:
    closed: list[bool] = []

    def endless() -> Generator[str, None, str | None]:
        try:
            while True:
                yield "a"
        finally:
            closed.append(True)

    assert "".join(limited(endless(), most=3, cut=lambda _why: None)) == "aaa"
    assert closed == [True]


def test_looking_costs_little_however_long_the_answer() -> None:
    import time

    repeats, pieces = Repeats(), tokens(UNLIKE * 3)
    began = time.process_time()
    for piece in pieces:
        repeats.add(piece)
    assert (time.process_time() - began) / len(pieces) < 0.001
