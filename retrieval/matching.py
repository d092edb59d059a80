"""Whether a text contains an answer, as DPR counts it (arxiv.org/abs/2004.04906).

Both are made sequences of tokens: runs of letters, digits and marks, and every other visible sign
alone, in lower case and Unicode NFD. An answer is contained when its tokens stand in the text one
behind another: "July 5 , 2018" in "July 5, 2018", but not "art" in "party".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

_SEPARATORS = "CZ"  # first letters of the categories of what no token is made of


def tokens(text: str) -> list[str]:
    """The tokens of a text."""
    found: list[str] = _pattern().findall(unicodedata.normalize("NFD", text).lower())
    return found


def contains(text: list[str], answer: list[str]) -> bool:
    """Whether the tokens of `answer` stand in those of `text`; an empty answer nowhere."""
    if not answer:
        return False
    first, n = answer[0], len(answer)
    return any(
        token == first and text[i : i + n] == answer
        for i, token in enumerate(text[: len(text) - n + 1])
    )


def contains_any(text: str, answers: Iterable[str]) -> bool:
    """Whether one of the answers is in the text."""
    found = tokens(text)
    return any(contains(found, tokens(answer)) for answer in answers)


@cache
def _pattern() -> re.Pattern[str]:
    """Runs of word characters with their marks (which `\\w` lacks), or one other visible sign."""
    marks, separators = [], []
    for code in range(0x3000):  # beyond lie scripts without such marks, which `\\w` has
        category = unicodedata.category(chr(code))
        if category[0] == "M":
            marks.append(chr(code))
        elif category[0] in _SEPARATORS:
            separators.append(chr(code))
    word = rf"(?:[^\W_]|[{re.escape(''.join(marks))}])+"
    return re.compile(rf"{word}|[^\s{re.escape(''.join(separators))}]")
