"""When to stop an answer that the model does not end: it repeats itself, or is longer than a limit; pure."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

TIMES = 4
"""A text repeats itself when a passage occurs this often in a row,"""
LEAST = 240
"""and all occurrences together have this many characters: a line of dashes, or a table's, has fewer."""
LONGEST = 1000
"""Characters of the longest passage that is looked for."""
ANCHOR = 24
"""Characters at the end whose previous occurrence is looked for; the distance is the passage's length."""
PLACES = 8
REASONING = 16
"""Models that reason do so in some thousand tokens, and then give a short answer."""


class Repeats:
    """Detects that a growing text repeats itself."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, piece: str) -> bool:
        """Add a piece; whether the text now ends in a repetition."""
        self._text = (self._text + piece)[-TIMES * LONGEST :]
        return any(self._ends_in(length) for length in self._distances())

    def _distances(self) -> Iterator[int]:
        """How far before its end the text has the same end, the nearest first."""
        text, anchor = self._text, self._text[-ANCHOR:]
        at = len(text) - len(anchor)
        for _ in range(PLACES):
            at = text.rfind(anchor, 0, at + len(anchor) - 1)
            if at < 0:
                return
            yield len(text) - len(anchor) - at

    def _ends_in(self, length: int) -> bool:
        """Whether the text ends in a passage of that length, repeated often enough."""
        whole = max(TIMES * length, LEAST)
        text = self._text
        return len(text) >= whole and text[-(whole - length) :] == text[-whole:-length]


def limited(
    answer: Generator[str, None, str | None], *, most: int | None, cut: Callable[[str], object]
) -> Iterator[str]:
    """The pieces of an answer, until it ends or is stopped.

    Args:
        answer: its value at the end is OpenAI's finish_reason.
        most: pieces, each a token or a few; of those without text, the model's reasoning, REASONING times as many.
        cut: called with the reason if the answer is cut.
    """
    repeats = Repeats()
    number = unseen = 0
    try:
        while True:
            try:
                piece = next(answer)
            except StopIteration as end:
                if end.value == "length":
                    cut("maximum length (--max-tokens) or end of the model's context reached")
                return
            if not piece:
                unseen += 1
                if most is not None and unseen >= REASONING * most:
                    cut(f"{unseen} tokens of reasoning without an answer (--max-tokens N allows more)")
                    return
                continue
            yield piece
            number += 1
            if repeats.add(piece):
                cut("the answer repeats itself")
                return
            if most is not None and number >= most:
                cut(f"the answer has {most} tokens (--max-tokens N allows more)")
                return
    finally:
        answer.close()
