"""Decoding with drafts: the logits after each token, several of them from one call.

A draft changes when logits are computed, never what they are: a call of several tokens gives the
same bits as calls of one, and rows after a token that was not chosen are not read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.cancel import Cancel
from engine.lookup import Drafter
from engine.rope import depends_on_length
from engine.sampling import SamplingParams, n_best_needed

if TYPE_CHECKING:
    from engine.generate import Usage
    from engine.model import Model

_SCREENED = 3  # tokens of a greedy call that a screen still pays for


class Lookahead:
    """One answer's calls of the decoder, with drafts if params.lookup; counts them in `usage`."""

    def __init__(
        self,
        model: Model,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        usage: Usage,
        cancel: Cancel,
    ) -> None:
        self._model, self._usage, self._cancel = model, usage, cancel
        self._prompt_ids, self._n_best = prompt_ids, n_best_needed(params)
        # the angles of a dynamic rope change with the length of the text at each call
        self._drafts = params.lookup and not depends_on_length(model.config.rope)
        self._drafter: Drafter | None = None
        self._draft: list[int] = []
        self._n_chosen = 0  # of the draft, so far
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def logits_after(self, token_id: int, max_draft: int) -> NDArray[Any]:
        """(vocab_size,) float32, valid until the next call. Raises Cancelled.

        token_id   follows the prompt and the token_ids of earlier calls
        max_draft  how many tokens may be run beyond it
        The cache then holds the text up to token_id, and perhaps drafted tokens behind it.
        """
        self._follow(token_id)
        if self._n_chosen < len(self._draft) and self._draft[self._n_chosen] == token_id:
            self._n_chosen += 1
            self._usage.accepted_tokens += 1
        else:
            self._call(token_id, max_draft)
        return self._rows[self._n_chosen]  # type: ignore[no-any-return]

    @property
    def is_dense(self) -> bool:
        """Whether the latest logits are all those of the whole head."""
        return not self._model.decoder.can_screen(self._n_best_of(len(self._rows)))

    def state(self) -> NDArray[np.float32]:
        """What the head was, or would be, multiplied with for the latest logits: (hidden_size,)."""
        states = self._model.decoder.states(len(self._rows))
        return states[self._n_chosen]  # type: ignore[no-any-return]

    def _n_best_of(self, n_tokens: int) -> int:
        """How many best logits a call of so many tokens is asked for; 0 = all.

        A screen computes some groups of the head for each token, so that for several tokens it is
        slower than the whole head unless they need few.
        """
        is_short = n_tokens == 1 or (n_tokens <= _SCREENED and self._n_best == 1)
        return self._n_best if is_short else 0

    def _follow(self, token_id: int) -> None:
        if self._drafter is not None:
            self._drafter.append(token_id)
        elif self._drafts:
            # only now, when the first token is out: 8,000 tokens take 8 ms
            text = [*self._prompt_ids, token_id]
            self._drafter = Drafter(self._model.call_times, text, self._model.stop_ids)

    def _call(self, token_id: int, max_draft: int) -> None:
        """Run token_id, in place of what is left of the draft, and a new draft."""
        cache, times = self._model.cache, self._model.call_times
        cache.truncate(len(cache.token_ids) - len(self._draft) + self._n_chosen)
        self._draft, self._n_chosen = [], 0
        draft = self._drafter.draft(max_draft) if self._drafter else []
        started = time.perf_counter()
        self._rows = self._model.decoder.extend(
            cache,
            [token_id, *draft],
            all_logits=bool(draft),
            n_best=self._n_best_of(1 + len(draft)),
            cancel=self._cancel,
        )
        times.record(1 + len(draft), time.perf_counter() - started)
        self._draft = draft
        self._usage.drafted_tokens += len(draft)
