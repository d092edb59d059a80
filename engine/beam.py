"""Beam search: several continuations at once, all through one read of the weights.

A beam's score is sum(log p) / n_tokens ** length_penalty. With a temperature T the step's
distribution is p ** (1 / T), normalised again, before logs are taken: BOLT's rule, under which
temperature re-weighs beams and nothing is drawn. Candidates, finished beams and the end of the
search are those of transformers' `num_beams` with `early_stopping=False`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.cache import KVCache
from engine.cancel import Cancel
from engine.decoder import Branches, Decoder
from engine.sampling import SamplingParams, forbid_repeats, log_sum_exp, penalize_repeats


class Beam(NamedTuple):
    """One continuation of the prompt."""

    token_ids: tuple[int, ...]
    score: float  # sum of log p; in a finished beam divided by n_tokens ** length_penalty
    path: tuple[int, ...]  # cache slots of the tokens that were run
    finish_reason: str | None = None  # "stop" or "length"


class Search(NamedTuple):
    """What a search needs beside its parameters."""

    decoder: Decoder
    cache: KVCache  # holds the prompt; the search writes beyond it
    prompt_ids: Sequence[int]
    stop_ids: Collection[int]
    max_tokens: int
    cancel: Cancel | None = None


def beam_search(
    search: Search, logits: NDArray[np.float32], params: SamplingParams
) -> Iterator[Beam]:
    """Yield the best beam after every step; the last one is the result.

    logits   (1, vocab_size) after the prompt. Raises Cancelled; what was yielded stays valid.
    """
    n_beams = params.beams
    n_candidates = max(2, 1 + len(search.stop_ids)) * n_beams
    running, finished = [Beam((), 0.0, ())], list[Beam]()
    for n_tokens in range(1, search.max_tokens + 1):
        scores = np.array([beam.score for beam in running])[:, None]
        totals = scores + step_logprobs(logits, running, search.prompt_ids, params)
        parents, running = running, []
        for rank, (parent, token_id, total) in enumerate(_best(totals, n_candidates)):
            beam = parents[parent]
            if token_id in search.stop_ids or n_tokens == search.max_tokens:
                if rank < n_beams:
                    finished.append(_finish(beam, token_id, total, search, params))
            elif len(running) < n_beams:
                running.append(Beam((*beam.token_ids, token_id), total, beam.path))
        # sorted() keeps the order of equals: an older beam wins
        finished = sorted(finished, key=lambda beam: -beam.score)[:n_beams]
        yield _leader(running, finished, n_tokens, params)
        if not running or _is_decided(running, finished, n_tokens, params):
            break
        running, logits = _advance(search, running, n_beams, n_tokens)
    if finished:
        yield finished[0]


def step_logprobs(
    logits: NDArray[np.float32],
    beams: Sequence[Beam],
    prompt_ids: Sequence[int],
    params: SamplingParams,
) -> NDArray[np.float64]:
    """log p of every next token of every beam, (beams, vocab_size), after the params' rules.

    Tokens that BOLT's no-repeat rule forbids get -inf.
    """
    logprobs: NDArray[Any] = logits - log_sum_exp(logits)[:, None]
    if params.repetition_penalty != 1:
        histories = [[*prompt_ids, *beam.token_ids] for beam in beams]
        logprobs = penalize_repeats(logprobs, np.asarray(histories), params.repetition_penalty)
    if params.allowed_repeats is not None:
        recent = [[*prompt_ids, *beam.token_ids][-params.max_tokens :] for beam in beams]
        logprobs[forbid_repeats(logprobs, np.asarray(recent), params)] = -np.inf
    if params.temperature and params.temperature != 1:
        logprobs = logprobs / params.temperature
        logprobs -= log_sum_exp(logprobs)[:, None]
    return np.asarray(logprobs, np.float64)


def _best(totals: NDArray[np.float64], n: int) -> Iterator[tuple[int, int, float]]:
    """The n best (beam, token, score), best first; lower beam and token first among equals."""
    flat = totals.ravel()
    n = min(n, flat.size)
    chosen = np.argpartition(-flat, n - 1)[:n]
    for i in chosen[np.lexsort((chosen, -flat[chosen]))]:
        if flat[i] > -np.inf:
            yield int(i // totals.shape[1]), int(i % totals.shape[1]), float(flat[i])


def _finish(
    beam: Beam, token_id: int, total: float, search: Search, params: SamplingParams
) -> Beam:
    score = total / (len(beam.token_ids) + 1) ** params.length_penalty
    if token_id in search.stop_ids:
        return beam._replace(score=score, finish_reason="stop")
    return Beam((*beam.token_ids, token_id), score, beam.path, "length")


def _leader(
    running: Sequence[Beam], finished: Sequence[Beam], n_tokens: int, params: SamplingParams
) -> Beam:
    """The best beam so far, finished or not."""
    if not running or not finished:
        return (finished or running)[0]
    open_score = running[0].score / n_tokens**params.length_penalty
    return finished[0] if finished[0].score >= open_score else running[0]


def _is_decided(
    running: Sequence[Beam], finished: Sequence[Beam], n_tokens: int, params: SamplingParams
) -> bool:
    """Whether no running beam can displace a finished one, judged at the present length."""
    if len(finished) < params.beams:
        return False
    open_score: float = running[0].score / n_tokens**params.length_penalty
    return open_score <= finished[-1].score


def _advance(
    search: Search, running: Sequence[Beam], n_beams: int, n_tokens: int
) -> tuple[list[Beam], NDArray[np.float32]]:
    """Run the last token of every beam; beams with their new slots, and the logits after them."""
    first = len(search.cache.token_ids) + (n_tokens - 1) * n_beams
    slots = range(first, first + len(running))
    beams = [
        beam._replace(path=(*beam.path, slot)) for beam, slot in zip(running, slots, strict=True)
    ]
    branches = Branches(slots, [beam.path for beam in beams])
    token_ids = [beam.token_ids[-1] for beam in beams]
    logits = search.decoder.branch(search.cache, token_ids, branches, cancel=search.cancel)
    return beams, logits
