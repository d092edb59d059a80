"""The decoder in NumPy, slow and plain: what every flag of DecoderConfig means.

The engine's kernels are tested against this file, and this file against transformers
(test_reference.py). Nothing is cached, batched or fused; T tokens are decoded at once.
Axis letters: T tokens, E hidden_size, H heads, D head_dim, F intermediate_size.
"""

from __future__ import annotations

import math

import numpy as np

from engine.config import DecoderConfig, Rope
from engine.rope import rotation_table

Weights = dict[str, np.ndarray]


def logits(config: DecoderConfig, weights: Weights, token_ids, dtype=np.float64) -> np.ndarray:
    """Teacher-forced logits (T, vocab_size) in dtype; the weights are cast to it first."""
    w = {name: values.astype(dtype) for name, values in weights.items()}
    positions = np.arange(len(token_ids))
    x = w["embedding"][token_ids] * dtype(config.embedding_scale)
    if config.position == "learned":
        x = x + w["position_embedding"][positions]
    for i in range(config.n_layers):
        layer = {n.removeprefix(f"layers.{i}."): v for n, v in w.items() if f"layers.{i}." in n}
        normed = norm(config, layer, "attention_norm", x)
        attended = attention(config, layer, normed, window_of_layer(config, i))
        if config.post_norms:
            attended = norm(config, layer, "attention_post_norm", attended)
        if config.residual == "sequential":
            x = x + attended
            more = feed_forward(config, layer, norm(config, layer, "ffn_norm", x))
            if config.post_norms:
                more = norm(config, layer, "ffn_post_norm", more)
            x = x + more
        else:
            if not config.shared_norm:
                normed = norm(config, layer, "ffn_norm", x)
            x = x + attended + feed_forward(config, layer, normed)
    x = norm(config, w, "final_norm", x)
    head = w["embedding"] if config.tied_head else w["head"]
    scores = (x @ head.T + w.get("head.bias", 0)) * dtype(config.logit_scale)
    return softcapped(scores, config.logit_softcap)


def softcapped(x: np.ndarray, cap: float) -> np.ndarray:
    """cap tanh(x / cap); a cap of 0 is none."""
    return np.tanh(x / x.dtype.type(cap)) * x.dtype.type(cap) if cap else x


