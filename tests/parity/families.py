"""Model families of transformers, tiny, and the same thing in our flags and names.

Each flag of DecoderConfig is set by at least one family that transformers implements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.config import DecoderConfig, Rope
from tests.parity.reference import Weights, weight_shapes

HIDDEN, N_HEADS, HEAD_DIM, N_LAYERS, MAX_SEQ_LEN = 40, 5, 8, 2, 64
SMALL = DecoderConfig(
    architecture="",
    vocab_size=61,
    hidden_size=HIDDEN,
    intermediate_size=4 * HIDDEN,  # MPT knows no other
    n_layers=N_LAYERS,
    n_heads=N_HEADS,
    n_kv_heads=N_HEADS,
    head_dim=HEAD_DIM,
    max_seq_len=MAX_SEQ_LEN,
)


@dataclass(frozen=True)
class Family:
    """keys: transformers' config; names: canonical -> transformers' name, {i} is the layer;
    prepare: what a table of names cannot say, done to the state dict in place."""

    model_type: str
    keys: dict[str, Any]
    config: DecoderConfig
    names: dict[str, str]
    prepare: Callable[[Weights], None] = lambda state: None

    def model(self) -> Any:
        """transformers' model with random weights, in evaluation mode."""
        from transformers import AutoConfig, AutoModelForCausalLM

        from tests.tiny import randomize

        keys = {"vocab_size": SMALL.vocab_size} | self.keys
        config = AutoConfig.for_model(self.model_type, **keys)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        randomize(model, seed=5)
        return model

    def weights(self, model: Any) -> Weights:
        """The model's weights under canonical names, each of the shape that the flags ask for."""
        state = {name: values.numpy() for name, values in model.state_dict().items()}
        self.prepare(state)
        weights = {}
        for name, shape in weight_shapes(self.config).items():
            kind = "bias" if name.endswith(".bias") else "weight"
            *layer, last = name.removesuffix(".bias").split(".")
            theirs = self.names[last].format(i=layer[-1] if layer else "")
            weights[name] = state[f"{theirs}.{kind}"]
            assert weights[name].shape == shape, name
        return weights


def names(outer: str, layer: str, inner: str) -> dict[str, str]:
    """outer: embedding, final norm, head or positions; inner: below layer, two norms, then
    q, k, v, o, up, down and, where there are any, gate, q norm, k norm."""
    kinds = ("embedding", "final_norm", "head", "position_embedding")
    table = dict(zip(kinds, outer.split(), strict=False))
    kinds = ("attention_norm", "ffn_norm", "wq", "wk", "wv", "wo", "w_up", "w_down")
    kinds += ("w_gate", "q_norm", "k_norm")
    return table | {k: f"{layer}.{n}" for k, n in zip(kinds, inner.split(), strict=False)}


LLAMA_NAMES = names(
    "model.embed_tokens model.norm lm_head",
    "model.layers.{i}",
    "input_layernorm post_attention_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj "
    "self_attn.o_proj mlp.up_proj mlp.down_proj mlp.gate_proj self_attn.q_norm self_attn.k_norm",
)
NEOX_NAMES = names(
    "gpt_neox.embed_in gpt_neox.final_layer_norm lm_head",
    "gpt_neox.layers.{i}",
    "input_layernorm post_attention_layernorm attention.q attention.k attention.v attention.dense "
    "mlp.dense_h_to_4h mlp.dense_4h_to_h",
)
MPT_NAMES = names(
    "transformer.wte transformer.norm_f",
    "transformer.blocks.{i}",
    "norm_1 norm_2 attn.q attn.k attn.v attn.out_proj ffn.up_proj ffn.down_proj",
)
OPT_NAMES = names(
    "model.decoder.embed_tokens model.decoder.final_layer_norm lm_head model.decoder.positions",
    "model.decoder.layers.{i}",
    "self_attn_layer_norm final_layer_norm self_attn.q_proj self_attn.k_proj self_attn.v_proj "
    "self_attn.out_proj fc1 fc2",
)
GPT_OUTER = "transformer.wte transformer.ln_f lm_head transformer.wpe", "transformer.h.{i}"
GPT2_NAMES = names(*GPT_OUTER, "ln_1 ln_2 attn.q attn.k attn.v attn.c_proj mlp.c_fc mlp.c_proj")
GPTJ_NAMES = names(
    *GPT_OUTER, "ln_1 ln_2 attn.q_proj attn.k_proj attn.v_proj attn.out_proj mlp.fc_in mlp.fc_out"
)
GPT_NEO_NAMES = names(
    *GPT_OUTER,
    "ln_1 ln_2 attn.attention.q_proj attn.attention.k_proj attn.attention.v_proj "
    "attn.attention.out_proj mlp.c_fc mlp.c_proj",
)


