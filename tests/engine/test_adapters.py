"""Adapters on disk, and what a model does with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

import engine
from engine.adapters import OURS, WEIGHTS, Adapter, Base, Pairs, read_adapter, trained_adapter
from engine.adapters import write_adapter as write
from engine.saved_cache import SavedCaches
from engine.sparse_formats import Sparse
from tests.engine.decoders import random_values, save_llama, small_config, small_model
from tests.engine.gguf_maker import permuted, save_gguf
from tests.engine.test_low_rank import random_pairs
from tests.parity import reference

CONFIG = small_config()
IDS = [5, 17, 3, 88, 42, 7]
BASE = Base("smollm2-135m", "0" * 64, "llama")
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def small_adapter(name: str = "polite", pairs: Pairs | None = None) -> Adapter:
    pairs = random_pairs(CONFIG, 4) if pairs is None else pairs
    return Adapter(name, max(len(a) for a, _ in pairs.values()), 0.5, pairs)


def merged(adapter: Adapter) -> np.ndarray:
    values = random_values(CONFIG)
    for name, (a, b) in adapter.matrices.items():
        values[name] = values[name] + adapter.scale * b @ a
    return reference.logits(CONFIG, values, IDS)


def assert_same(found: Adapter, expected: Adapter) -> None:
    assert found.scale == pytest.approx(expected.scale)
    assert found.matrices.keys() == expected.matrices.keys()
    for name, (a, b) in expected.matrices.items():
        assert_array_equal(found.matrices[name][0], a)
        assert_allclose(found.matrices[name][1], b, rtol=1e-6)


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of adapter_config.json."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def rename(folder: Path, **tensors: np.ndarray | None) -> Path:
    """Replace or (None) remove tensors; `__` in a name stands for a dot."""
    found = load_file(folder / WEIGHTS)
    for name, value in tensors.items():
        key = name.replace("__", ".")
        found.pop(key, None)
        if value is not None:
            found[key] = value
    save_file(found, folder / WEIGHTS)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "polite", small_adapter(), BASE)


# ---- files --------------------------------------------------------------------------------------


def test_what_is_written_reads_back(folder: Path) -> None:
    found = read_adapter(folder)
    assert_same(found, small_adapter())
    assert (found.name, found.rank, found.path) == ("polite", 4, folder)
    assert (found.base_name, found.base_fingerprint) == ("smollm2-135m", "0" * 64)
    assert found.n_weights == sum(a.size + b.size for a, b in found.matrices.values())


def test_the_files_are_those_of_peft(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 2)
    assert config["target_modules"] == [
        *("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"),
    ]
    tensors = load_file(folder / WEIGHTS)
    assert len(tensors) == 2 * 7 * CONFIG.n_layers
    assert tensors[f"{Q}.lora_A.weight"].shape == (4, 72)
    assert tensors[f"{Q}.lora_B.weight"].shape == (96, 4)


def test_ranks_and_matrices_that_differ_are_spelled_out(tmp_path: Path) -> None:
    pairs = random_pairs(CONFIG, 4, ("wq",)) | random_pairs(CONFIG, 7, ("w_down",))
    del pairs["layers.1.w_down"]
    write(tmp_path / "odd", small_adapter(pairs=pairs), BASE)
    config = json.loads((tmp_path / "odd" / "adapter_config.json").read_text())
    q = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]
    assert config["target_modules"] == ["model.layers.0.mlp.down_proj", *q]
    assert (config["r"], config["lora_alpha"]) == (7, 3.5)
    assert config["rank_pattern"] == dict.fromkeys(q, 4)
    assert config["alpha_pattern"] == dict.fromkeys(q, 2)
    assert_same(read_adapter(tmp_path / "odd"), small_adapter(pairs=pairs))


def test_patterns_change_single_scales(folder: Path) -> None:
    edit(folder, alpha_pattern={"k_proj": 8, "^model\\.layers\\.1\\.mlp\\.up_proj": 1})
    expected = {"layers.0.wk": 4, "layers.1.wk": 4, "layers.1.w_up": 0.5}
    found = read_adapter(folder)
    assert found.scale == 0.5
    for name, (_, b) in small_adapter().matrices.items():
        assert_allclose(found.matrices[name][1], b * expected.get(name, 1), rtol=1e-6)


def test_a_rank_pattern_is_a_promise_about_shapes(folder: Path) -> None:
    a, b = np.ones((3, 72), np.float32), np.ones((96, 3), np.float32)
    rename(folder, **{f"{Q}__lora_A__weight": a, f"{Q}__lora_B__weight": b})
    with pytest.raises(ValueError, match=r"q_proj has rank 3, adapter_config.json says 4"):
        read_adapter(folder)
    edit(folder, rank_pattern={"layers.0.self_attn.q_proj": 3})
    # alpha 2 over rank 3, where the others have 2 over 4
    assert_allclose(read_adapter(folder).matrices["layers.0.wq"][1], 4 / 3, rtol=1e-6)


def test_rank_stabilised_scales_divide_by_the_root(folder: Path) -> None:
    assert read_adapter(edit(folder, use_rslora=True)).scale == pytest.approx(2 / 2)


def test_names_without_the_head_s_prefix_are_known(folder: Path) -> None:
    tensors = {k.replace("model.model.", "model."): v for k, v in
               load_file(folder / WEIGHTS).items()}  # fmt: skip
    save_file(tensors, folder / WEIGHTS)
    assert_same(read_adapter(folder), small_adapter())


@pytest.mark.parametrize("number", [np.float16, np.float32])
def test_stored_halves_are_widened(folder: Path, number: type[Any]) -> None:
    tensors = {k: v.astype(number) for k, v in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    a, _ = read_adapter(folder).matrices["layers.0.wq"]
    assert a.dtype == np.float32
    assert_allclose(a, small_adapter().matrices["layers.0.wq"][0], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, r"DoRA \(use_dora\) is not supported"),
        ({"modules_to_save": ["lm_head"]}, "whole modules beside the pairs"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"bias": "lora_only"}, "trained biases"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is not supported"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is read"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changed the model's own weights"),
        ({"r": 0}, "r must be a whole number from 1, got 0"),
        ({"r": "8"}, "r must be a whole number from 1, got '8'"),
        ({"lora_alpha": None}, "lora_alpha must be a number, got None"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number, got nan"),
        ({"rank_pattern": {".*q_proj": 3}}, r"the expression '\.\*q_proj'; only names"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern must be a number, got 'x'"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as error:
        read_adapter(edit(folder, **changes))
    assert str(error.value).startswith(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"base_model__model__lm_head__weight": np.ones((2, 2))}, "belongs to no pair"),
        ({f"{Q}__lora_magnitude_vector": np.ones(2)}, "belongs to no pair"),
        ({f"{Q}__lora_A__weight": None}, "q_proj has only one of lora_A and lora_B"),
        ({f"{Q}__lora_A__weight": np.ones((3, 72))}, r"lora_A of \(3, 72\) and lora_B of \(96, 4"),
        ({f"{Q}__lora_A__weight": np.full((4, 72), np.inf)}, "holds NaN or infinite"),
        (
            {f"base_model__model__lm_head__lora_{side}__weight": np.ones((4, 4)) for side in "AB"},
            "lm_head is adapted; only the linear layers",
        ),
        (
            {f"transformer__h__0__attn__lora_{side}__weight": np.ones((4, 4)) for side in "AB"},
            "no architecture of this build has a matrix 'transformer.h.0.attn'",
        ),
    ],
)
def test_tensors_that_are_no_pairs_are_refused(
    folder: Path, tensors: dict[str, np.ndarray | None], said: str
) -> None:
    values = {k: None if v is None else v.astype(np.float32) for k, v in tensors.items()}
    with pytest.raises(ValueError, match=said) as error:
        read_adapter(rename(folder, **values))
    assert str(error.value).startswith(str(folder))


def test_a_rank_beyond_the_kernels_is_refused(tmp_path: Path) -> None:
    pairs = random_pairs(CONFIG, 257, ("wk",))
    write(tmp_path / "wide", small_adapter(pairs=pairs), BASE)
    with pytest.raises(ValueError, match="has rank 257; at most 256 are supported"):
        read_adapter(tmp_path / "wide")


def test_missing_files_are_named(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="a pickle, which can run code and is never loaded"):
        read_adapter(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="fetch the adapter again"):
        read_adapter(folder)
    with pytest.raises(FileNotFoundError, match="an adapter is a folder in PEFT's layout"):
        read_adapter(folder.parent)


def test_an_adapter_replaces_one_but_nothing_else(folder: Path, tmp_path: Path) -> None:
    (folder / "note.txt").write_text("of the old one")
    write(folder, small_adapter(pairs=random_pairs(CONFIG, 2)), BASE)
    assert read_adapter(folder).rank == 2
    assert sorted(p.name for p in folder.iterdir()) == [
        *("adapter_config.json", WEIGHTS, OURS),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["polite"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("")
    with pytest.raises(ValueError, match="holds something else than an adapter"):
        write(other, small_adapter(), BASE)
    assert (other / "cat.jpg").exists()


# ---- models -------------------------------------------------------------------------------------


def test_a_model_with_an_adapter_gives_the_logits_of_merged_weights(tmp_path: Path) -> None:
    adapter = small_adapter()
    write(tmp_path / "polite", adapter, Base("", ""))
    model = engine.load(save_llama(tmp_path / "llama"), adapter=tmp_path / "polite")
    expected = merged(adapter)
    assert_allclose(model.logits(IDS), expected, atol=2e-5 * np.abs(expected).max())


def test_a_gguf_s_rows_are_in_another_order_and_the_adapter_follows(tmp_path: Path) -> None:
    adapter, values = small_adapter(), random_values(CONFIG)
    model = engine.load(save_gguf(tmp_path / "small.gguf", CONFIG, values), weight_format="f32")
    assert model.config.rope.interleaved
    plain = reference.logits(CONFIG, values, IDS)
    assert_allclose(model.logits(IDS), plain, atol=2e-5 * np.abs(plain).max())
    model.set_adapter(adapter)
    expected = merged(adapter)
    assert_allclose(model.logits(IDS), expected, atol=2e-5 * np.abs(expected).max())


def test_pairs_that_were_trained_on_a_gguf_are_stored_in_hugging_face_s_order(
    tmp_path: Path,
) -> None:
    model = engine.load(save_gguf(tmp_path / "small.gguf", CONFIG, random_values(CONFIG)))
    adapter = small_adapter()
    heads = {"wq": CONFIG.n_heads, "wk": CONFIG.n_kv_heads}
    trained = {}
    for name, (a, b) in adapter.matrices.items():
        n_heads = heads.get(name.rpartition(".")[2])
        trained[name] = a, permuted(b, n_heads) if n_heads else b
    found = trained_adapter("polite", trained, adapter.scale, model.config)
    assert_same(found, adapter)
    assert (found.name, found.rank) == ("polite", 4)
    # and a model whose rows are in Hugging Face's order changes nothing
    assert_same(trained_adapter("polite", adapter.matrices, 0.5, CONFIG), adapter)


def test_setting_and_taking_it_off_loads_nothing_and_empties_the_cache() -> None:
    model = small_model()
    before = model.logits(IDS)
    model.decoder.extend(model.cache, IDS)
    weights = model.weights
    model.set_adapter(small_adapter())
    assert model.weights is weights
    assert model.cache.token_ids == []
    assert model.adapter is not None and model.adapter.name == "polite"
    assert np.abs(model.logits(IDS) - before).max() > 0.1
    model.decoder.extend(model.cache, IDS)
    model.set_adapter(None)
    assert (model.adapter, model.adapter_digest, model.cache.token_ids) == (None, "", [])
    assert_array_equal(model.logits(IDS), before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_fingerprint": "1" * 64, "base_name": "other"}, r"was trained on other \(1{12}\)"),
        ({"matrices": random_pairs(small_config(n_layers=3))}, "changes layers.2.wq, which this"),
        ({"matrices": random_pairs(small_config(n_heads=6))}, "layers.0.wq for 144 x 72, this mod"),
    ],
)
def test_an_adapter_of_another_model_is_refused_and_the_one_in_use_stays(
    change: dict[str, Any], said: str
) -> None:
    model = small_model()
    model.set_adapter(small_adapter())
    with pytest.raises(ValueError, match=said):
        model.set_adapter(small_adapter("other")._replace(**change))
    assert model.adapter is not None and model.adapter.name == "polite"


def test_the_file_that_names_the_other_model_is_the_way_out(folder: Path) -> None:
    model = small_model(fingerprint="2" * 64)
    with pytest.raises(ValueError, match=r"taking \"base\" out of .*sparsechat.json lets its shap"):
        model.set_adapter(folder)
    (folder / OURS).write_text("{}")
    model.set_adapter(folder)
    assert model.adapter is not None


def test_shares_of_the_feed_forward_and_adapters_exclude_each_other() -> None:
    model = small_model()
    none = np.zeros(CONFIG.n_layers, np.int64)
    n = CONFIG.n_layers
    sparse = Sparse(np.zeros((n, 4), np.float32), none, np.zeros((n, 2), np.int64), {})
    model.sparsity = model.sparsity._replace(level=0.5, layers=sparse)
    with pytest.raises(ValueError, match=r"and sparsity 0.5 leaves a share of them out; use off"):
        model.set_adapter(small_adapter())
    model.set_adapter(None)


def test_saved_caches_of_another_adapter_are_not_used(tmp_path: Path) -> None:
    store, ids = SavedCaches(tmp_path), np.random.default_rng(0).integers(0, 97, 100).tolist()
    model = small_model()
    model.set_adapter(small_adapter())
    model.decoder.extend(model.cache, ids)
    assert store.save("talk", model, 100, 10**9)
    model.set_adapter(None)
    assert store.restore("talk", model, ids) == 0
    model.set_adapter(small_adapter()._replace(scale=0.25))
    assert store.restore("talk", model, ids) == 0
    model.set_adapter(small_adapter())
    assert store.restore("talk", model, ids) == 100


def test_beams_lookup_and_sampling_answer_with_an_adapter_as_merged_weights_do() -> None:
    adapter = small_adapter()
    model = small_model("f32", threads=2)
    values = random_values(CONFIG)
    for name, (a, b) in adapter.matrices.items():
        values[name] = values[name] + np.float32(adapter.scale) * b @ a
    expected = np.argmax(reference.logits(CONFIG, values, IDS)[-1])
    model.set_adapter(adapter)
    assert model.generate(IDS, max_predictions=1, beam_width=1) == [expected]
    greedy = model.generate(IDS, max_predictions=12, beam_width=1)
    drafted = [s.token_id for s in engine.stream(
        model, IDS, engine.SamplingParams(temperature=0, max_tokens=12, lookup=True)
    ) if s.token_id >= 0]  # fmt: skip
    assert drafted == greedy
    assert len(model.generate(IDS, max_predictions=4, beam_width=3)) == 4