def linear(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[name].T + w.get(f"{name}.bias", 0)


def norm(config: DecoderConfig, w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    if config.norm == "rmsnorm":
        return rms_norm(x, config.norm_eps) * w[name]
    centred = x - x.mean(axis=-1, keepdims=True)
    return rms_norm(centred, config.norm_eps) * w[name] + w.get(f"{name}.bias", 0)


def rms_norm(x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(eps))


def window_of_layer(config: DecoderConfig, i: int) -> int:
    """How many tokens, itself included, a token sees; 0 = all."""
    return 0 if i in config.full_attention_layers else config.sliding_window


def attention(config: DecoderConfig, w: Weights, x: np.ndarray, window: int) -> np.ndarray:
    """x (T, E) -> (T, E)."""
    n_tokens, head_dim = len(x), config.head_dim
    q, k, v = (linear(w, name, x) for name in ("wq", "wk", "wv"))
    if config.clip_qkv:
        q, k, v = (a.clip(-config.clip_qkv, config.clip_qkv) for a in (q, k, v))
    if config.qk_norm_whole:
        q, k = norm(config, w, "q_norm", q), norm(config, w, "k_norm", k)
    q, k, v = (a.reshape(n_tokens, -1, head_dim) for a in (q, k, v))
    if config.qk_norm:
        q = rms_norm(q, config.norm_eps) * w["q_norm"]
        k = rms_norm(k, config.norm_eps) * w["k_norm"]
    if config.position == "rope":
        rope = config.local_rope if window and config.local_rope else config.rope
        q, k = rotate(config, rope, q), rotate(config, rope, k)

    scale = config.attention_scale or 1 / math.sqrt(head_dim)
    positions = np.arange(n_tokens)
    distance = positions[:, None] - positions[None, :]  # query - key
    visible = (distance >= 0) & (distance < (window or n_tokens))
    out = np.empty_like(q)
    for h in range(config.n_heads):
        kv_head = h * config.n_kv_heads // config.n_heads
        scores = q[:, h] @ k[:, kv_head].T * x.dtype.type(scale)
        scores = softcapped(scores, config.attention_softcap)
        if config.position == "alibi":
            scores = scores - alibi_slopes(config)[h].astype(x.dtype) * distance.astype(x.dtype)
        scores = np.where(visible, scores, -np.inf)
        probs = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, h] = probs / probs.sum(axis=-1, keepdims=True) @ v[:, kv_head]
    return linear(w, "wo", out.reshape(n_tokens, -1))


def rotate(config: DecoderConfig, rope: Rope, x: np.ndarray) -> np.ndarray:
    """x (T, H, D): the first rotary_dim dimensions turned by position * frequency, in pairs."""
    n_tokens, dim = len(x), config.rotary_dim
    cos, sin = rotation_table(rope, dim, np.arange(n_tokens), n_tokens, config.max_seq_len)
    cos, sin = (a[:, None, :].astype(x.dtype) for a in (cos, sin))
    if rope.interleaved:
        first, second = slice(0, dim, 2), slice(1, dim, 2)
    else:
        first, second = slice(0, dim // 2), slice(dim // 2, dim)
    turned = x.copy()
    turned[..., first] = x[..., first] * cos - x[..., second] * sin
    turned[..., second] = x[..., second] * cos + x[..., first] * sin
    return turned


def alibi_slopes(config: DecoderConfig) -> np.ndarray:
    """(H,) penalty per token of distance (Press et al. 2021, https://arxiv.org/abs/2108.12409).

    2 ** (-max_bias * i / n) for i = 1 … n, n the power of two at or above n_heads; where that is
    more than n_heads, the even i come first, then the odd ones.
    """
    n = 2 ** math.ceil(math.log2(config.n_heads))
    slopes = 2.0 ** (-config.alibi_max_bias * np.arange(1, n + 1) / n)
    if n != config.n_heads:
        slopes = np.concatenate([slopes[1::2], slopes[0::2]])[: config.n_heads]
    return slopes


def feed_forward(config: DecoderConfig, w: Weights, x: np.ndarray) -> np.ndarray:
    up = linear(w, "w_up", x)
    if config.gated:
        return linear(w, "w_down", activate(config, linear(w, "w_gate", x)) * up)
    return linear(w, "w_down", activate(config, up))


def activate(config: DecoderConfig, x: np.ndarray) -> np.ndarray:
    match config.activation:
        case "silu":
            return x * (1 + np.tanh(x / 2)) / 2  # x * sigmoid(x), without an exp that overflows
        case "relu":
            return np.maximum(x, 0)
        case "gelu":
            erf = np.vectorize(math.erf, otypes=[x.dtype])
            return x * (1 + erf(x / math.sqrt(2))) / 2
        case "gelu_tanh":
            return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    raise ValueError(config.activation)


def weight_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every weight that the flags ask for; matrices (n_out, n_in)."""
    e, f, d = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.n_heads * d, config.n_kv_heads * d
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int, bias: bool = False) -> None:
        shapes[name] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    add("embedding", config.vocab_size, e)
    if config.position == "learned":
        add("position_embedding", config.max_seq_len, e)
    for i in range(config.n_layers):
        layer = f"layers.{i}."
        add(layer + "attention_norm", e, bias=config.norm_bias)
        for name, n_out in (("wq", q), ("wk", kv), ("wv", kv)):
            add(layer + name, n_out, e, bias=config.qkv_bias)
        add(layer + "wo", e, q, bias=config.o_bias)
        if config.qk_norm or config.qk_norm_whole:
            add(layer + "q_norm", q if config.qk_norm_whole else d)
            add(layer + "k_norm", kv if config.qk_norm_whole else d)
        if config.post_norms:
            add(layer + "attention_post_norm", e)
            add(layer + "ffn_post_norm", e)
        if not config.shared_norm:
            add(layer + "ffn_norm", e, bias=config.norm_bias)
        if config.gated:
            add(layer + "w_gate", f, e, bias=config.mlp_bias)
        add(layer + "w_up", f, e, bias=config.mlp_bias)
        add(layer + "w_down", e, f, bias=config.mlp_bias)
    add("final_norm", e, bias=config.norm_bias)
    if not config.tied_head:
        add("head", config.vocab_size, e)
    if config.head_bias:
        shapes["head.bias"] = (config.vocab_size,)
    return shapes


def random_weights(config: DecoderConfig, rng: np.random.Generator) -> Weights:
    """float32 weights of every shape; activations keep the size of 1, logits spread by about 4."""
    weights = {}
    for name, shape in weight_shapes(config).items():
        noise = rng.standard_normal(shape)
        if name in ("embedding", "head"):
            noise *= 4 / math.sqrt(config.hidden_size)
        elif name.endswith(".bias") or name == "position_embedding":
            noise *= 0.3
        elif len(shape) == 1:
            noise = 1 + 0.2 * noise
        else:
            noise *= (1.5 if name[-2:] in ("wq", "wk") else 1.0) / math.sqrt(shape[1])
        weights[name] = noise.astype(np.float32)
    return weights