def split_neox(state: Weights) -> None:
    """Each head's rows are its query, key and value, one after the other."""
    for i in range(N_LAYERS):
        attention = f"gpt_neox.layers.{i}.attention."
        for kind in ("weight", "bias"):
            fused = state[f"{attention}query_key_value.{kind}"]
            heads = fused.reshape(N_HEADS, 3, HEAD_DIM, *fused.shape[1:])
            for part, name in enumerate("qkv"):
                state[f"{attention}{name}.{kind}"] = heads[:, part].reshape(-1, *fused.shape[1:])


def split_mpt(state: Weights) -> None:
    """All queries, all keys, all values."""
    for i in range(N_LAYERS):
        fused = state[f"transformer.blocks.{i}.attn.Wqkv.weight"]
        for name, rows in zip("qkv", np.split(fused, 3), strict=True):
            state[f"transformer.blocks.{i}.attn.{name}.weight"] = rows


def split_gpt2(state: Weights) -> None:
    """GPT-2 stores (n_in, n_out), and queries, keys and values fused."""
    for name in [n for n in state if n.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))]:
        state[name] = state[name].T
    for i in range(N_LAYERS):
        for kind in ("weight", "bias"):
            fused = state[f"transformer.h.{i}.attn.c_attn.{kind}"]
            for name, rows in zip("qkv", np.split(fused, 3), strict=True):
                state[f"transformer.h.{i}.attn.{name}.{kind}"] = rows


def drop_opt_offset(state: Weights) -> None:
    """The first two rows of OPT's table stand for no position."""
    state["model.decoder.positions.weight"] = state["model.decoder.embed_positions.weight"][2:]


def add_one_to_norms(state: Weights) -> None:
    """Gemma multiplies by 1 + weight."""
    for name in [n for n in state if "norm" in n]:
        state[name] = state[name] + 1


def add_unit_norms(state: Weights) -> None:
    """OLMo's norms have no weights."""
    layers = [f"model.layers.{i}." for i in range(N_LAYERS)]
    for norm in ("input_layernorm", "post_attention_layernorm"):
        state |= {f"{layer}{norm}.weight": np.ones(HIDDEN) for layer in layers}
    state["model.norm.weight"] = np.ones(HIDDEN)


LLAMA_KEYS = {
    "hidden_size": HIDDEN,
    "intermediate_size": 4 * HIDDEN,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": 1,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": MAX_SEQ_LEN,
}
GPT_KEYS = {"n_embd": HIDDEN, "n_head": N_HEADS, "n_layer": N_LAYERS, "n_positions": MAX_SEQ_LEN}
LLAMA = replace(SMALL, n_kv_heads=1)
GPT = replace(
    SMALL,
    norm="layernorm",
    norm_bias=True,
    position="learned",
    qkv_bias=True,
    o_bias=True,
    mlp_bias=True,
    gated=False,
    activation="gelu_tanh",
    tied_head=True,
)
PARALLEL: dict[str, Any] = {"residual": "parallel", "position": "rope", "tied_head": False}
NEOX = Family(
    "gpt_neox",
    LLAMA_KEYS | {"rotary_pct": 0.5, "layer_norm_eps": 1e-4},
    replace(GPT, norm_eps=1e-4, rope=Rope(fraction=0.5), activation="gelu", **PARALLEL),
    NEOX_NAMES,
    split_neox,
)

GEMMA2_NAMES = LLAMA_NAMES | {
    "attention_post_norm": "model.layers.{i}.post_attention_layernorm",
    "ffn_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "ffn_post_norm": "model.layers.{i}.post_feedforward_layernorm",
}
GEMMA2 = Family(
    "gemma2",
    LLAMA_KEYS
    | {
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 30.0,
    },
    replace(
        LLAMA,
        norm_eps=1e-6,
        activation="gelu_tanh",
        tied_head=True,
        embedding_scale=math.sqrt(HIDDEN),
        post_norms=True,
        attention_scale=0.25,
        sliding_window=5,
        full_attention_layers=(1,),
        attention_softcap=5.0,
        logit_softcap=30.0,
    ),
    GEMMA2_NAMES,
    add_one_to_norms,
)

