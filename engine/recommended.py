"""What a checkpoint says of where answers end and of how to sample."""

from __future__ import annotations

from typing import Any

from loguru import logger

from engine.checkpoints import Checkpoint
from engine.sampling import SamplingParams
from engine.tokenizer import Tokenizer

_SAMPLING_KEYS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def stop_ids_of(checkpoint: Checkpoint, tokenizer: Tokenizer | None) -> frozenset[int]:
    """Ends of an answer: generation_config's, config's, and the tokenizer's."""
    found = set() if tokenizer is None else set(tokenizer.stop_ids)
    for source in (checkpoint.generation_config, checkpoint.config):
        ids = source.get("eos_token_id")
        found.update(i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int))
    return frozenset(found)


def generation_defaults_of(checkpoint: Checkpoint) -> dict[str, float]:
    """The sampling values of generation_config that SamplingParams accepts."""
    defaults: dict[str, Any] = {}
    for key in _SAMPLING_KEYS:
        value = checkpoint.generation_config.get(key)
        if value is None:
            continue
        candidate: dict[str, Any] = {key: value}
        try:
            SamplingParams(**candidate)
        except ValueError as error:
            logger.warning("{}: generation_config ignored: {}", checkpoint.path.name, error)
        else:
            defaults |= candidate
    return defaults
