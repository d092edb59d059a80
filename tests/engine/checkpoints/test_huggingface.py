"""engine/checkpoints/huggingface.py on directories written by the safetensors package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from engine.checkpoints import open_checkpoint

CONFIG = {
    "model_type": "llama",
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
Save = Callable[..., Path]


def llama_tensors() -> dict[str, np.ndarray]:
    rng, layer = np.random.default_rng(0), "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (11, 8),
        "model.norm.weight": (8,),
        layer + "input_layernorm.weight": (8,),
        layer + "self_attn.q_proj.weight": (8, 8),
        layer + "self_attn.rotary_emb.inv_freq": (2,),
        layer + "mlp.down_proj.weight": (8, 12),
    }
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save(changes of CONFIG, tensors, shards={file: [names]}) → directory."""

    def write(
        changes: dict[str, Any] | None = None,
        tensors: dict[str, np.ndarray] | None = None,
        shards: dict[str, list[str]] | None = None,
    ) -> Path:
        tensors = llama_tensors() if tensors is None else tensors
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | (changes or {})))
        if shards is None:
            save_file(tensors, tmp_path / "model.safetensors")
            return tmp_path
        for file, names in shards.items():
            save_file({name: tensors[name] for name in names}, tmp_path / file)
        weight_map = {name: file for file, names in shards.items() for name in names}
        write_index(tmp_path, weight_map)
        return tmp_path

    return write


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def halves() -> dict[str, list[str]]:
    names = list(llama_tensors())
    return {
        "model-00001-of-00002.safetensors": names[:3],
        "model-00002-of-00002.safetensors": names[3:],
    }


@pytest.mark.parametrize("shards", [None, halves()], ids=["single", "sharded"])
def test_tensors_have_canonical_names_and_equal_what_was_saved(
    save: Save, shards: dict[str, list[str]] | None
) -> None:
    checkpoint = open_checkpoint(save(shards=shards))
    saved = llama_tensors()
    expected = {
        "embedding": saved["model.embed_tokens.weight"],
        "final_norm": saved["model.norm.weight"],
        "layers.0.attention_norm": saved["model.layers.0.input_layernorm.weight"],
        "layers.0.wq": saved["model.layers.0.self_attn.q_proj.weight"],
        "layers.0.w_down": saved["model.layers.0.mlp.down_proj.weight"],
    }
    assert set(checkpoint.tensor_names()) == set(expected)
    for name, array in expected.items():
        tensor = checkpoint.tensor(name)
        assert (tensor.kind, tensor.shape) == ("F32", array.shape)
        assert not tensor.data.flags.writeable
        assert_array_equal(tensor.float32(), array)


def test_half_precision_is_read(save: Save) -> None:
    array = np.array([[1.5, -2.0], [0.25, 3.0]], dtype=np.float16)
    tensor = open_checkpoint(save(tensors={"lm_head.weight": array})).tensor("head")
    assert tensor.kind == "F16"
    assert_array_equal(tensor.float32(1), array[1:])


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int64])
def test_other_dtypes_are_refused_when_they_are_asked_for(save: Save, dtype: type) -> None:
    checkpoint = open_checkpoint(save(tensors={"lm_head.weight": np.zeros((2, 2), dtype=dtype)}))
    with pytest.raises(
        ValueError,
        match=r"model\.safetensors: tensor 'lm_head\.weight' holds \(2, 2\) of "
        r"(F64|I8|I64); weights are read from F32, F16, BF16$",
    ):
        checkpoint.tensor("head")


def test_files_are_config_and_weights(save: Save) -> None:
    folder = save(shards=halves())
    checkpoint = open_checkpoint(folder)
    assert checkpoint.files == (folder / "config.json", *(folder / name for name in halves()))
    before = checkpoint.fingerprint()
    (folder / "config.json").write_text(json.dumps(CONFIG | {"rope_theta": 7.0}))
    assert open_checkpoint(folder).fingerprint() != before


def test_a_directory_without_extras_has_none(save: Save) -> None:
    checkpoint = open_checkpoint(save())
    assert checkpoint.generation_config == {}
    assert checkpoint.tokenizer_config == {}
    assert checkpoint.chat_template is None
    assert checkpoint.tokenizer_json is None
    assert checkpoint.ggml_tokenizer is None


