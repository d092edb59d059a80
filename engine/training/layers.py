"""One layer of the decoder, by the flags of DecoderConfig, in torch's operations.

Letters: T tokens, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from engine.config import DecoderConfig
from engine.training.attention import Positions, attend, rotate
from engine.training.projection import Projection

Tensor = Any

# what is multiplied at once: one input each
GROUPS = {
    "qkv": ("wq", "wk", "wv"),
    "out": ("wo",),
    "up": ("w_gate", "w_up"),
    "down": ("w_down",),
}
NORMS = ("attention_norm", "attention_post_norm", "ffn_norm", "ffn_post_norm")
ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


@dataclass(slots=True, eq=False)
class Layer:
    """projections by the names of GROUPS, vectors (norms and their biases) by canonical names.

    middle  what stands between `up` and `down` in place of activation(gate) * up
    """

    config: DecoderConfig
    number: int
    projections: Mapping[str, Projection]
    vectors: Mapping[str, Tensor]
    middle: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor, at: Positions, training: bool) -> Tensor:
        """x (T, E) -> (T, E)."""
        config = self.config
        normed = norm(config, self.vectors, "attention_norm", x)
        attended = self._attention(normed, at, training)
        if config.residual == "sequential":
            x = x + self._behind("attention_post_norm", attended)
            more = self._feed_forward(norm(config, self.vectors, "ffn_norm", x), training)
            return x + self._behind("ffn_post_norm", more)
        if not config.shared_norm:
            normed = norm(config, self.vectors, "ffn_norm", x)
        return x + attended + self._feed_forward(normed, training)

    def _behind(self, name: str, x: Tensor) -> Tensor:
        """What a branch gives, normed where the model norms it."""
        return norm(self.config, self.vectors, name, x) if self.config.post_norms else x

    def _attention(self, x: Tensor, at: Positions, training: bool) -> Tensor:
        config, projections = self.config, self.projections
        qkv = projections["qkv"](x, training)
        if config.clip_qkv:
            qkv = qkv.clamp(-config.clip_qkv, config.clip_qkv)
        n_q, n_kv = (n * config.head_dim for n in (config.n_heads, config.n_kv_heads))
        q, k, v = qkv.split([n_q, n_kv, n_kv], 1)
        if config.qk_norm_whole:
            q, k = (norm(config, self.vectors, n, a) for n, a in (("q_norm", q), ("k_norm", k)))
        q, k, v = (a.reshape(len(x), -1, config.head_dim) for a in (q, k, v))
        if config.qk_norm:
            q = rms_norm(q, config.norm_eps) * self.vectors["q_norm"]
            k = rms_norm(k, config.norm_eps) * self.vectors["k_norm"]
        if config.position == "rope":
            q, k = (rotate(config, self.number, a, at) for a in (q, k))
        return projections["out"](attend(config, self.number, q, k, v, at), training)

    def _feed_forward(self, x: Tensor, training: bool) -> Tensor:
        up = self.projections["up"](x, training)
        if self.middle is not None:
            return self.projections["down"](self.middle(up), training)
        activation = ACTIVATIONS[self.config.activation]
        if self.config.gated:
            gate, up = up.chunk(2, 1)
            up = activation(gate) * up
        else:
            up = activation(up)
        return self.projections["down"](up, training)


def norm(config: DecoderConfig, vectors: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """x (T, E) -> (T, E)."""
    weight, bias = vectors[name], vectors.get(f"{name}.bias")
    if config.norm == "rmsnorm":
        return rms_norm(x, config.norm_eps) * weight
    return functional.layer_norm(x, x.shape[-1:], weight, bias, config.norm_eps)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x over the root of its mean square, along the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
