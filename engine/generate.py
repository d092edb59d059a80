"""Generation: from a prompt's token ids to a stream of tokens and text.

stream() is all that a front end needs; it re-uses what the model's cache shares with the prompt.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.beam import Search, beam_search
from engine.cancel import Cancel, Cancelled
from engine.choices import Answer, choices
from engine.sampling import SamplingParams, n_best_needed

if TYPE_CHECKING:
    from engine.model import Model
    from engine.tokenizer.detokenizer import Detokenizer

# Of a prompt with so many new tokens, all but the last ones are read with one byte an activation
# instead of two: twice as fast, for a mean KL of 5e-4 in what follows (docs/log.md)
_LONG, _EXACT_TAIL = 128, 32

Progress = Callable[[int, int], None]  # tokens of the prompt done, and all


class Step(NamedTuple):
    """One token, or the end.

    token_id        -1 in a last step that brings only text or only the reason
    text            what may be shown now; "" while a character or a stop string is incomplete
    logprob         the model's own log-probability of the token
    finish_reason   None, then in the last step one of
                    "stop"         the model ended its turn
                    "stop_string"  one of params.stop was completed; it is not part of the text
                    "length"       params.max_tokens were generated
                    "context"      the model's context is full
                    "cancelled"    the Cancel was set
    """

    token_id: int
    text: str
    logprob: float
    finish_reason: str | None = None


@dataclass
class Usage:
    """What a generation took; complete when the last step was read. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt: not computed again
    new_tokens: int = 0  # generated
    drafted_tokens: int = 0  # by lookup, and verified
    accepted_tokens: int = 0  # of those: came true, so that they took no call of their own
    prefill_s: float = 0.0
    decode_s: float = 0.0
    time_to_first_token_s: float = 0.0
    finish_reason: str | None = None
    seed: int = 0


class Generation:
    """An iterator of Steps, with the text and the counts so far."""

    def __init__(self, steps: Iterator[Step], usage: Usage) -> None:
        self._steps = steps
        self.usage = usage
        self.token_ids: list[int] = []
        self.text = ""

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Step:
        step = next(self._steps)
        if step.token_id >= 0:
            self.token_ids.append(step.token_id)
        self.text += step.text
        return step


def stream(
    model: Model,
    token_ids: Sequence[int],
    params: SamplingParams | None = None,
    *,
    cancel: Cancel | None = None,
    on_progress: Progress | None = None,
    continues: bool = False,
) -> Generation:
    """Continue token_ids.

    continues says that the new text goes on in the middle of one: its first space is kept.
    on_progress is called as the prompt is read. With params.beams > 1 all steps arrive at the end.
    ValueError for an empty prompt, and for one that leaves no room in model.max_seq_len. A chat
    template's own stop strings are the caller's to put into params.stop: raw prompts have none.
    """
    params = params or SamplingParams()
    room_for(model, token_ids, params)
    if params.stop and model.tokenizer is None:
        raise ValueError("stop strings need text, and this checkpoint has no tokenizer")
    # a fresh one in 32 bits: easy to type again
    seed = secrets.randbits(32) if params.seed is None else params.seed
    usage = Usage(prompt_tokens=len(token_ids), seed=seed)
    text = _Text(model, params, continues)
    run = _Run(model, list(token_ids), replace(params, seed=seed), usage, cancel or Cancel(), text)
    return Generation(run.steps(on_progress), usage)


def room_for(model: Model, token_ids: Sequence[int], params: SamplingParams) -> int:
    """How many tokens may follow; ValueError for a prompt that is empty or leaves no room."""
    if not len(token_ids):
        raise ValueError("the prompt is empty; generation needs at least one token")
    room = model.max_seq_len - len(token_ids)
    if room < 1:
        raise ValueError(
            f"the prompt has {len(token_ids)} tokens and the context holds {model.max_seq_len}; "
            "shorten it"
        )
    return min(params.max_tokens, room)


def prefill(
    model: Model,
    token_ids: Sequence[int],
    cancel: Cancel | None = None,
    on_progress: Progress | None = None,
    *,
    exact: bool = False,
    n_best: int = 0,
) -> tuple[NDArray[np.float32], int]:
    """Logits after the prompt, (1, vocab_size), and how many of its tokens the cache had.

    Only what the model's cache does not share is computed, and of a long rest the most quicker but
    less exactly, unless `exact`. n_best: see Decoder.extend. Raises Cancelled.
    """
    cache = model.cache
    # the last token is always run: its logits are not kept
    shared = min(cache.common_prefix(token_ids), len(token_ids) - 1)
    cache.truncate(shared)
    rest = token_ids[shared:]
    coarse = 0 if exact else coarse_tokens(len(rest))
    logits = model.decoder.extend(
        cache, rest, coarse=coarse, n_best=n_best, cancel=cancel, on_progress=on_progress
    )
    return logits, shared


