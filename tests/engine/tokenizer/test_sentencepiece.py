"""SentencePiece vocabularies against SentencePiece itself, on models trained here."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece as spm

from engine.templates import template_named
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.ggml import parts_from_ggml
from engine.tokenizer.sentencepiece_model import metadata_from_model

MODELS = {"bpe": "llama", "unigram": "t5"}


def sentences(text: str) -> Iterator[str]:
    chance, words = random.Random(0), text.split()
    yield from (line for line in text.split("\n") if line.strip())
    for _ in range(2000):
        yield " ".join(chance.choice(words) for _ in range(8))


def trained(text: str, kind: str, **options: Any) -> bytes:
    written = io.BytesIO()
    settings = {
        "vocab_size": 700,
        "byte_fallback": True,
        "character_coverage": 0.98,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
        **options,
    }
    spm.SentencePieceTrainer.train(
        sentence_iterator=sentences(text), model_writer=written, model_type=kind, **settings
    )
    return written.getvalue()


def metadata_of(model: spm.SentencePieceProcessor, kind: str, **more: Any) -> dict[str, Any]:
    """What a GGUF converter would write, asked of the library."""
    ids = range(model.get_piece_size())
    types = [
        6 if model.is_byte(i) else 3 if model.is_control(i) else 2 if model.is_unknown(i) else 1
        for i in ids
    ]
    return {
        "model": MODELS[kind],
        "tokens": [model.id_to_piece(i) for i in ids],
        "scores": [model.get_score(i) for i in ids],
        "token_type": types,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        **more,
    }


def tokenizer_of(metadata: dict[str, Any]) -> Tokenizer:
    parts = parts_from_ggml(metadata)
    assert parts is not None
    return Tokenizer(parts, template_named("plain"))


def samples(text: str) -> list[str]:
    chance = random.Random(1)
    alphabet = [c for c in text if c != "▁"]
    drawn = ["".join(chance.choices(alphabet, k=chance.randrange(30))) for _ in range(400)]
    few = ["".join(chance.choices("abeh ,t", k=chance.randrange(30))) for _ in range(400)]
    edges = ["", " ", "  a", "a  ", "\n", "</s>", "<s>hi", "<0x41>", "<unk>", "a </s> b"]
    # unigram: of two segmentations of a run with equal sums, either is right
    lines = [re.sub(r"(.{1,2})\1{20,}", r"\1", line) for line in text.replace("▁", "").split("\n")]
    return ["\n".join(lines), *lines, *drawn, *few, *edges]


@pytest.fixture(scope="module", params=MODELS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def library(kind: str, mixed_text: str) -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_proto=trained(mixed_text, kind))


@pytest.fixture(scope="module")
def ours(kind: str, library: spm.SentencePieceProcessor) -> Tokenizer:
    return tokenizer_of(metadata_of(library, kind))


def test_ids_equal_the_library_s(
    ours: Tokenizer, library: spm.SentencePieceProcessor, mixed_text: str
) -> None:
    for text in samples(mixed_text):
        assert ours.encode(text) == library.encode(text), text


def test_runs_are_merged_in_the_library_s_order(mixed_text: str) -> None:
    library = spm.SentencePieceProcessor(model_proto=trained(mixed_text, "bpe"))
    ours = tokenizer_of(metadata_of(library, "bpe"))
    for text in ("a" * 51, "ha" * 33, "=-" * 20, " " * 70 + "x", "=" * 81):
        assert ours.encode(text) == library.encode(text), text


def test_decoding_equals_the_library_s(
    ours: Tokenizer, library: spm.SentencePieceProcessor, mixed_text: str
) -> None:
    for text in samples(mixed_text):
        ids = library.encode(text)
        assert ours.decode(ids) == library.decode(ids) == text


def test_control_tokens_are_read_only_when_asked_for(ours: Tokenizer) -> None:
    assert ours.encode("a</s>", parse_special=True)[-1] == 2
    assert 2 not in ours.encode("a</s>")
    assert ours.decode(ours.encode("a</s>")) == "a</s>"


def test_the_prefix_space_can_be_off(kind: str, library: spm.SentencePieceProcessor) -> None:
    bare = tokenizer_of(metadata_of(library, kind, add_space_prefix=False))
    assert bare.decode(bare.encode("the heron")) == "the heron"
    assert bare.decode(bare.encode(" the")) == " the"
    assert not bare.token_bytes(bare.encode("the")[0]).startswith(b" ")


def test_bos_is_added_to_bpe_and_not_to_unigram(kind: str, ours: Tokenizer) -> None:
    assert ours.add_bos == (kind == "bpe")
    ids = ours.encode("a", add_special_tokens=True)
    assert ids == ([1, *ours.encode("a")] if kind == "bpe" else ours.encode("a"))


def test_pieces_spell_bytes(ours: Tokenizer, library: spm.SentencePieceProcessor) -> None:
    assert ours.token_bytes(library.piece_to_id("<0x0A>")) == b"\n"
    assert ours.token_bytes(library.piece_to_id("▁heron")) == b" heron"
    assert ours.token_bytes(1) == b""


def test_a_stream_loses_only_the_first_space(ours: Tokenizer) -> None:
    ids = ours.encode("the heron 龜 waited")
    detokenizer = ours.detokenizer()
    assert "".join(detokenizer.push(i) for i in ids) == "the heron 龜 waited"
    going_on = ours.detokenizer(continues=True)
    assert "".join(going_on.push(i) for i in ids) == " the heron 龜 waited"


def test_extra_spaces_go_where_the_model_removes_them(kind: str, mixed_text: str) -> None:
    data = trained(mixed_text, kind, remove_extra_whitespaces=True)
    library = spm.SentencePieceProcessor(model_proto=data)
    ours = tokenizer_of(metadata_of(library, kind, remove_extra_whitespaces=True))
    for text in samples(mixed_text):
        assert ours.encode(text) == library.encode(text), text


def test_a_model_s_own_file_says_what_the_library_says(
    kind: str, mixed_text: str, tmp_path: Path, checkpoint: Callable[..., Any]
) -> None:
    data = trained(mixed_text, kind, control_symbols=["<|end|>"])
    library = spm.SentencePieceProcessor(model_proto=data)
    (tmp_path / "tokenizer.model").write_bytes(data)
    found = metadata_from_model(tmp_path / "tokenizer.model")
    assert found == {
        **metadata_of(library, kind),
        "add_space_prefix": True,
        "remove_extra_whitespaces": False,
        "precompiled_charsmap": b"",
    }
    loaded = load_tokenizer(checkpoint(path=tmp_path, tokenizer_config={"add_bos_token": True}))
    assert loaded is not None
    assert loaded.encode("a heron", add_special_tokens=True) == [1, *library.encode("a heron")]
    assert loaded.encode("<|end|>", parse_special=True)[-1] in loaded.stop_ids


def test_text_is_normalized_by_the_model_s_own_map(
    kind: str, mixed_text: str, tmp_path: Path
) -> None:
    data = trained(mixed_text, kind, normalization_rule_name="nmt_nfkc")
    library = spm.SentencePieceProcessor(model_proto=data)
    (tmp_path / "tokenizer.model").write_bytes(data)
    charsmap = metadata_from_model(tmp_path / "tokenizer.model")["precompiled_charsmap"]
    # GGUF holds it as a list of numbers
    ours = tokenizer_of(metadata_of(library, kind, precompiled_charsmap=list(charsmap)))
    for text in ("ﬁnal ＡＢＣ ½ ｶﾀｶﾅ", "café Zürich", "tab\tand\u3000space", "①"):
        assert ours.encode(text) == library.encode(text), text


@pytest.mark.parity
def test_bpe_ids_equal_transformers(mixed_text: str) -> None:
    """On texts that begin with no space. Where one does, transformers 5 adds no space of its own,
    and SentencePiece, which trained these models, does; ours does too (see above)."""
    from transformers import LlamaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    library = spm.SentencePieceProcessor(model_proto=trained(mixed_text, "bpe"))
    metadata = metadata_of(library, "bpe")
    vocabulary = {piece: i for i, piece in enumerate(metadata["tokens"])}
    scores = dict(zip(metadata["tokens"], metadata["scores"], strict=True))
    merges = generate_merges(vocabulary, scores)
    theirs = LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=True)
    ours = tokenizer_of(metadata)
    for line in mixed_text.split("\n"):
        text = line.strip()
        assert ours.encode(text) == theirs.encode(
            text, add_special_tokens=False, split_special_tokens=True
        ), text
    chat = "<s>[INST] Hi [/INST]</s><s>[INST]a[/INST]"
    assert ours.encode(chat, parse_special=True) == theirs.encode(chat, add_special_tokens=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-7], "is no SentencePiece model"),
        (lambda data: b"\xff" * 40, "is no SentencePiece model"),
        (lambda data: b"not a protocol buffer", "is no SentencePiece model"),
        (lambda data: data + b"\x12\x02\x18\x03", "model type 3"),
    ],
)
def test_a_broken_model_file_is_one_line(
    damage: Callable[[bytes], bytes], message: str, mixed_text: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(damage(trained(mixed_text, "bpe")))
    with pytest.raises(ValueError, match=message):
        metadata_from_model(path)


def test_scores_are_needed(kind: str, library: spm.SentencePieceProcessor) -> None:
    metadata = metadata_of(library, kind)
    del metadata["scores"]
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.scores is missing"):
        tokenizer_of(metadata)


def test_a_broken_map_is_one_line(kind: str, library: spm.SentencePieceProcessor) -> None:
    metadata = metadata_of(library, kind, precompiled_charsmap=[1, 2, 3])
    with pytest.raises(ValueError, match="precompiled_charsmap is broken"):
        tokenizer_of(metadata)
