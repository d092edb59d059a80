"""Names and shapes of everything that a decoder needs."""

from __future__ import annotations

from engine.config import DecoderConfig


def matrix_shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Canonical name -> (n_out, n_in) of every matrix that the decoder multiplies with."""
    hidden, inner = config.hidden_size, config.intermediate_size
    n_q, n_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes = {"embedding": (config.vocab_size, hidden)}
    if config.position == "learned":
        shapes["position_embedding"] = (config.max_seq_len, hidden)
    layer = {"wq": (n_q, hidden), "wk": (n_kv, hidden), "wv": (n_kv, hidden), "wo": (hidden, n_q)}
    if config.gated:
        layer["w_gate"] = (inner, hidden)
    layer |= {"w_up": (inner, hidden), "w_down": (hidden, inner)}
    for i in range(config.n_layers):
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    if not config.tied_head:
        shapes["head"] = (config.vocab_size, hidden)
    return shapes


def vector_shapes(config: DecoderConfig) -> dict[str, int]:
    """Canonical name -> size of every norm and bias."""
    layer = {"attention_norm": config.hidden_size}
    if not config.shared_norm:
        layer["ffn_norm"] = config.hidden_size
    if config.norm_bias:
        layer |= {f"{name}.bias": config.hidden_size for name in list(layer)}
    if config.post_norms:
        layer |= dict.fromkeys(("attention_post_norm", "ffn_post_norm"), config.hidden_size)
    if config.qk_norm_whole:
        layer["q_norm"] = config.n_heads * config.head_dim
        layer["k_norm"] = config.n_kv_heads * config.head_dim
    elif config.qk_norm:
        layer |= {"q_norm": config.head_dim, "k_norm": config.head_dim}
    if config.qkv_bias:
        n_kv = config.n_kv_heads * config.head_dim
        layer |= {"wq.bias": config.n_heads * config.head_dim, "wk.bias": n_kv, "wv.bias": n_kv}
    if config.o_bias:
        layer["wo.bias"] = config.hidden_size
    if config.mlp_bias:
        layer |= {"w_up.bias": config.intermediate_size, "w_down.bias": config.hidden_size}
        if config.gated:
            layer["w_gate.bias"] = config.intermediate_size
    shapes = {
        f"layers.{i}.{name}": size for i in range(config.n_layers) for name, size in layer.items()
    }
    shapes["final_norm"] = config.hidden_size
    if config.norm_bias:
        shapes["final_norm.bias"] = config.hidden_size
    if config.head_bias:
        shapes["head.bias"] = config.vocab_size
    return shapes


def all_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every matrix and vector."""
    vectors = {name: (size,) for name, size in vector_shapes(config).items()}
    return {**matrix_shapes(config), **vectors}
