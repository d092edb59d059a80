"""Whole conversations with checkpoints that bring no template of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from bot.chat import Chat
from bot.settings import Settings
from engine.checkpoints import open_checkpoint
from engine.export import Source, to_gguf, to_huggingface
from engine.tokenizer import load_tokenizer
from tests.tiny import FAMILY_CONFIGS, TINY_CONFIGS, VOCAB_SIZE, build_checkpoint

pytestmark = pytest.mark.parity

MPT_SYSTEM = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.<|im_end|>\n"
)


def named(folder: Path, config_name: str, specials: tuple[str, ...]) -> engine.Model:
    """A checkpoint whose tokenizer has a letter a token, and whose folder has the model's name."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    config = next(c for c in (*TINY_CONFIGS, *FAMILY_CONFIGS) if c.name == config_name)
    build_checkpoint(replace(config, has_tokenizer=False), folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*specials, *letters]
    words += [f"<unused{i}>" for i in range(VOCAB_SIZE - len(words))]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    keys = {"eos_token": specials[-1], "add_bos_token": "<s>" in specials, "bos_token": specials[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    longest = None if config_name == "gpt-neo" else 1024  # its positions are learned
    return engine.load(folder, threads=1, max_seq_len=longest)


@pytest.mark.parametrize(
    ("name", "config", "specials", "asked", "again"),
    [
        (
            "RedPajama-INCITE-Chat-3B-v1", "neox", ("<|endoftext|>",),
            "<human>: Hi\n<bot>:", "<human>: Hi\n<bot>: {answer}\n<human>: So\n<bot>:",
        ),
        (
            "mpt-7b-8k-chat", "mpt", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            MPT_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            MPT_SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
            "\n<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "Llama-2-7b-chat-hf", "llama", ("<s>", "</s>"),
            "[INST] Hi [/INST]", "[INST] Hi [/INST] {answer} </s><s>[INST] So [/INST]",
        ),
        ("TinyStories-33M", "gpt-neo", ("<|endoftext|>",), "Hi", "Hi{answer}\nSo"),
    ],
)  # fmt: skip
def test_a_conversation_has_the_form_that_the_name_promises(
    name: str, config: str, specials: tuple[str, ...], asked: str, again: str, tmp_path: Path
) -> None:
    model = named(tmp_path / name, config, specials)
    settings: dict[str, Any] = {"max_tokens": 12, "sample": False}
    chat = Chat(Settings(model=name, **settings))
    chat.use_model(model)
    assert chat.shown_prompt("Hi")[0] == asked
    turn = chat.turn("Hi")
    begins_with_bos = name.startswith("Llama")
    assert model.tokenizer is not None
    shown = model.tokenizer.decode(turn.ids, skip_special=False)
    assert shown == ("<s>" if begins_with_bos else "") + asked
    for _ in turn.steps(engine.Cancel()):
        continue
    answer = chat.exchanges[0].answer
    text, n_tokens, _ = chat.shown_prompt("So")
    assert text == again.format(answer=answer)
    ids = chat.turn("So").ids
    assert len(ids) == n_tokens
    n_control = sum(i < len(specials) for i in ids)
    assert n_control == begins_with_bos + sum(text.count(word) for word in specials)
    # what was computed for the first turn is there for the second
    assert model.cached_prefix(ids) >= len(turn.ids)
    assert specials.index(specials[-1]) in model.stop_ids


def test_a_form_is_kept_by_what_is_exported(tmp_path: Path) -> None:
    model = named(tmp_path / "RedPajama-INCITE-Chat-3B-v1", "neox", ("<|endoftext|>",))
    source = Source(model.path)
    to_huggingface(tmp_path / "mine", source, model.logits, "f32")
    file = to_gguf(tmp_path / "mine.gguf", source, model.logits, "f32").path
    again = to_huggingface(tmp_path / "again", Source(file), model.logits, "f32").path
    for path in (tmp_path / "mine", file, again):
        tokenizer = load_tokenizer(open_checkpoint(path))
        assert tokenizer is not None and tokenizer.template.name == "human_bot", path
