"""Tiny random checkpoints saved by transformers, and what transformers computes with them.

The shapes are odd on purpose: no size is a multiple of 32, and heads may be wider than
hidden_size / n_heads. The weights are large enough that the likeliest token leads clearly, so that
an error shows up in the text. torch and transformers are imported inside the functions: collecting
tests stays quick.
"""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

VOCAB_SIZE = 331
BOS, EOS = 1, 2
# tokens that the rope scalings were "trained" on: LONG_IDS lie beyond, PROMPT_IDS within
TRAINED_LEN = 24
PROMPT_IDS = tuple(np.random.default_rng(0).integers(3, VOCAB_SIZE, 20).tolist())
LONG_IDS = tuple(np.random.default_rng(1).integers(3, VOCAB_SIZE, 60).tolist())


@dataclass(frozen=True)
class TinyConfig:
    """One checkpoint: options are the keys of transformers' config for model_type."""

    name: str
    model_type: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    dtype: str = "float32"  # as stored
    max_shard_size: str = "1GB"
    has_tokenizer: bool = False
    is_like_llama: bool = True  # in the names of its keys

    def config_keys(self) -> dict[str, Any]:
        """All keys for transformers: the defaults of this file and then the options."""
        defaults: dict[str, Any] = {
            "vocab_size": VOCAB_SIZE,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        }
        if not self.is_like_llama:
            return defaults | self.options
        defaults |= {
            "hidden_size": 200,
            "intermediate_size": 136,
            "num_hidden_layers": 2,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "head_dim": 40,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        }
        return defaults | self.options


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **parameters}
    if kind in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = TRAINED_LEN
    # "dynamic" stretches from max_position_embeddings itself
    longest = TRAINED_LEN if kind == "dynamic" else 4 * TRAINED_LEN
    return {"rope_parameters": rope, "max_position_embeddings": longest}


NARROW = {"hidden_size": 72, "num_hidden_layers": 3}
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

TINY_CONFIGS = (
    TinyConfig("llama", "llama", {"num_key_value_heads": 5}),
    TinyConfig("llama-tied", "llama", {"tie_word_embeddings": True, "num_hidden_layers": 3}),
    TinyConfig(
        "llama-grouped", "llama", NARROW | {"num_attention_heads": 6, "num_key_value_heads": 2}
    ),
    TinyConfig(
        "llama-biases",
        "llama",
        NARROW | {"num_attention_heads": 3, "attention_bias": True, "mlp_bias": True},
    ),
    TinyConfig("llama-theta", "llama", {"rope_parameters": {"rope_theta": 500_000.0}}),
    TinyConfig("llama-linear", "llama", _rope("linear", factor=2.5)),
    TinyConfig("llama-dynamic", "llama", _rope("dynamic", factor=4.0)),
    TinyConfig("llama-llama3", "llama", _rope("llama3", **LLAMA3)),
    TinyConfig("llama-yarn", "llama", _rope("yarn", factor=4.0)),
    TinyConfig(
        "llama-yarn-mscale",
        "llama",
        _rope("yarn", factor=4.0, mscale=0.7, mscale_all_dim=1.2, truncate=False, beta_fast=8.0),
    ),
    TinyConfig("llama-bfloat16", "llama", dtype="bfloat16"),
    TinyConfig("llama-float16", "llama", dtype="float16"),
    TinyConfig(
        "llama-sharded", "llama", NARROW | {"num_attention_heads": 3}, max_shard_size="60KB"
    ),
    TinyConfig("llama-chat", "llama", has_tokenizer=True),
    TinyConfig("mistral", "mistral", NARROW | {"sliding_window": None}),
    TinyConfig("mistral-window", "mistral", {"sliding_window": 7, "num_key_value_heads": 5}),
    TinyConfig("qwen2", "qwen2", NARROW),
    TinyConfig("qwen2-tied", "qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 5}),
    TinyConfig(
        "qwen2-window",
        "qwen2",
        {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 1,
        },
    ),
)
TINY_NAMES = tuple(config.name for config in TINY_CONFIGS)

NEOX = {
    "hidden_size": 120, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": 128, "rotary_pct": 0.5, "layer_norm_eps": 1e-4,
}  # fmt: skip
GPT = {"n_embd": 72, "n_layer": 2, "n_head": 3, "n_positions": 128}
GPT_NEO = {
    "hidden_size": 72, "num_layers": 3, "num_heads": 3, "max_position_embeddings": 128,
    "attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": 7,
}  # fmt: skip
OPT = {
    "hidden_size": 72, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 136,
    "max_position_embeddings": 128, "word_embed_proj_dim": 72, "pad_token_id": 0,
}  # fmt: skip
MPT = {"d_model": 72, "n_heads": 3, "n_layers": 2, "max_seq_len": 128}
PHI3 = {"num_key_value_heads": 1, "num_attention_heads": 3, "hidden_size": 120, "pad_token_id": 0}
GEMMA = {
    "num_hidden_layers": 3, "num_attention_heads": 3, "hidden_size": 72, "head_dim": 24,
    "sliding_window": 7, "query_pre_attn_scalar": 40, "tie_word_embeddings": True,
}  # fmt: skip


def _longrope(trained_len: int) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    scaling = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": rng.uniform(1, 1.5, 20).tolist(),
        "long_factor": rng.uniform(1, 6, 20).tolist(),
        "original_max_position_embeddings": trained_len,
    }
    return {"rope_parameters": scaling, "original_max_position_embeddings": trained_len}