def coarse_tokens(n_new: int) -> int:
    """How many of a prompt's new tokens are read quicker but less exactly."""
    return n_new - _EXACT_TAIL if n_new >= _LONG else 0


@dataclass
class _Run:
    """One generation under way."""

    model: Model
    token_ids: list[int]
    params: SamplingParams
    usage: Usage
    cancel: Cancel
    text: _Text

    def steps(self, on_progress: Progress | None) -> Iterator[Step]:
        """Prefill, then tokens, then exactly one step with a finish_reason."""
        started, text = time.perf_counter(), self.text
        try:
            logits, self.usage.cached_tokens = prefill(
                self.model,
                self.token_ids,
                self.cancel,
                on_progress,
                exact=self.params.exact_prompt,
                n_best=self._n_best(),
            )
        except Cancelled:
            yield self._end(-1, "", 0.0, "cancelled")
            return
        finally:
            self.usage.prefill_s = time.perf_counter() - started
        choose = self._beams if self.params.beams > 1 else self._tokens
        try:
            for token_id, logprob, reason in choose(logits):
                if not self.usage.new_tokens:
                    self.usage.time_to_first_token_s = time.perf_counter() - started
                self.usage.new_tokens += token_id >= 0
                shown = text.push(token_id)
                if text.stopped:
                    reason = "stop_string"
                self.usage.decode_s = time.perf_counter() - started - self.usage.prefill_s
                if reason:
                    yield self._end(token_id, shown + text.flush(), logprob, reason)
                    return
                yield Step(token_id, shown, logprob)
        except Cancelled:
            yield self._end(-1, text.flush(), 0.0, "cancelled")

    def _end(self, token_id: int, text: str, logprob: float, reason: str) -> Step:
        self.usage.finish_reason = reason
        # drafts may have run further than the answer; without them its last token is not run
        # unless another one was chosen after it
        n_run = max(0, self.usage.new_tokens - (reason != "stop"))
        self.model.cache.truncate(len(self.token_ids) + n_run)
        return Step(token_id, text, logprob, reason)

    def _n_best(self) -> int:
        """How many logits after the prompt are needed; 0 = all."""
        if self.params.beams > 1 or self.model.sparsity.proves:
            return 0
        return n_best_needed(self.params)

    def _reason_at_end(self) -> str:
        room = room_for(self.model, self.token_ids, self.params)
        return "length" if room == self.params.max_tokens else "context"

    def _tokens(self, logits: NDArray[np.float32]) -> Iterator[tuple[int, float, str | None]]:
        """(token_id, logprob, finish_reason) one after another, drawn or greedy."""
        room = room_for(self.model, self.token_ids, self.params)
        answer = Answer(self.model, self.token_ids, self.params, self.usage, self.cancel, room)
        for n, (token_id, logprob) in enumerate(choices(answer, logits), start=1):
            if token_id in self.model.stop_ids:
                yield -1, 0.0, "stop"
                return
            yield token_id, logprob, self._reason_at_end() if n == room else None

    def _beams(self, logits: NDArray[np.float32]) -> Iterator[tuple[int, float, str | None]]:
        """The tokens of the best beam, all at the end; its score is spread over them evenly."""
        model, best = self.model, None
        room = room_for(model, self.token_ids, self.params)
        search = Search(
            model.decoder, model.cache, self.token_ids, model.stop_ids, room, self.cancel
        )
        reason = None
        try:
            for best in beam_search(search, logits, self.params):
                reason = best.finish_reason
        except Cancelled:
            reason = "cancelled"
        if best is None:
            raise Cancelled
        model.cache.adopt(best.path, best.token_ids[: len(best.path)])
        for token_id in best.token_ids:
            yield token_id, best.score / len(best.token_ids), None
        yield -1, 0.0, self._reason_at_end() if reason == "length" else reason or "stop"


class _Text:
    """Text of a run's tokens; nothing at all for a model without a tokenizer."""

    def __init__(self, model: Model, params: SamplingParams, continues: bool) -> None:
        tokenizer = model.tokenizer
        self._detokenizer: Detokenizer | None = None
        if tokenizer is not None:
            self._detokenizer = tokenizer.detokenizer(params.stop, continues=continues)

    @property
    def stopped(self) -> bool:
        return self._detokenizer is not None and self._detokenizer.stopped

    def push(self, token_id: int) -> str:
        if self._detokenizer is None or token_id < 0:
            return ""
        return self._detokenizer.push(token_id)

    def flush(self) -> str:
        return "" if self._detokenizer is None else self._detokenizer.flush()
