"""Tokenizers from Hugging Face directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from engine.tokenizer import Tokenizer, load_tokenizer

Loader = Callable[..., Tokenizer]


@pytest.fixture
def backend(byte_level_metadata: dict[str, Any]) -> Backend:
    """A byte-level tokenizer as a model's authors would publish it."""
    tokens = [t for t in byte_level_metadata["tokens"] if t != "<think>"]
    merges = [tuple(merge.split(" ")) for merge in byte_level_metadata["merges"]]
    made = Backend(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, normalized=False) for t in tokens[:3]])
    made.add_tokens([AddedToken("<tool>", normalized=False)])
    return made


@pytest.fixture
def load(tmp_path: Path, backend: Backend, checkpoint: Callable[..., Any]) -> Loader:
    """Save the backend and load it, with a tokenizer_config and other parts of a checkpoint."""

    def load(tokenizer_config: dict[str, Any] | None = None, **others: Any) -> Tokenizer:
        path = tmp_path / "tokenizer.json"
        backend.save(str(path))
        config = tokenizer_config or {"eos_token": "<|im_end|>"}
        loaded = load_tokenizer(
            checkpoint(path=tmp_path, tokenizer_json=path, tokenizer_config=config, **others)
        )
        assert loaded is not None
        return loaded

    return load


def test_ids_and_text_are_those_of_the_file(
    load: Loader, backend: Backend, mixed_text: str
) -> None:
    tokenizer = load()
    assert tokenizer.encode("hello world <tool>") == backend.encode("hello world <tool>").ids
    assert tokenizer.encode(mixed_text, parse_special=True) == backend.encode(mixed_text).ids
    assert tokenizer.decode(tokenizer.encode(mixed_text)) == mixed_text
    assert tokenizer.vocab_size == backend.get_vocab_size()


def test_special_tokens_are_named_by_strings_objects_or_the_older_file(
    load: Loader, tmp_path: Path
) -> None:
    older = {"pad_token": "<|endoftext|>", "eos_token": "overruled"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    tokenizer = load({"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"})
    found = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert found == (1, 2, 0)
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.stop_ids == {0, 2}


def test_ids_in_config_stand_in_for_missing_names(load: Loader) -> None:
    tokenizer = load({"padding_side": "left"}, config={"bos_token_id": 1, "eos_token_id": [2, 0]})
    assert tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_id is None
    assert tokenizer.stop_ids == {0, 2}


def test_the_post_processor_says_what_surrounds_a_text(load: Loader, backend: Backend) -> None:
    special = [("<|im_start|>", 1), ("<|im_end|>", 2)]
    backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=special
    )
    tokenizer = load()
    ids = tokenizer.encode("hello")
    assert tokenizer.add_bos
    assert tokenizer.encode("hello", add_special_tokens=True) == [1, *ids, 2]
    assert tokenizer.encode("", add_special_tokens=True) == [1, 2]
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    overruled = load({**named, "add_bos_token": False, "add_eos_token": True})
    assert overruled.encode("hello", add_special_tokens=True) == [*ids, 2]
    # a null says nothing
    assert load({**named, "add_bos_token": None}).add_bos


def test_tokens_that_only_the_config_lists_are_added(load: Loader, backend: Backend) -> None:
    n_tokens = backend.get_vocab_size()
    entry = {"content": "<|extra|>", "special": True, "normalized": False}
    tokenizer = load({"added_tokens_decoder": {str(n_tokens): entry}})
    assert tokenizer.encode("<|extra|>", parse_special=True) == [n_tokens]
    assert n_tokens in tokenizer.special_ids
    with pytest.raises(ValueError, match=rf"wants '<\|extra\|>' at {n_tokens + 7}"):
        load({"added_tokens_decoder": {str(n_tokens + 7): entry}})


def test_a_template_of_several_is_the_default_one(load: Loader) -> None:
    templates = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
    ]
    tokenizer = load({"bos_token": "<|im_start|>", "chat_template": templates})
    assert tokenizer.encode_chat([{"role": "user", "content": "hello"}])[0] == 1


@pytest.mark.parametrize("content", ["", "{", '{"model": 5}', '{"version": "1.0"}', "[]", "\x00"])
def test_a_broken_file_is_one_line(
    content: str, tmp_path: Path, checkpoint: Callable[..., Any]
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError) as raised:
        load_tokenizer(checkpoint(path=tmp_path, tokenizer_json=path))
    assert str(raised.value).startswith(f"{tmp_path}: tokenizer.json cannot be read: ")
    assert "\n" not in str(raised.value)


def test_truncation_and_padding_in_the_file_are_not_applied(load: Loader, backend: Backend) -> None:
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    assert len(load().encode("a b c")) == 5


@pytest.mark.parity
def test_a_saved_directory_gives_transformers_ids(
    tmp_path: Path, backend: Backend, checkpoint: Callable[..., Any], mixed_text: str
) -> None:
    from transformers import PreTrainedTokenizerFast

    saved = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        add_bos_token=True,
    )
    saved.save_pretrained(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    path = tmp_path / "tokenizer.json"
    ours = load_tokenizer(checkpoint(path=tmp_path, tokenizer_json=path, tokenizer_config=config))
    assert ours is not None
    assert ours.encode(mixed_text, parse_special=True, add_special_tokens=True) == theirs.encode(
        mixed_text
    )
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
