"""The canonical decoder: one description that every architecture is translated into.

Read once at load and then fixed, so that the forward pass branches on plain integers. An
architecture file (engine/architectures/) turns a checkpoint's own keys into this and holds no
arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RopeKind = Literal["none", "linear", "dynamic", "llama3", "yarn", "longrope"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies change beyond the trained length.

    kind "none" leaves them; the other fields are read by the kinds that name them.
    """

    kind: RopeKind = "none"
    factor: float = 1.0
    original_max_seq_len: int = 0  # all but linear: the trained length in tokens
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn, longrope: of cos and sin; None = from factor
    mscale: float | None = None  # yarn, DeepSeek's variant
    mscale_all_dim: float | None = None
    truncate: bool = True  # yarn: round the correction range to whole dimensions
    # longrope: frequencies are divided by these, (rotary_dim // 2,) floats, in texts up to the
    # trained length, and in longer ones
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

    theta: float = 10_000.0
    scaling: RopeScaling = RopeScaling()
    fraction: float = 1.0  # share of head_dim that is rotated
    interleaved: bool = False  # pairs (0, 1), (2, 3) … (GGUF llama) instead of (i, i + dim / 2)
    # GGUF's rope_freqs.weight: frequencies are divided by these, (rotary_dim // 2,) floats
    frequency_divisors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Shapes and flags of one decoder; the defaults are those of Llama.

    Weights are asked for by canonical names: `embedding`, `position_embedding`, `final_norm`,
    `head` and, per layer i, `layers.{i}.` + `attention_norm`, `wq`, `wk`, `wv`, `wo`, `q_norm`,
    `k_norm`, `attention_post_norm`, `ffn_norm`, `w_gate`, `w_up`, `w_down`, `ffn_post_norm`; a bias
    is the same name + `.bias`.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    max_seq_len: int

    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_bias: bool = False
    norm_eps: float = 1e-5
    post_norms: bool = False  # what a branch gives is normed too, before it is added (Gemma 2)

    position: Literal["rope", "alibi", "learned"] = "rope"
    rope: Rope = Rope()
    local_rope: Rope | None = None  # of the layers with a sliding window; None = as the others
    alibi_max_bias: float = 8.0

    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False  # RMS norm of each head's query and key before the rotation
    qk_norm_whole: bool = False  # instead one norm, of the kind `norm`, over all heads at once
    clip_qkv: float = 0.0  # 0 = off
    attention_scale: float | None = None  # None = 1 / sqrt(head_dim)
    attention_softcap: float = 0.0  # c: scores as c tanh(score / c); 0 = off
    sliding_window: int = 0  # in tokens; 0 = full attention
    full_attention_layers: tuple[int, ...] = ()  # the layers that ignore sliding_window

    residual: Literal["sequential", "parallel"] = "sequential"
    shared_norm: bool = False  # parallel residual with one norm for both branches

    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated: bool = True
    mlp_bias: bool = False

    tied_head: bool = False
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_softcap: float = 0.0  # c: logits as c tanh(logit / c); 0 = off
    embedding_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads")
        for name in (*sizes, "n_kv_heads", "head_dim", "max_seq_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}"
            )
        if self.position == "rope" and (self.rotary_dim % 2 or not self.rotary_dim):
            raise ValueError(f"rotary dimension {self.rotary_dim} must be even and at least 2")
        if self.local_rope and self.local_rope.fraction != self.rope.fraction:
            raise ValueError("layers with a window must rotate as many dimensions as others")
        if self.post_norms and (self.norm != "rmsnorm" or self.residual == "parallel"):
            raise ValueError("norms behind branches are RMS norms of a sequential residual")

    @property
    def rotary_dim(self) -> int:
        """How many of a head's dimensions are rotated."""
        return int(self.head_dim * self.rope.fraction)
