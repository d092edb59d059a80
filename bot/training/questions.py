"""Rows out of a knowledge base: question, passages, answer.

The model reads a passage and writes a question that it answers. The base is searched for that
question, as the shell would, and the model answers from what is found. Nobody checks the result,
so what a program can check is checked: a row is left out when its question speaks of other things
than its passage or a search for it does not find that passage, and the answer ends before its first
sentence that is in no passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bot.chat import Chat
from bot.citations import is_ungrounded, marked
from bot.evidence import Evidence, Source, block_of, evidence_of, near_best, neutral
from bot.prompt import Exchange, messages_of, takes_evidence_alone
from bot.words import content_words, words

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine import Cancel, Model
    from retrieval import KnowledgeBase
    from retrieval.passages import Passage

Reason = Literal["written", "no question", "not found", "not in the passages", "too long"]

QUESTION_TOKENS, ANSWER_TOKENS = 48, 160
# lower than a chat's: at 0.6 the default model asked what made the mower turn into a siding
QUESTION_TEMPERATURE = 0.3
TRIES = 3  # questions for a passage
LEAST_WORDS = 2  # of meaning: less asks for nothing
ABOUT = 0.6  # share of them that the passage or its title must have
# a question that points at its text means nothing without it
_POINTS = re.compile(
    r"\b(the|this|that|given|above) "
    r"(text|passage|sentence|paragraph|article|document|author|context)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^\s*(?:[-*>\d.)\s]*)(?:question\s*\d*\s*:)?\s*", re.IGNORECASE)
_QUOTES = ' \t"“”*'
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s)|\n|$)\s*", re.DOTALL)
_ASK = "Write one question that this text answers."
_EXAMPLES = [
    Exchange(
        'Text from "Lake Geneva":\nLake Geneva is shared between Switzerland and France. It is '
        f"73 km long and up to 310 m deep.\n\n{_ASK}",
        "How deep is Lake Geneva?",
    ),
    Exchange(
        'Text from "House rules":\nRubbish is collected on Tuesdays. The bins stand behind the '
        f"garage and belong to the caretaker, Mrs Lang.\n\n{_ASK}",
        "Where do the bins stand?",
    ),
]


class Made(NamedTuple):
    """What became of one passage; `row` is None unless it was written."""

    chunk_id: int
    reason: Reason
    row: dict[str, Any] | None = None


class Cancelled(Exception):
    """Ctrl-C while the model was at work."""


class RowMaker:
    """Makes the row of one passage after the other; the same passage and seed, the same row."""

    def __init__(self, model: Model, base: KnowledgeBase, settings: Settings) -> None:
        self._base, self._settings = base, settings
        self._chat = Chat(settings)
        self._chat.use_model(model)
        assert model.tokenizer is not None
        self._joined = not takes_evidence_alone(model.tokenizer)

    def row(self, passage: Passage, cancel: Cancel) -> Made:
        """Cancelled when `cancel` was set before the row was complete."""
        try:
            return self._row(passage, cancel)
        except ValueError:  # no room for it in the context
            return Made(passage.chunk_id, "too long")

    def _row(self, passage: Passage, cancel: Cancel) -> Made:
        """The first of some questions from which a row can be made."""
        reason: Reason = "no question"
        asked: set[str] = set()
        for attempt in range(TRIES):
            question = self._question(passage, attempt, cancel)
            if question is None or question in asked:
                continue
            asked.add(question)
            made = self._answered(question, passage, cancel)
            if made.row is not None:
                return made
            reason = made.reason
        return Made(passage.chunk_id, reason)

    def _answered(self, question: str, passage: Passage, cancel: Cancel) -> Made:
        evidence = self._evidence(question)
        if not any(_covers(source, passage) for source in evidence.sources):
            return Made(passage.chunk_id, "not found")
        answering = replace(self._settings, max_tokens=ANSWER_TOKENS, sample=False)
        said = self._said(question, evidence, answering, cancel)
        answer = supported(said)
        if not answer:
            return Made(passage.chunk_id, "not in the passages")
        row = self._record(passage, replace(said, answer=answer))
        return Made(passage.chunk_id, "written", row)

    def _question(self, passage: Passage, attempt: int, cancel: Cancel) -> str | None:
        asking = replace(
            self._settings,
            max_tokens=QUESTION_TOKENS,
            temperature=QUESTION_TEMPERATURE,
            seed=(self._settings.seed or 0) + passage.chunk_id * TRIES + attempt,
        )
        said = self._said(_request(passage), None, asking, cancel, _EXAMPLES)
        question = question_in(said.answer)
        return question if question and is_about(question, passage) else None

    def _evidence(self, question: str) -> Evidence:
        s = self._settings
        found = self._base.look_up(question, s.k, s.w, s.w_th, s.search_mode)
        return near_best(evidence_of(self._base.name, found))

    def _said(
        self,
        text: str,
        evidence: Evidence | None,
        settings: Settings,
        cancel: Cancel,
        before: Iterable[Exchange] = (),
    ) -> Exchange:
        self._chat.settings = settings
        self._chat.replace_all(list(before))
        for _ in (turn := self._chat.turn(text, evidence)).steps(cancel):
            pass
        if turn.finish_reason == "cancelled":
            raise Cancelled
        return self._chat.exchanges[-1]

    def _record(self, passage: Passage, answered: Exchange) -> dict[str, Any]:
        shown = answered.evidence
        assert shown is not None
        messages = messages_of(
            self._settings.system, [answered], block_of(shown.sources), self._joined
        )
        return {
            "messages": messages,
            "metadata": {
                "kb": self._base.name,
                "chunk_id": passage.chunk_id,
                "uri": passage.uri,
                "passages": [source.chunk_id for source in shown.sources],
            },
        }


def question_in(answer: str) -> str | None:
    """The first question of what the model wrote; None when there is none of use."""
    for line in answer.splitlines():
        text, mark, _ = _LABEL.sub("", line, count=1).partition("?")
        question = text.strip(_QUOTES) + mark
        if mark and len(content_words(question)) >= LEAST_WORDS and not _POINTS.search(question):
            return question
    return None


def is_about(question: str, passage: Passage) -> bool:
    """Whether most of the question's words are the passage's."""
    known = set(words(" ".join([passage.title, *passage.headings, passage.text])))
    asked = content_words(question)
    return sum(word in known for word in asked) >= ABOUT * len(asked)


def supported(answered: Exchange) -> str:
    """The answer up to its first sentence that no passage supports, or that was there before; ""
    when nothing is left that tells anything. A sentence that the token limit cut is none.
    """
    assert answered.evidence is not None
    end, told, seen = 0, False, set[str]()
    for sentence in _SENTENCE.finditer(answered.answer):
        text = sentence[0].strip()
        known = marked(answered.evidence, answered.question, text)
        is_cut = answered.finish_reason == "length" and sentence.end() == len(answered.answer)
        if is_cut or text in seen or is_ungrounded(known):
            break
        told |= any(source.used for source in known.sources)
        seen.add(text)
        end = sentence.end()
    return answered.answer[:end].strip() if told else ""


def _request(passage: Passage) -> str:
    head = f'Text from "{neutral(passage.title)}":\n' if passage.title else ""
    return f"{head}{neutral(passage.text).strip()}\n\n{_ASK}"


def _covers(source: Source, passage: Passage) -> bool:
    """Whether the source's text holds the passage's beginning."""
    return (
        source.document_id == passage.document_id
        and source.start <= passage.start < source.start + len(source.text)
    )
