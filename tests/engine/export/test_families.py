"""Every family to GGUF, to a Hugging Face directory and back."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

import engine
from engine.adapters import Adapter
from engine.checkpoints import open_checkpoint
from engine.export import Source, exporting, to_gguf, to_huggingface
from engine.export.gguf import write_file
from engine.export.huggingface import write_files
from tests.engine.export.families import (
    BY_HAND,
    FAMILIES,
    THERE_AND_BACK,
    WIDE,
    family_checkpoint,
    made_by_hand,
)
from tests.engine.gguf_families import converted
from tests.engine.test_low_rank import random_pairs
from tests.tiny import FAMILY_NAMES, LONG_IDS, reference_logits

pytestmark = pytest.mark.parity
# what llama.cpp's converter writes without further ado; it knows one pattern of windows
CONVERTED = tuple(name for name in FAMILIES if name not in ("gemma3-24", "neox-tanh"))


@cache
def model_of(name: str) -> engine.Model:
    return engine.load(family_checkpoint(name), threads=2, kv_cache="f32")


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(folder / "model.safetensors")
    return found


def gguf_file(path: Path, source: Source, format_name: str) -> Path:
    with path.open("wb") as out:
        write_file(out, source, format_name, path.stem)
    return path


def directory(path: Path, source: Source, number: str = "F32") -> Path:
    path.mkdir()
    write_files(path, source, number)
    return path


@pytest.mark.parametrize("name", CONVERTED)
def test_files_of_llama_cpp_s_converter_give_the_directory_s_logits(
    tmp_path: Path, name: str
) -> None:
    written = converted(tmp_path / "m.gguf", family_checkpoint(name))
    ours = engine.load(written, threads=2, kv_cache="f32").logits(LONG_IDS)
    expected = model_of(name).logits(LONG_IDS)
    assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", CONVERTED)
def test_files_hold_the_tensors_and_keys_of_llama_cpp_s_converter(
    tmp_path: Path, name: str
) -> None:
    folder = family_checkpoint(name)
    theirs = gguf.GGUFReader(converted(tmp_path / "theirs.gguf", folder))
    ours = gguf.GGUFReader(gguf_file(tmp_path / "ours.gguf", Source(folder), "f32"))
    found = {tensor.name: tensor.data for tensor in ours.tensors}
    assert found.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        assert_array_equal(found[tensor.name], tensor.data, tensor.name)
    keys = {key: field.contents() for key, field in ours.fields.items()}
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF.") and not key.endswith("original_context_length"):
            expected = field.contents()
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=1e-6)
            assert keys[key] == expected, key
    assert keys["tokenizer.ggml.pre"] == "gpt-2"


@pytest.mark.parametrize("name", THERE_AND_BACK)
@pytest.mark.parametrize("number", ["F32", "F16"])
def test_nothing_is_lost_on_the_way_to_gguf_and_back(
    tmp_path: Path, name: str, number: str
) -> None:
    start = family_checkpoint(name)
    if number == "F16":
        start = directory(tmp_path / "halves", Source(start), "F16")
    file = gguf_file(tmp_path / "m.gguf", Source(start), number.lower())
    back = directory(tmp_path / "back", Source(file), number)
    before, after = tensors_of(start), tensors_of(back)
    assert before.keys() == after.keys()
    for key, values in before.items():
        if number == "F32" and name.startswith("gemma") and key.endswith("norm.weight"):
            # the file has 1 + w, in which w loses bits
            assert_allclose(after[key], values, rtol=0, atol=2**-22)
        else:
            assert_array_equal(after[key], values, key)
    again = gguf_file(tmp_path / "again.gguf", Source(file), number.lower())
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["neox", "phi3", "gemma2-24", "gemma3-24"])
def test_bfloat16_is_the_same_file_after_there_and_back(tmp_path: Path, name: str) -> None:
    start = directory(tmp_path / "start", Source(family_checkpoint(name)), "BF16")
    file = gguf_file(tmp_path / "m.gguf", Source(start), "bf16")
    back = directory(tmp_path / "back", Source(file), "BF16")
    before, after = ((f / "model.safetensors").read_bytes() for f in (start, back))
    assert before == after


@pytest.mark.parametrize(
    "name", ["mpt-learned", "mpt-biases", "mpt-grouped", "phi4", "gemma3-full", "neox-tied"]
)
def test_what_transformers_does_not_write_goes_there_and_back(tmp_path: Path, name: str) -> None:
    start = made_by_hand(tmp_path / "start", name)
    file = gguf_file(tmp_path / "m.gguf", Source(start), "f32")
    back = directory(tmp_path / "back", Source(file))
    before, after = tensors_of(start), tensors_of(back)
    for key, values in before.items():
        assert_allclose(after[key], values, rtol=0, atol=2**-22 * ("norm" in key), err_msg=key)
    beside = after.keys() - before.keys()
    assert beside == ({"embed_out.weight"} if name == "neox-tied" else set())
    first, last = (open_checkpoint(folder).decoder_config() for folder in (start, back))
    if beside:  # llama.cpp wants a head of its own there
        assert_array_equal(after["embed_out.weight"], before["gpt_neox.embed_in.weight"])
        last = replace(last, tied_head=True)
    assert replace(last, norm_eps=first.norm_eps) == first


@pytest.mark.parametrize("name", THERE_AND_BACK)
def test_transformers_loads_the_directory_of_a_file(tmp_path: Path, name: str) -> None:
    model = model_of(name)
    file = to_gguf(tmp_path / "m.gguf", Source(model.path), model.logits, "f32").path
    report = to_huggingface(tmp_path / "back", Source(file), model.logits, "f32")
    assert report.largest < 1e-3
    theirs = reference_logits(report.path, LONG_IDS)
    assert_allclose(model.logits(LONG_IDS), theirs, atol=1e-4 * np.abs(theirs).max())
    kinds = [json.loads((f / "config.json").read_text()) for f in (model.path, report.path)]
    assert kinds[0]["architectures"] == kinds[1]["architectures"]


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_a_directory_of_a_directory_is_the_same(tmp_path: Path, name: str) -> None:
    start = family_checkpoint(name)
    back = directory(tmp_path / "back", Source(start))
    before, after = tensors_of(start), tensors_of(back)
    assert before.keys() == after.keys()
    for key, values in before.items():
        assert_array_equal(after[key], values, key)


def test_of_a_model_that_sees_pictures_the_text_part_is_written(tmp_path: Path) -> None:
    start, whole = family_checkpoint("gemma3-24"), tmp_path / "whole"
    whole.mkdir()
    text = json.loads((start / "config.json").read_text())
    keys = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    (whole / "config.json").write_text(json.dumps(keys | {"text_config": text}))
    tensors = {f"language_model.{key}": values for key, values in tensors_of(start).items()}
    tensors["vision_tower.patches.weight"] = np.ones((3, 3), np.float32)
    save_file(tensors, whole / "model.safetensors", metadata={"format": "pt"})
    for source in (whole, gguf_file(tmp_path / "m.gguf", Source(whole), "f32")):
        back = directory(tmp_path / f"back-{source.stem}", Source(source))
        assert tensors_of(back).keys() == tensors_of(start).keys()
        found = json.loads((back / "config.json").read_text())
        assert found["model_type"] == "gemma3_text"
        assert found["architectures"] == ["Gemma3ForCausalLM"]
        theirs = reference_logits(back, LONG_IDS)
        expected = model_of("gemma3-24").logits(LONG_IDS)
        assert_allclose(theirs, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["neox", "gpt2", "gptj", "phi3", "mpt", "gemma2"])
def test_a_merged_adapter_reaches_the_fused_and_turned_matrices(tmp_path: Path, name: str) -> None:
    model = model_of(name)
    adapter = Adapter("polite", 4, 0.5, random_pairs(model.config, 4))
    model.set_adapter(adapter)
    try:
        report = to_huggingface(tmp_path / "m", Source(model.path, adapter), model.logits, "f32")
        theirs = reference_logits(report.path, LONG_IDS)
        assert_allclose(model.logits(LONG_IDS), theirs, atol=2e-4 * np.abs(theirs).max())
    finally:
        model.set_adapter(None)


@pytest.mark.parametrize("name", ["neox", "phi3"])
def test_an_adapter_is_merged_into_fused_tensors_of_a_file(tmp_path: Path, name: str) -> None:
    file = gguf_file(tmp_path / "m.gguf", Source(family_checkpoint(name)), "f32")
    model = engine.load(file, threads=2, kv_cache="f32")
    adapter = Adapter("polite", 4, 0.5, random_pairs(model.config, 4, ("wk", "w_up")))
    model.set_adapter(adapter)
    source = Source(file, adapter)
    assert to_gguf(tmp_path / "merged.gguf", source, model.logits, "f32").largest < 1e-3
    assert to_huggingface(tmp_path / "merged", source, model.logits, "f32").largest < 1e-3


@pytest.mark.parametrize("name", WIDE)
def test_fused_tensors_are_quantised_and_read_by_their_parts(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # random weights forgive less than trained ones
    monkeypatch.setattr(
        "engine.export.checking.MOST_KL", dict.fromkeys(exporting.FORMATS["gguf"], 9)
    )
    model = model_of(name)
    for format_name, most in (("q8_0", 0.05), ("q4_0", 3.0), ("q4_1", 3.0)):
        path = tmp_path / f"{format_name}.gguf"
        report = to_gguf(path, Source(model.path), model.logits, format_name)
        assert report.kl < most
        assert open_checkpoint(path).tensor("layers.1.wk").kind == format_name.upper()


def test_a_tied_head_and_missing_biases_are_written_where_llama_cpp_wants_them(
    tmp_path: Path,
) -> None:
    path = gguf_file(tmp_path / "m.gguf", Source(family_checkpoint("neox-sequential")), "f32")
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    assert not found["blk.0.attn_qkv.bias"].any() and not found["blk.1.attn_output.bias"].any()
    assert found["blk.1.ffn_up.bias"].any()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gptj", "llama.cpp has no GGUF files of gptj, .* a Hugging Face directory is the way"),
        ("gpt-neo", r"llama.cpp has no GGUF files of gpt_neo"),
        ("opt", r"llama.cpp has no GGUF files of opt"),
        ("mpt-scaled", "a GGUF file of mpt has no words for attention_scale 0.3; a Hugging Face"),
        ("gpt2-inner", "a GGUF file of gpt2 has no words for attention_scale 1;"),
        ("gemma2", "a GGUF file of gemma2 has no words for attention_scale 0.158"),
        ("gemma2-no-caps", "a GGUF file of gemma2 has no words for attention_s"),
        ("mpt-qk", "no words for one norm for all queries or keys at once, at which llama.cpp"),
        ("mpt-rms", "a GGUF file of mpt has no words for norm rmsnorm"),
        ("mpt-scaled-logits", "a GGUF file of mpt has no words for logit_scale 0.102"),
        ("gemma2-full", "a GGUF file of gemma2 has no words for layers that all see everything"),
        ("gemma2-untied", "no words for a head that is not the embedding"),
        ("gpt2-relu", "a GGUF file of gpt2 has no words for the activation relu"),
    ],
)
def test_what_gguf_cannot_say_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, said: str
) -> None:
    by_hand = name in BY_HAND
    folder = made_by_hand(tmp_path / name, name) if by_hand else family_checkpoint(name)
    with pytest.raises(ValueError, match=said) as error:
        gguf_file(tmp_path / "m.gguf", Source(folder), "f32")
    assert "\n" not in str(error.value)
    assert (tmp_path / "m.gguf").stat().st_size == 0


def test_a_name_with_phi3_promises_tokens_that_others_lack(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "My-Phi3.gguf", Source(family_checkpoint("phi3")), "f32")
    field = gguf.GGUFReader(path).get_field("general.name")
    assert field is not None and field.contents() == "My-phi 3"
