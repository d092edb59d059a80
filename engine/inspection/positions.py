"""How a model knows where a token stands, and how far that reaches, in words."""

from __future__ import annotations

from engine.config import DecoderConfig, Rope


def positions_of(config: DecoderConfig) -> str:
    """ "rope, theta 10000, linear scaling by 8" and so on."""
    if config.position == "alibi":
        text = f"alibi, {config.n_heads} slopes, bias at most {config.alibi_max_bias:g}"
    elif config.position == "learned":
        text = f"learned, {config.max_seq_len:,} rows"
    else:
        text = _rope(config.rope, config)
        if config.local_rope is not None:
            text += f"; layers with a window: {_rope(config.local_rope, config)}"
    return text + _window(config)


def _rope(rope: Rope, config: DecoderConfig) -> str:
    parts = [f"rope, theta {rope.theta:g}"]
    if config.rotary_dim != config.head_dim:
        parts.append(f"{config.rotary_dim} of {config.head_dim} dimensions")
    scaling = rope.scaling
    if scaling.kind != "none":
        factor = "" if scaling.kind == "longrope" else f" by {scaling.factor:g}"
        parts.append(f"{scaling.kind} scaling{factor}")
    if rope.frequency_divisors:
        parts.append("divided frequencies")
    return ", ".join(parts)


def _window(config: DecoderConfig) -> str:
    if not config.sliding_window:
        return ""
    n_full = len(config.full_attention_layers)
    where = f" in {config.n_layers - n_full} of {config.n_layers} layers" if n_full else ""
    return f"; a window of {config.sliding_window:,} tokens{where}"


def trained_length(config: DecoderConfig) -> int:
    """Tokens that the weights were trained on, before a scaling stretched that."""
    scaling = config.rope.scaling
    if config.position != "rope" or scaling.kind == "none":
        return config.max_seq_len
    if scaling.kind == "linear":
        return round(config.max_seq_len / scaling.factor)
    return scaling.original_max_seq_len or config.max_seq_len


def reach_of(config: DecoderConfig) -> str:
    """What becomes of texts that are longer than the trained length."""
    trained, most = trained_length(config), config.max_seq_len
    if config.position == "learned":
        return f"{most:,} tokens, and none beyond: each position is a row of the weights"
    beyond = "--max-seq-len goes beyond"
    if config.position == "alibi":
        return f"{most:,} tokens; {beyond}, as ALiBi was made for"
    kind = config.rope.scaling.kind
    if kind == "dynamic":
        return f"{most:,} tokens; {beyond}: the rotation is stretched as the text grows"
    if trained < most:
        return f"{most:,} tokens, stretched from {trained:,} by {kind} scaling; {beyond}, unproven"
    return f"{most:,} tokens; {beyond}, where this rotation was never trained"