def _family(name: str, model_type: str, options: dict[str, Any]) -> TinyConfig:
    return TinyConfig(name, model_type, options, is_like_llama=False)


# the other families: their options, and sizes that need padding
FAMILY_CONFIGS = (
    _family("neox", "gpt_neox", NEOX),
    _family(
        "neox-sequential", "gpt_neox",
        NEOX | {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 1.0},
    ),
    _family("mpt", "mpt", MPT),
    _family("mpt-clipped", "mpt", MPT | {"n_heads": 4, "attn_config": {"clip_qkv": 0.7}}),
    _family("mpt-scaled", "mpt", MPT | {"attn_config": {"softmax_scale": 0.3}}),
    _family("gpt-neo", "gpt_neo", GPT_NEO),
    _family("opt", "opt", OPT),
    _family("gpt2", "gpt2", GPT),
    _family("gpt2-inner", "gpt2", GPT | {"n_inner": 100, "scale_attn_weights": False}),
    _family("gptj", "gptj", GPT | {"rotary_dim": 8}),
    TinyConfig("phi3", "phi3", PHI3),
    TinyConfig("phi3-window", "phi3", PHI3 | {"sliding_window": 7, "tie_word_embeddings": True}),
    TinyConfig("phi3-longrope", "phi3", PHI3 | _longrope(TRAINED_LEN)),
    TinyConfig("gemma2", "gemma2", GEMMA),
    TinyConfig("gemma2-no-caps", "gemma2",
               GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    TinyConfig("gemma3", "gemma3_text", GEMMA | {"sliding_window_pattern": 3}),
)  # fmt: skip
FAMILY_NAMES = tuple(config.name for config in FAMILY_CONFIGS)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_TRAINING_TEXT = (
    "The quick brown fox jumps over the lazy dog, and then the dog jumps over the fox.",
    "What is the capital of Switzerland? The capital of Switzerland is Bern.",
    "def add(first, second):\n    return first + second\n",
    "Übung macht den Meister; 1, 2, 3, 10, 100.",
)


@cache
def tiny_checkpoint(name: str) -> Path:
    """The folder of the config called name, built once and removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = next(c for c in (*TINY_CONFIGS, *FAMILY_CONFIGS) if c.name == name)
    return build_checkpoint(config, folder)


def build_checkpoint(config: TinyConfig, folder: Path, seed: int = 0) -> Path:
    """Save a model of config with random weights, safetensors and JSON; returns folder.

    The weights depend on the name, the seed and the shapes only, not on torch's generator.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    _be_quiet()
    hf_config = AutoConfig.for_model(config.model_type, **config.config_keys())
    model = AutoModelForCausalLM.from_config(hf_config)
    randomize(model, zlib.crc32(f"{config.name} {seed}".encode()))
    model.to(getattr(torch, config.dtype))
    model.save_pretrained(folder, max_shard_size=config.max_shard_size)
    if config.has_tokenizer:
        save_tokenizer(folder)
    return folder


def randomize(model: Any, seed: int) -> None:
    """Overwrite every parameter of a torch model; the logits' standard deviation becomes 4."""
    import torch

    rng = np.random.default_rng(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = rng.standard_normal(tuple(parameter.shape))
        if name.endswith("bias"):
            noise *= 0.3
        elif parameter.ndim == 1:
            noise = 1 + 0.2 * noise
        elif parameter.shape[0] == model.config.vocab_size:  # embedding and head
            noise *= 4 / math.sqrt(parameter.shape[1])
        else:
            noise *= 1.2 / math.sqrt(min(parameter.shape))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(noise))


def save_tokenizer(folder: Path) -> None:
    """A byte-level BPE of VOCAB_SIZE tokens with ChatML's special tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=1,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],  # 0, BOS, EOS
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


@cache
def reference_model(folder: Path) -> Any:
    """transformers' model of a folder in float32; kept, so the folder must not change."""
    import torch
    from transformers import AutoModelForCausalLM

    _be_quiet()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def reference_logits(folder: Path, token_ids: Sequence[int]) -> np.ndarray:
    """(T, vocab_size) float32, all positions in one forward pass."""
    import torch

    with torch.no_grad():
        return reference_model(folder)(torch.tensor([list(token_ids)])).logits[0].numpy()


def reference_greedy(
    folder: Path, token_ids: Sequence[int], n_tokens: int, **options: Any
) -> list[int]:
    """The new tokens, at most n_tokens, of greedy decoding; the checkpoint's EOS ends and is in.

    options go to transformers' generate, eos_token_id (an id or a list) for example; an id that
    the model cannot give, such as -1, means that nothing ends the text early.
    """
    return reference_beams(folder, token_ids, 1, n_tokens, **options)[0][0]


def reference_beams(
    folder: Path, token_ids: Sequence[int], n_beams: int, n_tokens: int, **options: Any
) -> list[tuple[list[int], float]]:
    """(new tokens, score) of each sequence that beam search returns, best first.

    score = sum of log p / n_new_tokens ** length_penalty, an EOS counted as a token; 0 for greedy.
    options go to transformers' generate: length_penalty (0 = the plain sum, the default here),
    early_stopping (False, True, "never"), num_return_sequences, eos_token_id, repetition_penalty.
    """
    import torch

    model = reference_model(folder)
    prompt = torch.tensor([list(token_ids)])
    options = {"length_penalty": 0.0} | options if n_beams > 1 else options
    with torch.no_grad():
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=n_tokens,
            num_beams=n_beams,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    eos = options.get("eos_token_id", model.generation_config.eos_token_id)
    eos_ids = set(eos) if isinstance(eos, list) else {eos}
    sequences = output.sequences[:, prompt.shape[1] :].tolist()
    scores = output.sequences_scores.tolist() if n_beams > 1 else [0.0]
    return [
        (_through_first(new_ids, eos_ids), score)
        for new_ids, score in zip(sequences, scores, strict=True)
    ]


def _through_first(token_ids: list[int], ends: set[int]) -> list[int]:
    """token_ids up to and with the first of ends; what follows is padding."""
    for i, token_id in enumerate(token_ids):
        if token_id in ends:
            return token_ids[: i + 1]
    return token_ids


def _be_quiet() -> None:
    """No progress bars and advice from transformers in the test output."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
