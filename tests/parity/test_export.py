"""Directories and files that are written here, in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import engine
from engine.adapters import Adapter
from engine.export import Source, to_gguf, to_huggingface
from engine.export.checking import compared
from tests.engine.test_low_rank import random_pairs
from tests.tiny import PROMPT_IDS, reference_logits, tiny_checkpoint

pytestmark = pytest.mark.parity

TALK = [
    {"role": "user", "content": "What is the capital of Switzerland?"},
    {"role": "assistant", "content": "Bern, with 134,000 people."},
    {"role": "user", "content": "Übung  macht\n\nden Meister, isn't it?  def f(x): return 3"},
]


def adapted(name: str) -> tuple[engine.Model, Source]:
    model = engine.load(tiny_checkpoint(name), kv_cache="f32")
    adapter = Adapter("polite", 4, 0.5, random_pairs(model.config, 4))
    model.set_adapter(adapter)
    return model, Source(model.path, adapter)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert_allclose(theirs, ours, rtol=1e-3, atol=2e-4 * np.abs(ours).max())


@pytest.mark.parametrize("name", ["llama", "llama-grouped", "llama-chat", "mistral", "qwen2-tied"])
def test_transformers_loads_a_merged_directory(name: str, tmp_path: Path) -> None:
    model, source = adapted(name)
    to_huggingface(tmp_path / "out", source, model.logits, "f32")
    assert_close(model.logits(PROMPT_IDS), reference_logits(tmp_path / "out", PROMPT_IDS))


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama-chat", "llama-theta", "qwen2"])
def test_transformers_loads_a_directory_that_was_a_gguf_file(name: str, tmp_path: Path) -> None:
    model, source = adapted(name)
    file = to_gguf(tmp_path / "out.gguf", source, model.logits, "f32").path
    to_huggingface(tmp_path / "out", Source(file), model.logits, "f32")
    assert_close(model.logits(PROMPT_IDS), reference_logits(tmp_path / "out", PROMPT_IDS))
    if model.tokenizer is not None:
        check_tokenizer(tmp_path / "out", model)


def test_transformers_reads_the_gguf_file_itself(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, source = adapted("llama-chat")
    to_gguf(tmp_path / "out.gguf", source, model.logits, "f16")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="out.gguf", dtype=torch.float32, local_files_only=True
    ).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor([list(PROMPT_IDS)])).logits[0].numpy()
    kl, _, same = compared(model.logits(PROMPT_IDS), logits)
    assert kl < 1e-3 and same > 0.9


@pytest.mark.slow
@pytest.mark.model
def test_the_default_model_s_file_becomes_a_directory(smollm2_path: Path, tmp_path: Path) -> None:
    model = engine.load(smollm2_path)
    rng = np.random.default_rng(0)
    pairs = {
        name: (a, b * np.float32(0.02 / np.abs(b).max()))
        for name, (a, b) in random_pairs(model.config, 8).items()
        if rng.random() < 0.5
    }
    adapter = Adapter("polite", 8, 2.0, pairs)
    model.set_adapter(adapter)
    source = Source(model.path, adapter)
    report = to_huggingface(tmp_path / "out", source, model.logits)
    assert (report.format, report.same) == ("f16", 1.0)
    ids = model.tokenizer.encode_chat(TALK)  # type: ignore[union-attr]
    kl, largest, same = compared(model.logits(ids), reference_logits(tmp_path / "out", ids))
    assert kl < 1e-4 and largest < 0.2 and same == 1
    check_tokenizer(tmp_path / "out", model)


def check_tokenizer(folder: Path, model: engine.Model) -> None:
    """transformers' tokenizer of a folder does what the model's does."""
    from transformers import AutoTokenizer

    ours = model.tokenizer
    assert ours is not None
    theirs: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for message in TALK:
        assert theirs(message["content"])["input_ids"] == ours.encode(message["content"])
    rendered = theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert rendered == ours.render(TALK)
    ids = ours.encode_chat(TALK)
    assert theirs(rendered, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids) == ours.decode(ids, skip_special=False)
    assert theirs.eos_token_id == ours.eos_token_id
