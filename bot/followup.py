"""What to search for: the question, and what it leaves to the conversation.

"What is its population?" says nothing to a search. A question that points back (it has a pronoun,
begins with "and", or is too short to stand alone) gets the names that it can only mean put before
it: those of the last question that stood alone, those that the answer took from its sources, and
the titles of these sources. No model is asked, so that it costs nothing and is always the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.prompt import Exchange
from bot.words import ORDERS, content_words, names, sentences, told_words

N_BACK = 4  # questions that may all have pointed back before one stood alone
N_NAMES = 3
N_WORDS = 6
_POINTS_BACK = re.compile(
    r"\b(?:it|its|itself|he|him|his|she|her|hers|they|them|their|theirs|this|that|these|those|"
    r"former|latter|same|one|ones)\b|(?<!is )(?<!are )(?<!was )(?<!were )\bthere\b(?! (?:is|are|was"
    r"|were)\b)",
    re.IGNORECASE,
)
_COURTESY = frozenset("thank thanks hello hi hey bye goodbye ok okay yes no please sorry".split())
_SMALL = _COURTESY | frozenset(
    "a again all and are day evening for fine good great how i it lot m morning much nice night "
    "now see so that the there this to very well will you your".split()
)
_GOES_ON = re.compile(r"\s*(?:and|or|but|also|so|then|what about|how about|what else)\b", re.I)
_ASKS_FOR_A_NAME = re.compile(r"\b(?:who|whom|whose|which|what|name)\b", re.I)
_VERB = re.compile(
    r"\b(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might)\b", re.I
)


def search_query(question: str, history: Sequence[Exchange]) -> str:
    """The question, with the names before it that it takes from `history` (oldest turn first).

    "" when it asks for nothing that could be looked up: "Thank you!"
    """
    if is_small_talk(question):
        return ""
    if not history or not points_back(question):
        return question
    known = set(content_words(question))
    carried: list[str] = []
    for term in _terms(question, history):
        new = set(content_words(term)) - known
        if new:
            carried.append(term)
            known |= new
    return f"{', '.join(carried)}: {question}" if carried else question


def is_small_talk(question: str) -> bool:
    """Whether it is nothing but words of courtesy."""
    said = re.findall(r"\w+", question.lower())
    return bool(_COURTESY.intersection(said)) and _SMALL.issuperset(said)


def points_back(question: str) -> bool:
    """Whether the question cannot be understood without what was said before."""
    own = content_words(question)
    if not own or _GOES_ON.match(question) or _POINTS_BACK.search(question):
        return True
    if names(question) or question.split()[0].lower() in ORDERS:
        return False
    return len(own) <= 2 and not _VERB.search(question)


def _terms(question: str, history: Sequence[Exchange]) -> list[str]:
    """What the question may mean, most likely first."""
    last, topic = history[-1], _standing_alone(history)
    if names(question) and not _POINTS_BACK.search(question):
        # "And Geneva?": the same thing is asked of something else
        own = {word for name in names(topic.question) for word in content_words(name)}
        told = told_words(topic.question)
        return [word for word in told if not own.issuperset(content_words(word))][:N_WORDS]
    answers = [last] if last is topic else [last, topic]
    said = [name for exchange in answers for name in _names_said(exchange)]
    titles = [title for exchange in answers for title in _titles_used(exchange)]
    asked = names(topic.question)
    if not asked and not titles:  # typed in small letters, perhaps
        asked = told_words(topic.question)[:N_WORDS]
    terms = [*asked, *said, *titles]
    if not content_words(question):
        terms += told_words(topic.question)[:N_WORDS]
    return terms


def _standing_alone(history: Sequence[Exchange]) -> Exchange:
    """The last turn whose question can be understood by itself."""
    for exchange in reversed(history[-N_BACK:]):
        if not points_back(exchange.question):
            return exchange
    return history[-min(N_BACK, len(history))]


def _names_said(exchange: Exchange) -> list[str]:
    """The name in the answer's first sentence, if that is what was asked for ("Who wrote …?"); with
    sources, only one that stands in a source that was used."""
    if not _ASKS_FOR_A_NAME.search(exchange.question):
        return []
    said = names(next(iter(sentences(exchange.answer)), ""))
    if exchange.evidence is not None:
        used = " ".join(f"{s.title} {s.text}" for s in exchange.evidence.sources if s.used)
        said = [name for name in said if name in used]
    known = set(content_words(exchange.question))
    return [name for name in said if not known.issuperset(content_words(name))][:1]


def _titles_used(exchange: Exchange) -> list[str]:
    if exchange.evidence is None:
        return []
    return list(dict.fromkeys(s.title for s in exchange.evidence.sources if s.used))[:N_NAMES]
