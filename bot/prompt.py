"""The one place where system prompt, history and question become token ids, under a budget.

The budget is the context less the tokens reserved for the answer. When a conversation outgrows it,
the oldest turns leave the model's view; the system prompt and the newest turns stay.

Dropping the least that is needed would drop again on the next turn, and each drop changes the
beginning of the prompt, so that nothing in the KV cache fits and the whole context is computed
again, every turn. So turns are dropped until a quarter of the budget is free, and the first
kept turn is remembered by the caller: a run of turns then extends the cached prompt, and one in
many pays for reading again. The price is that for a while the model sees less than it could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer

Message = dict[str, str]
KEPT_SHARE = 0.75  # of the budget, after turns were dropped


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, its answer and why the answer ended ("stop", "length", "cancelled", …).

    An answer without text (stopped before its first word) is kept for /retry and /continue, but
    no later prompt shows it: an empty answer would only teach the model to be silent.
    """

    question: str
    answer: str = ""
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Budget:
    """max_seq_len tokens in all, `reserve` of which are kept free for the answer."""

    max_seq_len: int
    reserve: int

    @property
    def tokens(self) -> int:
        """How many tokens a prompt may have."""
        return self.max_seq_len - self.reserve


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent. Turns 1 … n_dropped of the conversation are not in it."""

    ids: list[int]
    n_dropped: int


@dataclass(frozen=True, slots=True)
class View:
    """Where the model's view of a conversation begins, and for which circumstances that was found.

    key  tells model, system prompt, template and budget; another key means a view of its own
    """

    n_dropped: int = 0
    key: str = ""


class PromptTooLongError(ValueError):
    """The question does not fit even when it stands alone; the message has both numbers."""


def messages_of(
    system: str | None, exchanges: Sequence[Exchange], question: str | None
) -> list[Message]:
    """The conversation as the template takes it.

    question None continues the last exchange: its answer comes last and stays open, unless it is
    still empty; then the question comes last.
    """
    messages: list[Message] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    for number, exchange in enumerate(exchanges, start=1):
        is_open = question is None and number == len(exchanges)
        if exchange.answer or is_open:
            messages.append({"role": "user", "content": exchange.question})
        if exchange.answer:
            messages.append({"role": "assistant", "content": exchange.answer})
    if question is not None:
        messages.append({"role": "user", "content": question})
    return messages


def build_prompt(
    tokenizer: Tokenizer,
    system: str | None,
    exchanges: Sequence[Exchange],
    question: str | None,
    budget: Budget,
    n_dropped: int = 0,
) -> Prompt:
    """Token ids of the conversation with `question` (or, None, with its last answer left open).

    n_dropped  how many of the oldest turns earlier prompts left out; never fewer are left out.
    PromptTooLongError when system prompt and question alone exceed the budget.
    """

    def encoded(first: int) -> list[int]:
        messages = messages_of(system, exchanges[first:], question)
        goes_on = question is None and messages[-1]["role"] == "assistant"
        if goes_on:
            return tokenizer.encode_chat(messages, add_generation_prompt=False, continue_final=True)
        return tokenizer.encode_chat(messages, add_generation_prompt=True)

    last = len(exchanges) - (1 if question is None else 0)  # the open exchange always stays
    n_dropped = min(n_dropped, last)
    ids = encoded(n_dropped)
    if len(ids) <= budget.tokens:
        return Prompt(ids, n_dropped)
    if budget.tokens <= 0:
        raise PromptTooLongError(_no_room(budget))
    alone = encoded(last)
    if len(alone) > budget.tokens:
        what = "the question" if question is not None else "the turn to be continued"
        raise PromptTooLongError(_too_long(what, len(alone), budget))
    target = int(budget.tokens * KEPT_SHARE)
    first = _first_that_fits(encoded, n_dropped + 1, last, target)
    if first == last:
        # a quarter free would cost every turn: keep what fits, the newest above all
        first = _first_that_fits(encoded, max(n_dropped + 1, last - 1), last, budget.tokens)
    return Prompt(encoded(first), first)


def _first_that_fits(encoded: Callable[[int], list[int]], low: int, high: int, tokens: int) -> int:
    """The smallest number of dropped turns in [low, high] that needs at most `tokens`, else high.

    Dropping more never needs more tokens, so halving finds it.
    """
    while low < high:
        middle = (low + high) // 2
        if len(encoded(middle)) <= tokens:
            high = middle
        else:
            low = middle + 1
    return high


def _too_long(what: str, n_tokens: int, budget: Budget) -> str:
    return (
        f"{what} takes {n_tokens:,} tokens with its system prompt, but {budget.tokens:,} fit "
        f"(context {budget.max_seq_len:,}, of which max_tokens reserves {budget.reserve:,}); "
        "nothing was sent: shorten it or lower max_tokens"
    )


def _no_room(budget: Budget) -> str:
    return (
        f"max_tokens {budget.reserve:,} leaves nothing of the context of {budget.max_seq_len:,} "
        f"tokens for the question; set max_tokens below {budget.max_seq_len:,}"
    )
