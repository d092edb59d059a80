"""A tiny Llama with a tokenizer as a Hugging Face folder, and rows that it can learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.engine.training.fakes import CHARACTER_OF

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = len(CONTROL) + 256
HIDDEN, INTERMEDIATE, N_LAYERS, N_HEADS, N_KV_HEADS = 32, 48, 2, 4, 2
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """The folder of a random model of 259 tokens."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(np.random.default_rng(seed)), folder / "model.safetensors")
    _write_tokenizer(folder)
    return folder


def write_rows(path: Path, n: int = 40, seed: int = 0) -> Path:
    """Rows of messages: sums, whose answers can be learned."""
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        for _ in range(n):
            a, b = (int(x) for x in rng.integers(0, 50, 2))
            turns = [
                {"role": "user", "content": f"What is {a} and {b}?"},
                {"role": "assistant", "content": f"It is {a + b}."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    def matrix(n_out: int, n_in: int) -> np.ndarray:
        return (rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32)

    head_dim = HIDDEN // N_HEADS
    ones = np.ones(HIDDEN, np.float32)
    found = {"model.embed_tokens.weight": matrix(VOCAB_SIZE, HIDDEN), "model.norm.weight": ones}
    for i in range(N_LAYERS):
        prefix = f"model.layers.{i}."
        kv = N_KV_HEADS * head_dim
        for name, shape in {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (kv, HIDDEN),
            "self_attn.v_proj": (kv, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        }.items():
            found[f"{prefix}{name}.weight"] = matrix(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}{name}.weight"] = ones.copy()
    return found


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    words = [*CONTROL, *(CHARACTER_OF[byte] for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