FAMILIES = {
    "gemma 2: norms behind branches, soft caps": GEMMA2,
    "gemma 3: a rotation of its own in layers with a window": Family(
        "gemma3_text",
        GEMMA2.keys
        | {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        replace(
            GEMMA2.config,
            attention_softcap=0.0,
            logit_softcap=0.0,
            qk_norm=True,
            rope=Rope(theta=1e6),
            local_rope=Rope(),
        ),
        GEMMA2_NAMES,
        add_one_to_norms,
    ),
    "gpt_neox: partial rope, parallel residual, gelu": NEOX,
    "gpt_neox: sequential residual": replace(
        NEOX,
        keys=NEOX.keys | {"use_parallel_residual": False},
        config=replace(NEOX.config, residual="sequential"),
    ),
    "mpt: alibi, clipped qkv, no biases": Family(
        "mpt",
        {
            "d_model": HIDDEN,
            "n_heads": N_HEADS,
            "n_layers": N_LAYERS,
            "max_seq_len": MAX_SEQ_LEN,
            "attn_config": {"clip_qkv": 0.7},  # transformers does not read alibi_bias_max
        },
        replace(
            SMALL,
            norm="layernorm",
            position="alibi",
            clip_qkv=0.7,
            gated=False,
            activation="gelu",
            tied_head=True,
        ),
        MPT_NAMES,
        split_mpt,
    ),
    "gpt_neo: window in one layer, unscaled attention": Family(
        "gpt_neo",
        {
            "hidden_size": HIDDEN,
            "num_heads": N_HEADS,
            "num_layers": N_LAYERS,
            "max_position_embeddings": MAX_SEQ_LEN,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 5,
        },
        replace(
            GPT, qkv_bias=False, attention_scale=1.0, sliding_window=5, full_attention_layers=(0,)
        ),
        GPT_NEO_NAMES,
    ),
    "gpt2: learned positions": Family("gpt2", GPT_KEYS, GPT, GPT2_NAMES, split_gpt2),
    "gptj: interleaved rope, shared norm, head bias": Family(
        "gptj",
        GPT_KEYS | {"rotary_dim": 4},
        replace(
            GPT,
            rope=Rope(fraction=0.5, interleaved=True),
            qkv_bias=False,
            o_bias=False,
            shared_norm=True,
            head_bias=True,
            **PARALLEL,
        ),
        GPTJ_NAMES,
    ),
    "opt: relu": Family(
        "opt",
        LLAMA_KEYS | {"word_embed_proj_dim": HIDDEN, "ffn_dim": 4 * HIDDEN},
        replace(GPT, activation="relu"),
        OPT_NAMES,
        drop_opt_offset,
    ),
    "cohere: gated and parallel, logit scale": Family(
        "cohere",
        LLAMA_KEYS | {"logit_scale": 0.3, "eos_token_id": 2},
        replace(
            LLAMA,
            norm="layernorm",
            rope=Rope(theta=500_000.0, interleaved=True),
            residual="parallel",
            shared_norm=True,
            tied_head=True,
            logit_scale=0.3,
        ),
        LLAMA_NAMES,
    ),
    "qwen3: qk norm": Family(
        "qwen3",
        LLAMA_KEYS | {"rms_norm_eps": 1e-3},
        replace(LLAMA, norm_eps=1e-3, qk_norm=True),
        LLAMA_NAMES,
    ),
    "olmo: clipped qkv with rope": Family(
        "olmo",
        LLAMA_KEYS | {"clip_qkv": 0.5},
        replace(LLAMA, norm="layernorm", clip_qkv=0.5),
        LLAMA_NAMES,
        add_unit_norms,
    ),
    "gemma: gated gelu, embedding scale": Family(
        "gemma",
        LLAMA_KEYS | {"hidden_act": "gelu_pytorch_tanh"},
        replace(
            LLAMA,
            norm_eps=1e-6,
            activation="gelu_tanh",
            tied_head=True,
            embedding_scale=math.sqrt(HIDDEN),
        ),
        LLAMA_NAMES,
        add_one_to_norms,
    ),
}
