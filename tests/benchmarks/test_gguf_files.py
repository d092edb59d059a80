"""Files that the benchmarks make for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize

import engine
from benchmarks import gguf_files
from benchmarks.shapes import Shape


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("SPARSECHAT_BENCH", str(tmp_path / "bench"))
    return tmp_path / "bench"


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A file with one matrix, an embedding and a norm, in float32."""
    path = tmp_path / "tiny.F32.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "bé"])
    writer.add_array("some.floats", [0.5, 1.5])
    for name, shape in (
        ("token_embd.weight", (2, 64)),
        ("blk.0.attn_q.weight", (64, 64)),
        ("blk.0.attn_norm.weight", (64,)),
        ("blk.0.odd.weight", (4, 33)),
    ):
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("kind", "file_type"), [("Q4_0", 2), ("Q8_0", 7)])
def test_requantised_file_has_the_metadata_and_the_tensors(
    source: Path, kind: str, file_type: int
) -> None:
    before, after = GGUFReader(source), GGUFReader(gguf_files.requantised(source, kind))
    kinds = {t.name: t.tensor_type.name for t in after.tensors}
    assert kinds == {
        "token_embd.weight": "Q8_0",
        "blk.0.attn_q.weight": kind,
        "blk.0.attn_norm.weight": "F32",
        "blk.0.odd.weight": "F32",  # rows that are no whole number of blocks
    }
    old = {name: field.contents() for name, field in before.fields.items()}
    new = {name: field.contents() for name, field in after.fields.items()}
    assert new == old | {"general.file_type": file_type}
    for mine, theirs in zip(after.tensors, before.tensors, strict=True):
        values = dequantize(mine.data, mine.tensor_type)
        step = {"Q4_0": 1 / 8, "Q8_0": 1 / 127}.get(mine.tensor_type.name, 0.0)
        largest = np.abs(theirs.data).max(axis=-1, keepdims=True)
        assert (np.abs(values - theirs.data) <= step * largest * 1.01).all()


def test_file_is_made_once_and_named_after_its_source(source: Path, bench: Path) -> None:
    first = gguf_files.requantised(source, "Q4_0")
    made = first.stat().st_mtime_ns
    assert gguf_files.requantised(source, "Q4_0") == first
    assert first.stat().st_mtime_ns == made
    assert [p.name for p in (bench / "models").iterdir()] == [first.name]
    assert gguf_files.kind_of(source) == "F32"
    assert gguf_files.kind_of(first) == "Q4_0"


def test_interrupted_file_is_not_left_behind(
    source: Path, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_files, "_metadata", stop)
    with pytest.raises(KeyboardInterrupt):
        gguf_files.requantised(source, "Q4_0")
    assert list((bench / "models").iterdir()) == []


def test_engine_decodes_a_file_of_a_named_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gguf_files.SHAPES, "tiny", Shape(2, 64, 96, 4, 2, 128))
    path = gguf_files.of_shape("tiny")
    assert {t.tensor_type for t in GGUFReader(path).tensors} == {
        GGMLQuantizationType.Q4_0,
        GGMLQuantizationType.Q8_0,
        GGMLQuantizationType.F32,
    }
    model = engine.load(path, threads=1)
    logits = model.logits([1, 2, 3])
    model.close()
    assert logits.shape == (3, 128)
    assert np.isfinite(logits).all() and 0.01 < logits.std() < 100
