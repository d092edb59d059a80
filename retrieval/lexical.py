"""From any text to a query that FTS5 accepts: words only, each quoted, joined by OR.

FTS5 has a language of its own (AND, NEAR, column:, ^, *, quotes); a user's text must never be
read as one. A word here is what the tokenizer unicode61 calls a token: letters, digits and marks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

MAX_TERMS = 24

# Question words, auxiliaries, pronouns, prepositions and pieces of contractions: they say what is
# asked for, not about what, and each would make FTS5 walk through half of the collection.
STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being between both but
    by can could d did do does doing done for from had has have having he her hers him his how i if
    in into is it its just ll m many may me might more most much must my no nor not of off on one
    or other our out over own please re s same shall she should so some such t than that the
    their them then there these they this those through to too under until up us very was we
    were what when where which while who whom whose why will with would you your
    """.split()
)

# tried in this order
_ENDINGS = (
    *(("ations", "at"), ("ation", "at"), ("ings", ""), ("ing", ""), ("ies", "y"), ("ied", "y")),
    *(("ers", ""), ("er", ""), ("ed", ""), ("es", ""), ("ly", ""), ("s", ""), ("e", "")),
)
_MIN_STEM = 3

_ACCENT = re.compile("[\u0300-\u036f]")
_WORD = re.compile(r"[^\W_]+")
# scripts written without spaces: unicode61 makes one token of a whole run, so a prefix is asked for
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def plain(text: str) -> str:
    """`text` in lower case and without accents, as unicode61 compares it."""
    if not text.isascii():  # composed again at the end, or Korean syllables would stay in pieces
        text = unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", text)))
    return text.lower()


def words(text: str) -> list[str]:
    """The words of `text` in order, as `plain` writes them."""
    return _WORD.findall(plain(text))


def terms(text: str, limit: int = MAX_TERMS) -> list[str]:
    """The words of `text` that are worth searching for, each once, in order.

    Of more than `limit` the longest stay: length stands for rarity, which is not known here.
    """
    found = list(dict.fromkeys(word for word in words(text) if word not in STOP_WORDS))
    if len(found) > limit:
        kept = set(sorted(found, key=len, reverse=True)[:limit])
        found = [word for word in found if word in kept]
    return found


def match(text: str, limit: int = MAX_TERMS) -> str:
    """The FTS5 MATCH string for `text`; "" when no word is left to search for.

    A text of nothing but stop words ("The Who", "It") is looked for as a whole in titles.
    """
    found = terms(text, limit)
    if found:
        return " OR ".join(map(_quoted, found))
    rest = words(text)
    return f'title : "{" ".join(rest)}"' if 2 <= len(rest) <= 6 else ""


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The word without an English ending, so that "cities" meets "city".

    Rougher than the index's own Porter stemmer; both sides of a comparison go through it.
    """
    for ending, new in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_STEM:
            return word[: -len(ending)] + new
    return word


def pattern_of(stems: Iterable[str]) -> re.Pattern[str]:
    """Matches, in what `plain` gives, every word with one of the stems, and some others."""
    # the stem of "cities" ends in a letter that the word lacks
    beginnings = [
        re.escape(one.removesuffix("y") if len(one) > _MIN_STEM else one) for one in stems
    ]
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(beginnings)})[^\W_]*")


def _quoted(term: str) -> str:
    return f'"{term}" *' if _UNSPACED.search(term) else f'"{term}"'
