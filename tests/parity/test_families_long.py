"""Long texts: positions beyond 8,000 against transformers, and keys and values in fewer bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from tests.tiny import (
    FAMILY_NAMES,
    LONG_IDS,
    MPT,
    PHI3,
    TinyConfig,
    build_checkpoint,
    reference_logits,
    tiny_checkpoint,
)

pytestmark = pytest.mark.parity

N_TOKENS, SHOWN = 8300, 3  # positions compared: the last ones
IDS = np.random.default_rng(8).integers(3, 331, N_TOKENS).tolist()
SMALL = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32,
}  # fmt: skip


def _llama(kind: str, trained: int, longest: int, **parameters: Any) -> TinyConfig:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **parameters}
    if kind in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = trained
    keys = {"rope_parameters": rope, "max_position_embeddings": longest}
    return TinyConfig(f"long-{kind}", "llama", SMALL | keys)


def _phi3(trained: int) -> TinyConfig:
    rng = np.random.default_rng(2)
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": rng.uniform(1, 1.5, 16).tolist(),
        "long_factor": rng.uniform(1, 30, 16).tolist(),
        "original_max_position_embeddings": trained,
    }
    keys = {"rope_parameters": rope, "original_max_position_embeddings": trained}
    keys |= {"max_position_embeddings": 16_384, "hidden_size": 64}
    return TinyConfig("long-phi3", "phi3", PHI3 | SMALL | keys)


CONFIGS = [
    _llama("linear", 4096, 32_768, factor=8.0),  # as Llama-2-7B-32K
    _llama("dynamic", 2048, 2048, factor=2.0),
    _llama("yarn", 2048, 16_384, factor=8.0),
    _llama("llama3", 2048, 16_384, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0),
    _phi3(4096),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def last_logits(folder: Path, n_alone: int = SHOWN - 1) -> np.ndarray:
    """At the last positions: a long prompt, then n_alone tokens one by one."""
    model = engine.load(folder, threads=1, max_seq_len=16_384, kv_cache="f32")
    assert model.max_seq_len == 16_384
    cache, n_prompt = model.decoder.new_cache(), N_TOKENS - n_alone
    rows = [model.decoder.extend(cache, IDS[:n_prompt])[0].copy()]
    rows += [model.decoder.extend(cache, [i])[0].copy() for i in IDS[n_prompt:]]
    return np.stack(rows)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_stretched_positions_beyond_8k_equal_transformers(
    config: TinyConfig, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = build_checkpoint(config, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    with torch.no_grad():
        expected = theirs(torch.tensor([IDS]), logits_to_keep=SHOWN).logits[0].numpy()
    # turned by the length of the text that is read at once, they stay so when it grows
    ours = last_logits(folder, 0 if config.name == "long-dynamic" else SHOWN - 1)
    expected = expected[-len(ours) :]
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_mpt_reads_on_beyond_its_trained_length_as_transformers_does(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    options = MPT | {"n_layers": 1, "n_heads": 1}  # transformers holds all scores at once
    config = TinyConfig("mpt", "mpt", options, is_like_llama=False)
    folder = build_checkpoint(config, tmp_path / "own")
    # transformers' own table of biases ends at max_seq_len; nothing else depends on it
    wide = shutil.copytree(folder, tmp_path / "wide")
    keys = json.loads((wide / "config.json").read_text()) | {"max_seq_len": 16_384}
    (wide / "config.json").write_text(json.dumps(keys))
    theirs = AutoModelForCausalLM.from_pretrained(wide, dtype=torch.float32, local_files_only=True)
    with torch.no_grad():
        expected = theirs(torch.tensor([IDS])).logits[0, -SHOWN:].numpy()
    ours = last_logits(folder)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_keys_and_values_in_fewer_bytes_give_nearly_the_same(name: str) -> None:
    folder = tiny_checkpoint(name)
    expected = reference_logits(folder, LONG_IDS)
    for kv_cache, most in (("f16", 0.001), ("q8", 0.03)):
        model = engine.load(folder, threads=1, kv_cache=kv_cache)
        off = (model.logits(LONG_IDS) - expected).std()
        assert off < most * expected.std(), (kv_cache, off / expected.std())
