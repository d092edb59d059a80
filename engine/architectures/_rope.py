"""Rotary embeddings in config.json, in both spellings.

Up to transformers 4: `rope_theta` and `rope_scaling: {"rope_type" or "type", …}`; from 5 on:
`rope_parameters: {"rope_type", "rope_theta", …}`. Where both stand, rope_scaling wins, as there.
"""

from __future__ import annotations

from engine.architectures._keys import Keys
from engine.config import Rope, RopeScaling

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def rope(keys: Keys, head_dim: int, max_seq_len: int) -> Rope:
    """What a config's top level says about the rotation. Kinds beyond KINDS are refused by name."""
    name = "rope_scaling" if keys.values.get("rope_scaling") else "rope_parameters"
    own = keys.below(name)
    nested = [key for key, value in own.values.items() if isinstance(value, dict)]
    if nested:
        raise ValueError(f"{name} differs between layers ({nested[0]!r}), which is not supported")
    theta = (own if own.has("rope_theta") else keys).number("rope_theta", 10_000.0, above=1.0)
    partial = own if own.has("partial_rotary_factor") else keys
    fraction = partial.number("partial_rotary_factor", 1.0)
    if fraction > 1:
        raise partial.error("partial_rotary_factor", "must be at most 1")
    divisors = keys.numbers("rope_frequency_divisors")
    if divisors and len(divisors) != int(head_dim * fraction) // 2:
        raise ValueError(
            f"rope_frequency_divisors has {len(divisors)} items, half the rotary dimension is "
            f"{int(head_dim * fraction) // 2}"
        )
    return Rope(
        theta=theta,
        scaling=_scaling(keys, own, max_seq_len, int(head_dim * fraction) // 2),
        fraction=fraction,
        interleaved=keys.flag("rope_interleaved"),
        frequency_divisors=divisors,
    )


def _scaling(keys: Keys, own: Keys, max_seq_len: int, n_pairs: int) -> RopeScaling:
    key = "rope_type" if own.has("rope_type") else "type"
    kind = own.values.get(key) or "default"
    kind = "longrope" if kind == "su" else kind  # its first name
    if kind not in KINDS:
        raise own.error(key, f"must be one of {', '.join(KINDS)}")
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling("linear", factor=own.number("factor"))
    if kind == "dynamic":
        # transformers stretches from max_position_embeddings, not from an original length
        factor = own.number("factor")
        return RopeScaling("dynamic", factor=factor, original_max_seq_len=max_seq_len)
    outer = keys if keys.has("original_max_position_embeddings") else own
    original = outer.whole("original_max_position_embeddings", max_seq_len)
    if kind == "llama3":
        return _llama3(own, original)
    if kind == "longrope":
        return RopeScaling(
            "longrope",
            factor=own.number("factor", max_seq_len / original),
            original_max_seq_len=original,
            attention_factor=own.optional_number("attention_factor"),
            short_factors=_factors(own, "short_factor", n_pairs),
            long_factors=_factors(own, "long_factor", n_pairs),
        )
    return RopeScaling(
        "yarn",
        factor=own.number("factor", max_seq_len / original),
        original_max_seq_len=original,
        beta_fast=own.number("beta_fast", 32.0),
        beta_slow=own.number("beta_slow", 1.0),
        attention_factor=own.optional_number("attention_factor"),
        mscale=own.optional_number("mscale"),
        mscale_all_dim=own.optional_number("mscale_all_dim"),
        truncate=own.flag("truncate", True),
    )


def _factors(own: Keys, key: str, n_pairs: int) -> tuple[float, ...]:
    factors = own.numbers(key)
    if len(factors) != n_pairs:
        raise ValueError(
            f"{own.prefix}{key} has {len(factors)} items, half the rotary dimension is {n_pairs}"
        )
    return factors


def _llama3(own: Keys, original: int) -> RopeScaling:
    low, high = own.number("low_freq_factor"), own.number("high_freq_factor")
    if high <= low:
        raise own.error("high_freq_factor", f"must be greater than low_freq_factor {low:g}")
    return RopeScaling(
        "llama3",
        factor=own.number("factor"),
        original_max_seq_len=original,
        low_freq_factor=low,
        high_freq_factor=high,
    )
