"""The one place where system prompt, history, evidence and question become token ids, on a budget.

The budget is the context less the tokens reserved for the answer. When a conversation outgrows it,
the oldest turns leave the model's view; the system prompt and the newest turns stay.

Dropping the least that is needed would drop again on the next turn, and each drop changes the
beginning of the prompt, so that nothing in the KV cache fits and the whole context is computed
again, every turn. So turns are dropped until a quarter of the budget is free, and the first
kept turn is remembered by the caller: a run of turns then extends the cached prompt, and one in
many pays for reading again. The price is that for a while the model sees less than it could.

Evidence stands as late as it can, right behind the question that it is for, and no later prompt has
it. So everything up to and with the last question stays cached, and a next turn reads that answer
again (some hundred tokens) rather than carry old passages along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot.evidence import Evidence
    from engine.tokenizer import Tokenizer

Message = dict[str, str]
KEPT_SHARE = 0.75  # of the budget, after turns were dropped


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, its answer and why the answer ended ("stop", "length", "cancelled", …).

    An answer without text (stopped before its first word) is kept for /retry and /continue, but
    no later prompt shows it: an empty answer would only teach the model to be silent.

    evidence  what the answer was given to draw on; None when no knowledge base was in use
    """

    question: str
    answer: str = ""
    finish_reason: str = "stop"
    evidence: Evidence | None = None


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
    system: str | None, exchanges: Sequence[Exchange], evidence: str = "", joined: bool = False
) -> list[Message]:
    """The conversation as the template takes it; the last exchange is the open one.

    Its answer comes last and stays open, unless it is still empty; then the question comes last.

    evidence  stands behind the last question, in a turn of its own or, `joined`, in the question's
    """
    messages: list[Message] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    for number, exchange in enumerate(exchanges, start=1):
        is_open, question = number == len(exchanges), exchange.question
        if is_open and evidence and joined:
            question = f"{question}\n\n{evidence}"
        if exchange.answer or is_open:
            messages.append({"role": "user", "content": question})
        if is_open and evidence and not joined:
            messages.append({"role": "user", "content": evidence})
        if exchange.answer:
            messages.append({"role": "assistant", "content": exchange.answer})
    return messages


def takes_evidence_alone(tokenizer: Tokenizer) -> bool:
    """Whether the template takes two turns of the user in a row; some insist on taking turns."""
    twice = [{"role": "user", "content": text} for text in ("question", "evidence")]
    try:
        tokenizer.render(twice, add_generation_prompt=True)
    except ValueError:
        return False
    return True


def build_prompt(
    tokenizer: Tokenizer,
    system: str | None,
    exchanges: Sequence[Exchange],
    budget: Budget,
    n_dropped: int = 0,
    evidence: str = "",
) -> Prompt:
    """Token ids of the conversation, whose last exchange is to be answered or its answer continued.

    n_dropped  how many of the oldest turns earlier prompts left out; never fewer are left out.
    PromptTooLongError when system prompt, evidence and the last exchange alone exceed the budget.
    """
    joined = bool(evidence) and not takes_evidence_alone(tokenizer)

    def encoded(first: int) -> list[int]:
        messages = messages_of(system, exchanges[first:], evidence, joined)
        if messages[-1]["role"] == "assistant":
            return tokenizer.encode_chat(messages, add_generation_prompt=False, continue_final=True)
        return tokenizer.encode_chat(messages, add_generation_prompt=True)

    last = len(exchanges) - 1  # the open exchange always stays
    n_dropped = min(n_dropped, last)
    ids = encoded(n_dropped)
    if len(ids) <= budget.tokens:
        return Prompt(ids, n_dropped)
    if budget.tokens <= 0:
        raise PromptTooLongError(_no_room(budget))
    alone = encoded(last)
    if len(alone) > budget.tokens:
        what = "the turn to be continued" if exchanges[-1].answer else "the question"
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
