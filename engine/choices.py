"""The tokens of an answer, one after another, and what each was chosen from.

At the level `exact`, logits come from behind a screen (engine/sparsity/head.py), which leaves the
layers as they are: the states that the head is multiplied with are those of the dense model. So the
tokens that follow are only held back until one product of the head with several states has proved
that they would have been chosen from all logits, too. Where one would not, the dense choice takes
its place, and the text goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.cancel import Cancel, Cancelled
from engine.lookahead import Lookahead
from engine.sampling import (
    SamplingParams,
    chosen,
    n_best_needed,
    next_token,
    random_generator,
)

if TYPE_CHECKING:
    from engine.generate import Usage
    from engine.model import Model

MOST = 16  # tokens that one product proves
PATIENCE_S = 0.06  # that a token is held back, about

Choice = tuple[int, float]  # token id, log-probability


class Answer(NamedTuple):
    """What choices are made for."""

    model: Model
    prompt_ids: Sequence[int]
    params: SamplingParams  # with a seed
    usage: Usage
    cancel: Cancel
    room: int  # tokens at most


def choices(answer: Answer, logits: NDArray[np.float32]) -> Iterator[Choice]:
    """Up to `room` tokens after the prompt, ends of the answer among them; whoever reads them ends
    the answer. logits: (1, vocab_size) after the prompt, all of them. Raises Cancelled."""
    model = answer.model
    if model.sparsity.proves and model.decoder.can_screen(n_best_needed(answer.params)):
        yield from _Proven(answer).choices(logits[0])
    else:
        yield from _plain(answer, logits[0])


def _plain(answer: Answer, scores: NDArray[np.float32]) -> Iterator[Choice]:
    params, history = answer.params, list(answer.prompt_ids)
    assert params.seed is not None
    random = random_generator(params.seed)
    lookahead = _lookahead(answer, answer.prompt_ids)
    for n in range(1, answer.room + 1):
        token_id, logprob = next_token(scores, history, params, random)
        yield token_id, logprob
        history.append(token_id)
        if answer.cancel.is_set():
            raise Cancelled
        scores = lookahead.logits_after(token_id, answer.room - n - 1)


def _lookahead(answer: Answer, text: Sequence[int]) -> Lookahead:
    return Lookahead(answer.model, text, answer.params, answer.usage, answer.cancel)


class _Draws:
    """Random numbers that can be taken back."""

    def __init__(self, seed: int) -> None:
        self._random = random_generator(seed)
        self._again: list[float] = []
        self.taken: list[float] = []  # since `settle`

    def random(self) -> float:
        number = self._again.pop(0) if self._again else self._random.random()
        self.taken.append(number)
        return number

    def again(self) -> None:
        """Give the taken ones once more, in their order."""
        self._again, self.taken = self.taken + self._again, []

    def settle(self) -> None:
        """What was given more than once is not taken back any more."""
        self.taken = []


class _Proven:
    """Tokens chosen behind a screen, given out when they are proved."""

    def __init__(self, answer: Answer) -> None:
        assert answer.params.seed is not None
        self._answer = answer
        self._draws = _Draws(answer.params.seed)
        self._given: list[int] = []
        self._states: list[NDArray[np.float32]] = []  # of the tokens that are held back
        self._held: list[int] = []
        self._since = 0.0

    def choices(self, scores: NDArray[np.float32]) -> Iterator[Choice]:
        """See the function."""
        answer = self._answer
        # logits after the prompt are dense, and so are those of long drafts
        lookahead, is_dense, token_id = _lookahead(answer, answer.prompt_ids), True, -1
        while len(self._given) < answer.room:
            came_true = True
            if is_dense and self._held:
                came_true = yield from self._prove()
            if came_true and is_dense:
                token_id, logprob = next_token(scores, (), answer.params, self._draws)
                self._draws.settle()
                self._given.append(token_id)
                yield token_id, logprob
            elif came_true:
                token_id = chosen(scores, answer.params, self._draws)
                self._hold(lookahead.state(), token_id)
                if self._is_due(token_id):
                    came_true = yield from self._prove()
            if answer.cancel.is_set():
                raise Cancelled
            if not came_true:
                token_id, text = self._given[-1], [*answer.prompt_ids, *self._given]
                answer.model.cache.truncate(len(text) - 1)
                lookahead = _lookahead(answer, text[:-1])
            left = answer.room - len(self._given) - len(self._held)
            scores = lookahead.logits_after(token_id, left - 1)
            is_dense = lookahead.is_dense

    def _hold(self, state: NDArray[np.float32], token_id: int) -> None:
        if not self._held:
            self._since = time.perf_counter()
        self._states.append(state)
        self._held.append(token_id)

    def _is_due(self, token_id: int) -> bool:
        """Whether what is held back has to be proved now: it is much, or old, or at an end."""
        answer, n = self._answer, len(self._held)
        return (
            n == MOST
            or time.perf_counter() - self._since > PATIENCE_S
            or token_id in answer.model.stop_ids
            or len(self._given) + n == answer.room
        )

    def _prove(self) -> Generator[Choice, None, bool]:
        """Give out the dense choices for the states that are held, up to the first that is another
        one; whether there was none."""
        answer, held = self._answer, self._held
        rows = answer.model.decoder.head(np.stack(self._states))
        self._states, self._held = [], []
        self._draws.again()
        for row, screened in zip(rows, held, strict=True):
            # no history: the rules that read it need all logits
            token_id, logprob = next_token(row, (), answer.params, self._draws)
            self._draws.settle()
            self._given.append(token_id)
            yield token_id, logprob
            if token_id != screened:
                return False
        return True
