"""Causal attention, each document by itself.

Letters: T tokens of a batch, t of one document, H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from engine.config import DecoderConfig
from engine.kernels.tables import EVERYTHING
from engine.plan import Rotations, alibi_slopes, make_windows

Tensor = Any


@dataclass(slots=True, eq=False)
class Positions:
    """Where the tokens of one batch stand: lengths of documents, and what turns their tokens.

    cos, sin  (T, 1, rotary_dim / 2) float32, empty where nothing is turned; with a local_rope twice
              as wide, those of layers with a window behind the others
    """

    lengths: Sequence[int]
    cos: Tensor
    sin: Tensor


def rotations(table: Rotations, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """cos and sin of a batch, (T, rotary_dim / 2) each.

    Where they depend on the length of the text ("dynamic"), that is the document's own.
    """
    parts = [table.at(np.arange(n), n) for n in lengths]
    cos, sin = (
        torch.cat([torch.from_numpy(part) for part in side]) for side in zip(*parts, strict=True)
    )
    return cos, sin


def rotate(config: DecoderConfig, layer: int, x: Tensor, at: Positions) -> Tensor:
    """x (T, H, D), the first rotary_dim dimensions turned in pairs."""
    n = config.rotary_dim
    turned, rest = x[..., :n], x[..., n:]
    if config.local_rope is not None:
        is_local = make_windows(config)[layer] < EVERYTHING
        columns = slice(n // 2, None) if is_local else slice(n // 2)
        at = Positions(at.lengths, at.cos[..., columns], at.sin[..., columns])
    if config.rope.interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        pairs = (a * at.cos - b * at.sin, b * at.cos + a * at.sin)
        turned = torch.stack(pairs, -1).flatten(-2)
    else:
        a, b = turned[..., : n // 2], turned[..., n // 2 :]
        turned = torch.cat([a * at.cos - b * at.sin, b * at.cos + a * at.sin], -1)
    return torch.cat([turned, rest], -1) if n < x.shape[-1] else turned


def attend(
    config: DecoderConfig, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Positions
) -> Tensor:
    """q (T, H, D), k and v (T, n_kv_heads, D) -> (T, H D)."""
    window = int(make_windows(config)[layer])
    out = []
    for q_, k_, v_ in zip(*(a.split(list(at.lengths)) for a in (q, k, v)), strict=True):
        mask = _mask(config, len(q_), window)
        heads = [a.transpose(0, 1)[None] for a in (q_, k_, v_)]
        if config.attention_softcap:
            out.append(_capped(config, heads, mask))
            continue
        attended = torch.nn.functional.scaled_dot_product_attention(
            *heads,
            attn_mask=mask,
            is_causal=mask is None,
            scale=config.attention_scale or config.head_dim**-0.5,
            enable_gqa=config.n_heads != config.n_kv_heads,
        )
        out.append(attended[0].transpose(0, 1).reshape(len(q_), -1))
    return torch.cat(out)


def _capped(config: DecoderConfig, heads: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Attention of one document with soft-capped scores; heads (1, H, t, D) -> (t, H D)."""
    q, k, v = heads
    per_kv, cap = config.n_heads // config.n_kv_heads, config.attention_softcap
    k, v = (a.repeat_interleave(per_kv, 1) for a in (k, v))
    scores = q @ k.transpose(2, 3) * (config.attention_scale or config.head_dim**-0.5)
    weights = (torch.tanh(scores / cap) * cap + mask).softmax(-1)
    return (weights @ v)[0].transpose(0, 1).reshape(q.shape[2], -1)


@lru_cache(maxsize=4)
def _mask(config: DecoderConfig, n: int, window: int) -> Tensor | None:
    """What is added to the scores of a document of n tokens, (H or 1, n, n); None = causal."""
    if config.position != "alibi" and window >= n and not config.attention_softcap:
        return None
    distance = torch.arange(n)[:, None] - torch.arange(n)[None]  # query - key
    mask = torch.zeros(1, n, n)
    if config.position == "alibi":
        mask = -torch.from_numpy(alibi_slopes(config))[:, None, None] * distance
    return mask.masked_fill((distance < 0) | (distance >= window), -torch.inf)
