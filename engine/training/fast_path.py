"""Which models train on the fast path (engine/training/llama.py), known without torch."""

from __future__ import annotations

from engine.config import DecoderConfig

COLUMNS = 32  # engine/training/kernels/tile.py's


def is_fast(config: DecoderConfig) -> bool:
    """Whether all layers can take this path; biases of projections are allowed."""
    return not why_slow(config)


def why_slow(config: DecoderConfig) -> str:
    """What a model has that the fast path has not; "" where it can take it."""
    sizes = config.hidden_size, config.intermediate_size, config.head_dim, config.rotary_dim
    strange = {
        "layer norms": config.norm != "rmsnorm" or config.norm_bias,
        f"positions by {config.position}": config.position != "rope",
        "norms of queries and keys": config.qk_norm or config.qk_norm_whole,
        "clipped queries and keys": bool(config.clip_qkv),
        "a sliding window": bool(config.sliding_window),
        "a parallel residual": config.residual != "sequential",
        "norms behind branches": config.post_norms,
        "soft caps": bool(config.attention_softcap),
        "two rotations": config.local_rope is not None,
        "a feed-forward without a gate": not config.gated,
        f"{config.activation} in its feed-forward": config.activation != "silu",
        f"sizes that are no multiples of {COLUMNS}": any(size % COLUMNS for size in sizes),
    }
    return next((name for name, is_there in strange.items() if is_there), "")
