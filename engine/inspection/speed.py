"""What of a model takes the fast paths, and what falls back, and why."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from engine.config import DecoderConfig
from engine.inspection.memory import FORMAT_OF
from engine.rope import depends_on_length
from engine.sparse_formats import SPARSE_FORMATS
from engine.sparsity.limits import ALIBI, BIASED_HEAD
from engine.training.fast_path import why_slow

_FLOATS = ("f32", "f16", "bf16")


class Ability(NamedTuple):
    """is_fast: whether it is there, or takes the fast path; note: how, or why not."""

    name: str
    is_fast: bool
    note: str


def abilities_of(config: DecoderConfig, kinds: Collection[str]) -> list[Ability]:
    """kinds: of the stored matrices."""
    return [
        _products(kinds),
        _head(config),
        _feed_forward(config, kinds),
        _projections(kinds),
        _skipped_kv(config),
        _lookup(config),
        _training(config),
    ]


def _formats(kinds: Collection[str]) -> list[str]:
    return sorted({FORMAT_OF.get(kind, "q8") for kind in kinds})


def _products(kinds: Collection[str]) -> Ability:
    formats = _formats(kinds)
    floats = [name for name in formats if name in _FLOATS]
    others = [kind for kind in sorted(kinds) if kind not in FORMAT_OF]
    packed = f" ({', '.join(others)} packed as q8)" if others else ""
    if floats:
        return Ability(
            "products", False,
            f"{', '.join(formats)}{packed}: 2 to 4 bytes a weight are read for each token; a GGUF "
            "file in q8_0 or q4_1 (sparsechat export) needs fewer",
        )  # fmt: skip
    return Ability("products", True, f"{', '.join(formats)}{packed}, with int8 activations")


def _head(config: DecoderConfig) -> Ability:
    if config.head_bias:
        return Ability("sparse head", False, BIASED_HEAD)
    return Ability("sparse head", True, "screened, from sparsity exact on")


def _feed_forward(config: DecoderConfig, kinds: Collection[str]) -> Ability:
    name = "sparse feed-forward"
    if not set(_formats(kinds)) <= SPARSE_FORMATS:
        return Ability(name, False, f"{', '.join(_formats(kinds))} cannot be read in part")
    sites = "rows of up and inputs of down by the gate" if config.gated else "inputs of down"
    exact = ", zeros of relu without loss" if config.activation == "relu" else ""
    return Ability(name, True, f"{sites}{exact}, after a calibration")


def _projections(kinds: Collection[str]) -> Ability:
    is_fast = set(_formats(kinds)) <= SPARSE_FORMATS
    note = "inputs of q, k, v and o, after a calibration"
    return Ability("sparse projections", is_fast, note if is_fast else "cannot be read in part")


def _skipped_kv(config: DecoderConfig) -> Ability:
    name = "skipped keys and values"
    if config.position == "alibi":
        return Ability(name, False, ALIBI)
    n_full = len(config.full_attention_layers)
    if config.sliding_window and not n_full:
        return Ability(name, False, f"every layer reads {config.sliding_window:,} tokens at most")
    where = f" in {n_full} of {config.n_layers} layers" if config.sliding_window else ""
    return Ability(name, True, f"in long texts, from sparsity balanced on{where}")


def _lookup(config: DecoderConfig) -> Ability:
    if config.position == "rope" and depends_on_length(config.rope):
        kind = config.rope.scaling.kind
        return Ability(
            "prompt lookup", False, f"with {kind} scaling angles change with the text's length"
        )
    return Ability("prompt lookup", True, "drafts copied from the text, the same answers")


def _training(config: DecoderConfig) -> Ability:
    reason = why_slow(config)
    if reason:
        return Ability("training", False, f"on the general path, because of {reason}")
    return Ability("training", True, "on the fast path")