def test_extras_are_read(save: Save) -> None:
    folder = save()
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<old>", "pad_token": "<p>"}')
    (folder / "tokenizer_config.json").write_text('\ufeff{"bos_token": "<s>"}')
    (folder / "tokenizer.json").write_text("{}")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.generation_config == {"temperature": 0.6}
    assert checkpoint.tokenizer_config == {"bos_token": "<s>", "pad_token": "<p>"}
    assert checkpoint.tokenizer_json == folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("value", "template"),
    [
        ("{{ one }}", "{{ one }}"),
        (
            [
                {"name": "tool_use", "template": "{{ t }}"},
                {"name": "default", "template": "{{ d }}"},
            ],
            "{{ d }}",
        ),
        ([{"name": "tool_use", "template": "{{ t }}"}], None),
        ([3, {"name": "default", "template": 4}], None),
        (5, None),
    ],
)
def test_the_default_chat_template_is_chosen(save: Save, value: Any, template: str | None) -> None:
    folder = save()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    assert open_checkpoint(folder).chat_template == template


def test_chat_template_jinja_wins(save: Save) -> None:
    folder = save()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    (folder / "chat_template.jinja").write_text("{{ new }}\n")
    assert open_checkpoint(folder).chat_template == "{{ new }}\n"


def test_tied_without_head_is_tied(save: Save) -> None:
    assert open_checkpoint(save()).decoder_config().tied_head is True


def test_tied_with_the_same_head_is_tied(save: Save) -> None:
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    assert open_checkpoint(save(tensors=tensors)).decoder_config().tied_head is True


def test_tied_with_another_head_is_not_tied(save: Save) -> None:
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    assert open_checkpoint(save(tensors=tensors)).decoder_config().tied_head is False


def test_tied_weights_saved_as_the_head_are_the_embedding_too(save: Save) -> None:
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    checkpoint = open_checkpoint(save(tensors=tensors))
    assert checkpoint.decoder_config().tied_head is True
    assert checkpoint.tensor("embedding").name == "lm_head.weight"


def test_untied_without_head_names_it_as_missing(save: Save) -> None:
    checkpoint = open_checkpoint(save({"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=r": tensor 'head' is missing$"):
        checkpoint.tensor("head")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "x"}, "hidden_size must be a whole number, got 'x'"),
        ({"model_type": "bert"}, "model_type 'bert' is not known; this build has "),
        ({"model_type": None}, "model_type must be a name, got None"),
    ],
)
def test_faults_of_the_config_name_it(save: Save, changes: dict[str, Any], message: str) -> None:
    checkpoint = open_checkpoint(save(changes))
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        checkpoint.decoder_config()


def test_quantised_directories_are_refused_by_method(save: Save) -> None:
    folder = save({"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(ValueError, match=r"config\.json: weights quantised by 'gptq' are not read"):
        open_checkpoint(folder)


def test_pickles_are_never_loaded_and_the_way_out_is_told(save: Save) -> None:
    folder = save()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"a pickle, .* never loaded as a model; `sparsechat import /.*` makes"
    ) as error:
        open_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_a_directory_without_weights_is_refused(save: Save) -> None:
    folder = save()
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor model\.safetens"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(save: Save) -> None:
    folder = save(shards=halves())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"model-00002-of-00002\.safetensors is missing, one of 2 shards"
    ):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\m.safetensors", "x.bin", 3, ""],
)
def test_an_index_cannot_reach_outside_its_directory(save: Save, shard: object) -> None:
    folder = save()
    (folder / "model.safetensors").unlink()
    write_index(folder, {"lm_head.weight": shard})
    with pytest.raises(ValueError, match=r"is not the name of a safetensors file beside it$"):
        open_checkpoint(folder)


@pytest.mark.parametrize("weight_map", [None, {}, ["a"]])
def test_an_index_without_weight_map_is_refused(save: Save, weight_map: object) -> None:
    folder = save()
    (folder / "model.safetensors").unlink()
    write_index(folder, weight_map)
    with pytest.raises(ValueError, match=r"weight_map is missing or empty$"):
        open_checkpoint(folder)


def test_a_tensor_that_its_shard_lacks_is_named(save: Save) -> None:
    folder = save(shards=halves())
    write_index(folder, {"lm_head.weight": "model-00001-of-00002.safetensors"})
    with pytest.raises(
        ValueError, match=r"model-00001-of-00002\.safetensors: tensor 'lm_head\.weight' is missing"
    ):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n  oops}', r"config\.json: not JSON at line 2, column 3: "),
        (b"[1]", r"config\.json: a JSON object is needed, got list"),
        (b'{"a": "\xff"}', r"config\.json: not UTF-8 at byte 7"),
        (b'{"a": ' + b"[" * 200_000, r"config\.json: JSON nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"config\.json: Exceeds the limit"),
        (b" " * ((16 << 20) + 1), r"config\.json: 16,777,217 bytes, at most 16,777,216 are read"),
    ],
)
def test_broken_json_is_one_line_with_file_and_place(
    save: Save, content: bytes, message: str
) -> None:
    folder = save()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        open_checkpoint(folder)
    assert "\n" not in str(error.value)
