"""Tokenizers from GGUF to Hugging Face's files and back: the same tokens for the same text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.export.ggml_tokenizer import ggml_keys
from engine.export.tokenizer_files import write_tokenizer
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.pre_tokenizers import KINDS, pre_tokenizer
from engine.tokenizer.spelling import BYTE_OF

TEXT = (Path(__file__).parents[2] / "golden" / "text" / "mixed.txt").read_text(encoding="utf-8")
LINES = [
    *TEXT.split("\n"),
    TEXT,
    "",
    " ",
    "  a",
    "a  b ",
    "1234567 12",
    "I'll <think> it's",
    "<s>hi",
]
CHARACTER_OF = {byte: char for char, byte in BYTE_OF.items()}


@dataclass
class Stored:
    """As much of a checkpoint as tokenizers are read from."""

    path: Path
    ggml_tokenizer: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None

    @property
    def tokenizer_json(self) -> Path | None:
        file = self.path / "tokenizer.json"
        return file if file.is_file() else None

    def decoder_config(self) -> Any:
        return SimpleNamespace(max_seq_len=512)


def directory(folder: Path) -> Stored:
    """A Hugging Face directory, as engine.checkpoints.huggingface reads it."""
    import json

    config = json.loads((folder / "tokenizer_config.json").read_text())
    return Stored(folder, tokenizer_config=config)


def loaded(checkpoint: Stored) -> Tokenizer:
    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer is not None
    return tokenizer


def assert_same(found: Tokenizer, expected: Tokenizer) -> None:
    for line in LINES:
        assert found.encode(line) == expected.encode(line), line
        ids = expected.encode(line, add_special_tokens=True)
        assert found.encode(line, add_special_tokens=True) == ids
        assert found.decode(ids) == expected.decode(ids)
    assert found.bos_token_id == expected.bos_token_id
    assert found.eos_token_id == expected.eos_token_id
    assert found.special_ids == expected.special_ids


def there_and_back(metadata: Mapping[str, Any], folder: Path) -> tuple[Stored, dict[str, Any]]:
    """Write the files, check them, and give them with the keys that they become again."""
    original = Stored(folder / "model.gguf", metadata)
    folder.mkdir()
    write_tokenizer(folder, original)
    written = directory(folder)
    assert_same(loaded(written), loaded(original))
    keys = ggml_keys(written, len(metadata["tokens"]))
    back = {key.removeprefix("tokenizer.ggml."): value for key, value in keys.items()}
    assert_same(loaded(Stored(folder.parent / "x.gguf", back)), loaded(original))
    return written, back


def byte_level(**more: Any) -> dict[str, Any]:
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "1 2"]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [CHARACTER_OF[byte] for byte in range(256)]
    tokens = [*control, *words, *(merge.replace(" ", "") for merge in merges), "<think>"]
    types = [3] * 3 + [1] * (len(tokens) - 4) + [4]
    metadata = {"model": "gpt2", "pre": "smollm", "tokens": tokens, "token_type": types}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "add_bos_token": False}
    return metadata | {"merges": merges} | ids | more


def sentencepiece(kind: str, **more: Any) -> dict[str, Any]:
    import sentencepiece as spm

    from tests.engine.tokenizer.test_sentencepiece import metadata_of, trained

    model = spm.SentencePieceProcessor(model_proto=trained(TEXT, kind))
    return metadata_of(model, kind, **more)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-neox", "tekken"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_byte_level_vocabularies(tmp_path: Path, pre: str, adds_bos: bool) -> None:
    metadata = byte_level(pre=pre, add_bos_token=adds_bos)
    _, back = there_and_back(metadata, tmp_path / "files")
    assert KINDS[back["pre"]] == KINDS[pre] or not KINDS[pre].adds_bos
    for key in ("model", "tokens", "token_type", "merges", "add_bos_token", "eos_token_id"):
        assert back[key] == metadata[key]
    assert back["pre"] != "gpt-neox"  # llama.cpp does not know that name


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece_vocabularies(tmp_path: Path, kind: str, prefix: bool) -> None:
    metadata = sentencepiece(kind, add_space_prefix=prefix)
    _, back = there_and_back(metadata, tmp_path / "files")
    for key in ("model", "tokens", "token_type", "add_space_prefix", "unknown_token_id"):
        assert back[key] == metadata[key], key


def test_a_sentencepiece_file_becomes_keys(tmp_path: Path) -> None:
    from tests.engine.tokenizer.test_sentencepiece import trained

    (tmp_path / "tokenizer.model").write_bytes(trained(TEXT, "bpe"))
    original = Stored(tmp_path, tokenizer_config={"add_bos_token": False})
    keys = ggml_keys(original, 704)
    back = {key.removeprefix("tokenizer.ggml."): value for key, value in keys.items()}
    assert (len(back["tokens"]), back["tokens"][-1]) == (704, "[PAD703]")
    assert back["add_bos_token"] is False
    assert_same(loaded(Stored(tmp_path.parent / "x.gguf", back)), loaded(original))


@pytest.mark.parametrize("pre", sorted(set(KINDS)))
def test_every_way_to_cut_words_has_a_name_that_cuts_so(pre: str) -> None:
    from engine.export.ggml_tokenizer import _PROBE, _pre_name

    kind = KINDS[pre]
    normalizer = {"type": "NFC"} if kind.nfc else None
    data = {"normalizer": normalizer, "model": {"ignore_merges": kind.ignore_merges}}
    name = _pre_name(SimpleNamespace(pre_tokenizer=pre_tokenizer(kind)), data)  # type: ignore[arg-type]
    assert KINDS[name].splits == kind.splits or (
        pre_tokenizer(KINDS[name]).pre_tokenize_str(_PROBE + TEXT)
        == pre_tokenizer(kind).pre_tokenize_str(_PROBE + TEXT)
    )


def test_the_template_and_the_ends_of_turns_travel(tmp_path: Path) -> None:
    metadata = byte_level(eos_token_id=0, eot_token_id=2)
    tmp_path = tmp_path / "files"
    tmp_path.mkdir()
    write_tokenizer(
        tmp_path, Stored(tmp_path / "m", metadata, tokenizer_config={"chat_template": "T"})
    )
    written = directory(tmp_path)
    assert written.tokenizer_config["chat_template"] == "T"
    assert written.tokenizer_config["model_max_length"] == 512
    written.chat_template = "T"
    keys = ggml_keys(written, len(metadata["tokens"]))
    assert keys["tokenizer.chat_template"] == "T"
    assert (keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.ggml.eot_token_id"]) == (0, 2)


def test_tokenizers_without_words_for_them_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    backend.decoder = decoders.ByteLevel()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="cuts words in a way that GGUF has no name for"):
        ggml_keys(Stored(tmp_path), 2)
    backend.normalizer = normalizers.Lowercase()
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="normalises texts in a way that GGUF has no name for"):
        ggml_keys(Stored(tmp_path), 2)
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizer(KINDS["smollm"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="there are 2 tokens for 1 rows"):
        ggml_keys(Stored(tmp_path), 1)


def test_a_checkpoint_without_a_tokenizer_gets_none(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, Stored(tmp_path / "m"))
    assert list(tmp_path.iterdir()) == []
    assert ggml_keys(Stored(tmp_path, chat_template="T"), 5) == {"tokenizer.chat_template": "T"}
