"""llama2.c's files against a NumPy twin of run.c, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import engine
from engine.checkpoints import open_checkpoint
from engine.tokenizer import load_tokenizer
from tests.engine import llama2c_twin as twin
from tests.engine.llama2c_twin import Sizes

IDS = [1, 270, 5, 300, 17, 299, 262, 259, 260, 311, 42]
TEXTS = ("Once the world", " hello,  é!\n\nthe\tcat", "12 ✓ ß", "a", "  ", "<s> in </s>", "<0x41>")


def model_file(
    folder: Path, version: int = 0, sizes: Sizes | None = None, group: int = 32, name: str = "m.bin"
) -> Path:
    sizes = sizes or Sizes()
    return twin.write_model(folder / name, sizes, twin.random_weights(sizes), version, group)


@pytest.mark.parametrize(
    ("version", "sizes"),
    [
        (0, Sizes()),
        (0, Sizes(own_head=True, n_kv_heads=4)),
        (1, Sizes(own_head=True)),
        (1, Sizes(n_kv_heads=1, dim=72, n_heads=6, hidden_dim=50)),
    ],
)
def test_logits_are_those_of_the_twin(tmp_path: Path, version: int, sizes: Sizes) -> None:
    path = model_file(tmp_path, version, sizes)
    found = engine.load(path).logits(IDS)
    expected = twin.Reader(path).logits(IDS)
    assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("sizes", "group", "kind", "most"),
    [
        (Sizes(dim=64, hidden_dim=128), 64, "Q8_0", 0.02),
        (Sizes(own_head=True), 32, "Q8_0", 0.02),
        (Sizes(dim=48, hidden_dim=80), 16, "F32", 2e-5),  # no groups of Q8_0
        (Sizes(dim=64, hidden_dim=80), 64, "F32", 0.02),  # rows that begin within a group
    ],
)
def test_quantised_files_keep_their_numbers(
    tmp_path: Path, sizes: Sizes, group: int, kind: str, most: float
) -> None:
    path = model_file(tmp_path, 2, sizes, group)
    reader = twin.Reader(path)
    tensor = open_checkpoint(path).tensor("layers.1.w_down")
    assert tensor.kind == kind
    assert_allclose(tensor.float32(), reader.weights["w2"][1], rtol=1e-3)  # of float16 scales
    expected = reader.logits(IDS)
    assert np.abs(engine.load(path).logits(IDS) - expected).max() < most * np.abs(expected).max()


def test_a_file_is_known_by_its_contents(tmp_path: Path) -> None:
    for version in (0, 1, 2):
        path = model_file(tmp_path, version, name="no-suffix")
        assert open_checkpoint(path).decoder_config().n_layers == 2


def test_the_tokenizer_beside_it_cuts_and_joins_as_run_c(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    beside = twin.write_tokenizer(tmp_path / "tokenizer.bin", twin.vocabulary())
    tokenizer = load_tokenizer(open_checkpoint(path))
    assert tokenizer is not None
    reference = twin.Vocabulary(beside, Sizes().vocab_size)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=True)
        assert ids == reference.encode(text), text
        assert tokenizer.decode(ids).encode() == reference.decode(ids[1:]) == text.encode(), text
    assert tokenizer.stop_ids >= {twin.EOS}
    assert {1, 2} <= engine.load(path).stop_ids  # run.c ends at the next text's beginning


def test_older_tokenizers_have_characters_in_place_of_bytes(tmp_path: Path) -> None:
    pieces = twin.vocabulary()
    old = [
        (chr(i - 3) if 3 <= i < 259 else piece, score) for i, (piece, score) in enumerate(pieces)
    ]
    path = model_file(tmp_path)
    ids = []
    for vocabulary in (pieces, old):
        twin.write_tokenizer(tmp_path / "tokenizer.bin", vocabulary)
        tokenizer = load_tokenizer(open_checkpoint(path))
        assert tokenizer is not None
        ids.append([tokenizer.encode(text) for text in TEXTS])
    assert ids[0] == ids[1]


def test_a_model_without_a_tokenizer_gives_logits(tmp_path: Path) -> None:
    model = engine.load(model_file(tmp_path))
    assert model.tokenizer is None and len(model.logits(IDS)) == len(IDS)


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("change", [-1, -4000, 4])
def test_a_file_of_another_size_is_refused(tmp_path: Path, version: int, change: int) -> None:
    path = model_file(tmp_path, version)
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(ValueError, match=rf"m\.bin: [0-9,]+ bytes, .* {len(data):,}; get the file"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("at", "number", "message"),
    [
        (4, 3, "version 3 of llama2.c's format"),
        (8, 0, "hidden_size is 0, it must be from 1 to"),
        (16, -2, "n_layers is -2"),
        (20, 5, "hidden_size 64 is not 5 heads of an even size"),
        (24, 3, "n_heads 4 is not a multiple of n_kv_heads 3"),
        (28, 2**30, "vocab_size is 1073741824"),
        (37, 48, "groups of 48 numbers do not divide its matrices"),
        (37, 0, "groups of 0 numbers"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, at: int, number: int, message: str) -> None:
    path = model_file(tmp_path, 2)
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, at, number)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_header_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(model_file(tmp_path, 1).read_bytes()[:100])
    with pytest.raises(ValueError, match="header of 256 bytes is cut off"):
        open_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"PK\3\4" + bytes(500), b"\x80\x02}q" * 100, bytes(4000)])
def test_other_files_are_not_taken_for_models(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"no model of llama2\.c"):
        open_checkpoint(path)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_headers_with_any_bytes_open_or_are_one_line(
    tmp_path: Path, version: int, rng: np.random.Generator
) -> None:
    path = model_file(tmp_path, version)
    data = bytearray(path.read_bytes())
    n_opened = 0
    for _ in range(100):
        changed = data.copy()
        for at in rng.integers(0, 48, rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            checkpoint = open_checkpoint(path)
            for name in checkpoint.tensor_names():
                assert checkpoint.tensor(name).float32().size
            n_opened += 1
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert n_opened < 95


def damaged_tokenizers() -> dict[str, tuple[bytes, str]]:
    entry = struct.Struct("<fI")
    good = b"".join(entry.pack(s, len(p.encode())) + p.encode() for p, s in twin.vocabulary())
    head = struct.pack("<I", 7)
    return {
        "cut": (head + good[:-1], "it ends within token 324"),
        "cut in an entry": (head + good + b"\0" * 3, "it ends within token 325"),
        "another model's": (head + good[:-10], "324 tokens, the model beside it has 325"),
        "a size beyond the file": (
            head + entry.pack(0, 2**31) + good, "it ends within token 0; get the file again",
        ),
        "no UTF-8": (head + entry.pack(0, 1) + b"\xff" + good, "token 0 is not UTF-8"),
        "empty": (b"", "0 tokens, the model beside it has"),
    }  # fmt: skip


@pytest.mark.parametrize("name", damaged_tokenizers())
def test_a_damaged_tokenizer_is_named(tmp_path: Path, name: str) -> None:
    data, message = damaged_tokenizers()[name]
    path = model_file(tmp_path)
    (tmp_path / "tokenizer.bin").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        engine.load(path)
    assert str(tmp_path / "tokenizer.bin") in str(caught.value)
    assert "\n" not in str(caught.value)
