"""BOLT's generation calls on our decoder: ids in, ids out, cumulative streaming.

Where BOLT's decoder only re-weighs with a temperature, one beam with a temperature draws here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.beam import Search, beam_search
from engine.generate import prefill, room_for, stream
from engine.sampling import SamplingParams

if TYPE_CHECKING:
    from engine.model import Model


def best_so_far(
    model: Model, token_ids: Sequence[int], params: SamplingParams, chunk_size: int
) -> Iterator[list[int]]:
    """The best new ids after every chunk_size tokens; the last item is the result."""
    if chunk_size < 1:
        raise ValueError(f"prediction_chunk_size must be at least 1, got {chunk_size}")
    found = (
        _beams(model, token_ids, params) if params.beams > 1 else _tokens(model, token_ids, params)
    )
    best: list[int] = []
    n = 0
    for n, best in enumerate(found, start=1):
        if n % chunk_size == 0:
            yield list(best)
    if not n or n % chunk_size:
        yield list(best)


def _tokens(model: Model, token_ids: Sequence[int], params: SamplingParams) -> Iterator[list[int]]:
    generation = stream(model, token_ids, params)
    for step in generation:
        if step.token_id >= 0:
            yield generation.token_ids


def _beams(model: Model, token_ids: Sequence[int], params: SamplingParams) -> Iterator[list[int]]:
    room = room_for(model, token_ids, params)
    logits, _ = prefill(model, token_ids)
    search = Search(model.decoder, model.cache, token_ids, model.stop_ids, room)
    for beam in beam_search(search, logits, params):
        yield list(beam.token_ids)
