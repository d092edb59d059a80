"""What is written is opened again and gives the logits of the model in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

import engine
from engine.adapters import Adapter, read_adapter
from engine.checkpoints import open_checkpoint
from engine.export import FORMATS, Source, exporting, floats, to_gguf, to_huggingface, to_peft
from engine.export import huggingface as huggingface_module
from engine.export.checking import compared
from tests.engine.decoders import (
    SPECIAL_TOKENS,
    random_values,
    save_llama,
    save_talker,
    small_config,
    small_model,
)
from tests.engine.gguf_maker import permuted, save_gguf
from tests.engine.test_low_rank import random_pairs

WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "n_heads": 4, "head_dim": 32}
WIDE_KEYS = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
IDS = [5, 17, 3, 88, 42, 7]

Floats = np.ndarray


def adapter_of(config: Any) -> Adapter:
    return Adapter("polite", 4, 0.5, random_pairs(config, 4))


def wide_model(folder: Path) -> engine.Model:
    """Its rows are of whole blocks, so that they can be quantised."""
    return engine.load(save_llama(folder, random_values(small_config(**WIDE)), **WIDE_KEYS))


def gguf_model(path: Path) -> engine.Model:
    """A GGUF file, whose rows of wq and wk stand in another order."""
    config = small_config(**WIDE)
    return engine.load(save_gguf(path, config, random_values(config)))


def logits_of(path: Path) -> Floats:
    return engine.load(path).logits(IDS)


MODELS: dict[str, Callable[[Path], engine.Model]] = {
    "huggingface": lambda folder: wide_model(folder / "wide"),
    "gguf": lambda folder: gguf_model(folder / "wide.gguf"),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> engine.Model:
    return MODELS[request.param](tmp_path)


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("merges", [False, True])
def test_a_directory_gives_the_logits_of_either_container(
    model: engine.Model, tmp_path: Path, merges: bool
) -> None:
    adapter = adapter_of(model.config) if merges else None
    model.set_adapter(adapter)
    source = Source(model.path, adapter)
    report = to_huggingface(tmp_path / "out", source, model.logits, "f32")
    assert report.path == tmp_path / "out"
    assert (report.format, report.n_tokens, report.same) == ("f32", 192, 1.0)
    assert report.kl < 1e-6 and report.largest < 1e-3
    expected = model.logits(IDS)
    assert_allclose(logits_of(report.path), expected, atol=3e-5 * np.abs(expected).max())
    assert not engine.load(report.path).config.rope.interleaved
    assert report.n_bytes == sum(f.stat().st_size for f in open_checkpoint(report.path).files)


@pytest.mark.parametrize("format_name", FORMATS["gguf"])
def test_a_gguf_file_gives_the_logits_of_either_container(
    model: engine.Model, tmp_path: Path, format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # random weights forgive less than trained ones
    monkeypatch.setitem(exporting.check.__globals__["MOST_KL"], format_name, 3.0)
    adapter = adapter_of(model.config)
    model.set_adapter(adapter)
    report = to_gguf(tmp_path / "out.gguf", Source(model.path, adapter), model.logits, format_name)
    most = {"f32": 1e-6, "f16": 1e-4, "bf16": 1e-2, "q8_0": 1e-2, "q4_1": 1, "q4_0": 1}
    assert report.kl < most[format_name]
    written = engine.load(report.path)
    assert written.config.rope.interleaved
    kind = {"q8_0": "q8", "q4_1": "q4"}.get(format_name, format_name)
    assert written.weights.matrices["layers.0.w_up"].format == kind


@pytest.mark.parametrize("format_name", FORMATS["gguf"])
def test_the_gguf_package_reads_the_file(
    tmp_path: Path, format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exporting.check.__globals__["MOST_KL"], format_name, 3.0)
    model = wide_model(tmp_path / "wide")
    to_gguf(tmp_path / "out.gguf", Source(model.path), model.logits, format_name)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    values = random_values(model.config)
    kind = format_name.upper()
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == kind
    head = "Q8_0" if kind.startswith("Q4") else kind
    assert tensors["token_embd.weight"].tensor_type.name == head
    assert tensors["blk.1.ffn_norm.weight"].tensor_type.name == "F32"
    stored = {"attn_q": permuted(values["layers.1.wq"], 4), "ffn_up": values["layers.1.w_up"]}
    for name, ours in stored.items():
        tensor = tensors[f"blk.1.{name}.weight"]
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        errors = {"F32": 0, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2, "Q4_1": 0.1, "Q4_0": 0.1}
        assert_allclose(found, ours, atol=errors[kind] * np.abs(ours).max() + 1e-12)
    file_type = reader.get_field("general.file_type").contents()
    assert file_type == {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}[kind]


def test_rows_that_are_no_whole_blocks_stay_floats(tmp_path: Path) -> None:
    model = engine.load(save_llama(tmp_path / "odd"))
    report = to_gguf(tmp_path / "out.gguf", Source(model.path), model.logits, "q8_0")
    checkpoint = open_checkpoint(report.path)
    assert checkpoint.tensor("layers.0.wq").kind == "F16"  # rows of 72
    assert report.kl < 1e-3


def test_what_nothing_changes_is_copied_as_it_is(tmp_path: Path) -> None:
    model = gguf_model(tmp_path / "wide.gguf")
    first = to_gguf(tmp_path / "first.gguf", Source(model.path), model.logits, "q8_0").path
    adapter = adapter_of(model.config)._replace(
        matrices={"layers.0.wv": random_pairs(model.config, 4)["layers.0.wv"]}
    )
    again = engine.load(first)
    again.set_adapter(adapter)
    to_gguf(tmp_path / "again.gguf", Source(first, adapter), again.logits, "q8_0")
    before, after = open_checkpoint(first), open_checkpoint(tmp_path / "again.gguf")
    for name in before.tensor_names():
        assert (before.tensor(name).data.tobytes() == after.tensor(name).data.tobytes()) == (
            name != "layers.0.wv"
        )


def test_tensors_of_full_fine_tuning_take_the_place_of_the_checkpoint_s(
    model: engine.Model, tmp_path: Path
) -> None:
    source = Source(model.path)
    order = model.config.rope.interleaved
    doubled = {name: 1.1 * source.tensor(name, order) for name in ("layers.1.wk", "final_norm")}
    changed = Source(model.path, tensors=doubled)
    with pytest.raises(ValueError, match="is not the model in memory"):
        to_huggingface(tmp_path / "out", changed, model.logits, "f32")
    assert not (tmp_path / "out").exists()
    made = tmp_path / "made"
    made.mkdir()
    huggingface_module.write_files(made, changed, "F32")
    found = load_file(made / "model.safetensors")["model.layers.1.self_attn.k_proj.weight"]
    assert_allclose(found, 1.1 * random_values(model.config)["layers.1.wk"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"final_norm of shape \(3,\) is no tensor of"):
        Source(model.path, tensors={"final_norm": np.zeros(3, np.float32)})


# ---- containers ---------------------------------------------------------------------------------


def test_shards_and_their_index_are_read_again(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "wide")
    out = tmp_path / "out"
    out.mkdir()
    huggingface_module.write_files(out, Source(model.path), "F16", shard_bytes=40_000)
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert all(path.stat().st_size < 45_000 for path in shards)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * sum(
        v.size for v in random_values(model.config).values()
    )
    expected = model.logits(IDS)
    assert_allclose(logits_of(out), expected, atol=1e-2 * np.abs(expected).max())


def test_the_numbers_are_the_checkpoint_s_unless_others_are_asked_for(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "wide")
    for name, dtype in ((None, "float32"), ("f16", "float16"), ("bf16", "bfloat16")):
        report = to_huggingface(tmp_path / "out", Source(model.path), model.logits, name)
        assert json.loads((report.path / "config.json").read_text())["dtype"] == dtype


def test_bfloat16_is_rounded_to_the_nearest_even() -> None:
    halfway = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 3.0, 0.0]
    found = floats.packed(np.array(halfway, np.float32), "BF16").view(np.uint16)
    values = (found.astype(np.uint32) << 16).view(np.float32)
    assert values.tolist() == [1, 1 + 2**-6, 1 + 2**-7, -1, 3, 0]


def test_float16_that_would_overflow_is_refused(tmp_path: Path) -> None:
    config = small_config(**WIDE)
    values = random_values(config)
    values["layers.0.w_up"][3, 5] = 70_000
    model = engine.load(save_llama(tmp_path / "big", values, **WIDE_KEYS))
    for write, to in ((to_huggingface, tmp_path / "out"), (to_gguf, tmp_path / "out.gguf")):
        with pytest.raises(ValueError, match=r"70000 is beyond float16.*; write f32 or bf16"):
            write(to, Source(model.path), model.logits, "f16")
        assert not to.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big"]


def test_a_result_that_differs_is_taken_away_and_the_old_one_stays(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "wide")
    out = tmp_path / "out.gguf"
    out.write_text("what was there")

    def others(ids: Any) -> Floats:
        logits: Floats = model.logits(ids)[:, ::-1]
        return logits

    with pytest.raises(ValueError, match=r"is not the model in memory.*f32 explains a KL of 0"):
        to_gguf(out, Source(model.path), others, "f32")
    assert out.read_text() == "what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "wide"]


def test_a_nan_is_no_agreement(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "wide")
    with pytest.raises(ValueError, match=r"is not the model in memory.*KL nan"):
        to_gguf(tmp_path / "o", Source(model.path), lambda ids: model.logits(ids) * np.nan, "f32")


def test_comparing_counts_what_differs() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    assert compared(logits, logits + 3) == pytest.approx((0, 3, 1), abs=1e-6)
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]], np.float32))
    kl = 0.5 * np.log(0.5 / 0.25) + 0.25 * np.log(0.25 / 0.5)
    assert compared(logits, other) == pytest.approx((kl / 2, np.log(2), 0.5), abs=1e-6)
    with pytest.raises(ValueError, match="shape"):
        compared(logits, logits[:1])


def test_an_adapter_goes_out_in_peft_s_layout_and_comes_back(tmp_path: Path) -> None:
    model = small_model("f32", config=small_config(architecture="llama"))
    adapter = adapter_of(model.config)
    report = to_peft(tmp_path / "polite", adapter, model, "org/base")
    assert (report.kl, report.largest, report.same) == (0, 0, 1)
    assert model.adapter == adapter
    found = read_adapter(tmp_path / "polite")
    assert (found.base_name, found.base_fingerprint) == ("org/base", "0" * 64)
    for name, (a, b) in adapter.matrices.items():
        assert_array_equal(found.matrices[name][0], a)
        assert_array_equal(found.matrices[name][1], b)


# ---- config, tokenizer, card --------------------------------------------------------------------


@pytest.fixture
def talker(tmp_path: Path) -> engine.Model:
    return engine.load(save_talker(tmp_path / "talker"))


def test_a_talker_goes_to_gguf_and_back_with_its_tokenizer(
    talker: engine.Model, tmp_path: Path
) -> None:
    """Both ways are checked as they are written: tokens, ends, template."""
    file = to_gguf(tmp_path / "t.gguf", Source(talker.path), talker.logits, "f32").path
    from_file = engine.load(file)
    folder = to_huggingface(tmp_path / "back", Source(file), from_file.logits, "f32").path
    messages = [{"role": "user", "content": "Hello, you!"}]
    expected = talker.tokenizer.encode_chat(messages)  # type: ignore[union-attr]
    for path in (file, folder):
        found = engine.load(path).tokenizer
        assert found is not None
        assert found.encode_chat(messages) == expected
        assert found.stop_ids == talker.tokenizer.stop_ids  # type: ignore[union-attr]
        assert found.decode(expected, skip_special=False) == found.render(messages)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rms_norm_eps"] == 1e-5
    assert not any(key.startswith("rope_i") or key.startswith("rope_fr") for key in config)


def test_gguf_keys_are_those_of_llama_cpp(talker: engine.Model, tmp_path: Path) -> None:
    to_gguf(tmp_path / "t.gguf", Source(talker.path), talker.logits, "f32")
    reader = gguf.GGUFReader(tmp_path / "t.gguf")
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert keys["general.architecture"] == "llama"
    assert keys["general.name"] == "t"
    assert keys["llama.attention.head_count_kv"] == 2
    assert keys["llama.rope.dimension_count"] == 24
    assert keys["tokenizer.ggml.model"] == "gpt2"
    assert keys["tokenizer.ggml.pre"] == "gpt-2"
    assert keys["tokenizer.ggml.tokens"][:3] == list(SPECIAL_TOKENS)
    assert keys["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert keys["tokenizer.ggml.eos_token_id"] == 2
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert "<|im_start|>" in keys["tokenizer.chat_template"]
    assert len(keys["tokenizer.ggml.tokens"]) == talker.config.vocab_size


def test_files_of_a_directory_are_taken_over_as_they_are(
    talker: engine.Model, tmp_path: Path
) -> None:
    (talker.path / "generation_config.json").write_text('{"temperature": 0.3}\n')
    (talker.path / "pytorch_model.bin").write_text("a pickle")
    out = to_huggingface(tmp_path / "out", Source(talker.path), talker.logits).path
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (talker.path / name).read_bytes()
    assert not (out / "pytorch_model.bin").exists()


def test_the_card_says_what_it_is_and_how_near(talker: engine.Model, tmp_path: Path) -> None:
    adapter = adapter_of(talker.config)
    talker.set_adapter(adapter)
    source = Source(talker.path, adapter)
    report = to_huggingface(tmp_path / "out", source, talker.logits, "f32", base="org/talker")
    text = (report.path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "base_model: org/talker\n" in text
    assert "with the adapter `polite` (LoRA, rank 4) merged into it, f32" in text
    assert report.line() in text


def test_a_tokenizer_that_cuts_otherwise_is_noticed(
    talker: engine.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = huggingface_module.write_files

    def spoil(folder: Path, *args: Any, **options: Any) -> None:
        real(folder, *args, **options)
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace('"o":', '"_":', 1).replace('"p":', '"o":', 1)
                        .replace('"_":', '"p":', 1))  # fmt: skip

    monkeypatch.setattr(huggingface_module, "write_files", spoil)
    with pytest.raises(ValueError, match="its tokenizer cuts 'What is the capital"):
        to_huggingface(tmp_path / "out", Source(talker.path), talker.logits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_type": "mistral", "sliding_window": 8}, "sliding_window 8"),
        ({"hidden_act": "gelu"}, "the activation gelu"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "scaling 'dynamic' of the rotation",
        ),
        ({"partial_rotary_factor": 0.5}, "a rotation of 12 of 24 dimensions"),
    ],
)
def test_what_gguf_has_no_words_for_is_said(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    model = engine.load(save_llama(tmp_path / "m", **keys))
    with pytest.raises(ValueError, match=f"has no words for {said}.*; a Hugging Face directory"):
        to_gguf(tmp_path / "out.gguf", Source(model.path), model.logits, "f32")
    report = to_huggingface(tmp_path / "out", Source(model.path), model.logits, "f32")
    assert report.kl < 1e-6


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.5},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ],
    ids=lambda scaling: scaling["rope_type"],
)  # fmt: skip
def test_scalings_of_the_rotation_survive_both_ways(
    tmp_path: Path, scaling: dict[str, Any]
) -> None:
    model = engine.load(save_llama(tmp_path / "m", rope_scaling=scaling, rope_theta=500_000.0))
    file = to_gguf(tmp_path / "out.gguf", Source(model.path), model.logits, "f32").path
    back = to_huggingface(tmp_path / "back", Source(file), model.logits, "f32").path
    kept = json.loads((back / "config.json").read_text())["rope_scaling"]
    assert {key: kept[key] for key in scaling} == scaling


def test_divisors_of_an_unknown_scaling_are_refused(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip
    model = engine.load(save_llama(tmp_path / "m", rope_scaling=scaling))
    file = to_gguf(tmp_path / "out.gguf", Source(model.path), model.logits, "f32").path
    with pytest.raises(ValueError, match="none of Llama 3's scalings"):
        to_huggingface(tmp_path / "back", Source(file), model.logits, "f32")
    # but a file made of the file keeps them
    assert to_gguf(tmp_path / "b.gguf", Source(file), model.logits, "f32").kl < 1e-6
