"""Which words of a text carry its meaning: a rough, quick look at English, without a model."""

from __future__ import annotations

import re
import unicodedata

from retrieval.lexical import STOP_WORDS as SEARCH_STOP_WORDS

_WORD = re.compile(r"[^\W_]+(?:[.,](?=\d)\d+|['’\-][^\W_]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
# what may stand between two parts of a name: University of Zurich, Ludwig van Beethoven
_JOINS = {"of", "the", "de", "la", "von", "van", "der", "and", "for", "in"}

# a line that begins with one of these stands for itself, and is about what follows
ORDERS = frozenset(
    "tell give show describe explain summarise summarize list name define compare write say find "
    "translate calculate count draw make help continue repeat mention discuss outline".split()
)
# besides those that a search leaves out: greetings, thanks, and what links one turn to another
STOP_WORDS = SEARCH_STOP_WORDS | frozenset(
    """
    above again against below d down during each else ever few further get got hello here hers hey
    hi himself itself just know let let's mine nor now ok okay once only ours own sure tell thank
    thanks theirs thing things too well whats yes yet yours
    """.split()
)


def words(text: str) -> list[str]:
    """All words, folded: lower case, without accents, plural s and possessive s.

    Numbers keep their decimal points and lose their thousands' commas.
    """
    return [_folded(match[0]) for match in _WORD.finditer(text)]


def content_words(text: str) -> list[str]:
    """The words that say what a text is about, folded, in order, each once."""
    return list(_meant(text))


def told_words(text: str) -> list[str]:
    """The same words as they are written."""
    return list(_meant(text).values())


def names(text: str) -> list[str]:
    """Runs of capitalised words ("University of Zurich"), as they are written, each once."""
    found: dict[str, None] = {}
    for sentence in sentences(text):
        run: list[str] = []
        for word in [*_WORD.findall(sentence), ""]:
            if word[:1].isupper() and not (word.lower() in STOP_WORDS | ORDERS and not run):
                run.append(_bare(word))
            elif run and word in _JOINS:
                run.append(word)
            elif run:
                while run and run[-1] in _JOINS:
                    run.pop()
                found[" ".join(run)] = None
                run = []
    return list(found)


def sentences(text: str) -> list[str]:
    """The sentences, roughly: enough to look at them one by one."""
    return [part for part in _SENTENCE.split(text) if part.strip()]


def _meant(text: str) -> dict[str, str]:
    """Folded word → the word as it stands first in the text."""
    found: dict[str, str] = {}
    for place, match in enumerate(_WORD.finditer(text)):
        word, folded = match[0], _folded(match[0])
        is_order = place == 0 and word.lower() in ORDERS
        is_empty = is_order or word.lower() in STOP_WORDS or folded in STOP_WORDS
        if not is_empty and (len(folded) > 1 or folded.isdigit()):
            found.setdefault(folded, _bare(word))
    return found


def _folded(word: str) -> str:
    plain = unicodedata.normalize("NFKD", _bare(word).casefold())
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    if letters[:1].isdigit():
        return letters.replace(",", "")
    is_plural = len(letters) > 3 and letters.endswith("s") and not letters.endswith(("ss", "us"))
    return letters[:-1] if is_plural else letters


def _bare(word: str) -> str:
    """Without a possessive s."""
    return word[:-2] if word[-2:] in ("'s", "’s") else word
