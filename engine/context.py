"""How long a text may be: what the weights allow, and what memory holds of its keys and values."""

from __future__ import annotations

from typing import NamedTuple

from loguru import logger

from engine.config import DecoderConfig
from engine.memory import available_bytes

_NOTED = 0.25  # of the free memory; keys and values of less are not worth a line
_KEPT_FREE = 0.9  # of it, at most so much is promised


class Context(NamedTuple):
    """n_tokens of prompt and answer together.

    note  what the user should be told about it, or ""
    """

    n_tokens: int
    note: str = ""


def context_of(config: DecoderConfig, asked: int | None) -> Context:
    """As the weights allow; None = the checkpoint's own. ValueError."""
    if asked is None:
        return Context(config.max_seq_len)
    if asked < 2:
        raise ValueError(f"max_seq_len must be at least 2, got {asked}")
    if asked <= config.max_seq_len:
        return Context(asked)
    if config.position == "learned":
        raise ValueError(
            f"max_seq_len {asked:,} is beyond the {config.max_seq_len:,} positions that "
            f"{config.architecture} learned, and there are no weights for others; ask for at most "
            f"{config.max_seq_len:,}"
        )
    logger.warning("context of {} beyond the trained {}", asked, config.max_seq_len)
    beyond = f"the context of {asked:,} tokens is beyond the trained {config.max_seq_len:,}"
    if config.position == "alibi":
        return Context(asked, f"{beyond}: ALiBi bears that, at some loss")
    if config.rope.scaling.kind == "dynamic":
        return Context(asked, f"{beyond}: positions are stretched to it")
    return Context(asked, f"{beyond}, where rotary positions soon lead to nonsense")


def within_memory(
    context: Context, asked: int | None, bytes_per_token: int, kv_cache: str
) -> Context:
    """The context, if memory can hold its keys and values; a shorter one where nobody asked for it.

    bytes_per_token  of keys and values, whose format is kv_cache
    ValueError where what was asked for cannot be had.
    """
    free = available_bytes()
    if free is None:
        return context
    n_tokens, needed = context.n_tokens, context.n_tokens * bytes_per_token
    size = f"{needed / 2**30:,.1f} GiB of keys and values ({kv_cache})"
    fits = int(_KEPT_FREE * free) // bytes_per_token
    if n_tokens > fits and (asked is not None or fits < 2):
        smaller = "" if kv_cache == "q8" else ", --kv-cache q8 makes them smaller"
        raise ValueError(
            f"a context of {n_tokens:,} tokens has {size}, and {free / 2**30:,.1f} GiB of memory "
            f"are free; --max-seq-len {fits:,} fits{smaller}"
        )
    if n_tokens > fits:
        line = f"the context is {fits:,} tokens: the model's {n_tokens:,} would have {size}"
        return Context(fits, f"{line}, and {free / 2**30:,.1f} GiB of memory are free")
    if needed > _NOTED * free:
        line = f"a text that fills the context of {n_tokens:,} tokens has {size}"
        line += f", of {free / 2**30:,.1f} GiB that are free"
        return Context(n_tokens, f"{context.note}; {line}" if context.note else line)
    return context
