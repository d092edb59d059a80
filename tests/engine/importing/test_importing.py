"""Pickles of Hugging Face directories and of OpenChatKit become safetensors, or are refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file

import engine
from engine import safetensors_shards
from engine.checkpoints import open_checkpoint
from engine.importing import converting, import_model
from engine.training.pickles import read_pickle
from tests.tiny import reference_logits, tiny_checkpoint

pytestmark = pytest.mark.parity

Tensors = dict[str, torch.Tensor]
FAMILIES = {
    # a tied head; biases and an own head; matrices the other way round
    "llama-tied": ("model.", "layers"),
    "neox": ("gpt_neox.", "layers"),
    "gpt2": ("transformer.", "h"),
    "gptj": ("transformer.", "h"),
    "opt": ("model.decoder.", "layers"),
}


def tensors_of(name: str) -> Tensors:
    return {k: v for file in tiny_checkpoint(name).glob("*.safetensors")
            for k, v in load_file(file).items()}  # fmt: skip


def pickled(name: str, folder: Path, change: Callable[[Tensors], None] | None = None) -> Path:
    """A directory as transformers left it before safetensors."""
    shutil.copytree(tiny_checkpoint(name), folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = tensors_of(name)
    if change:
        change(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def modules(name: str) -> list[Tensors]:
    """The embedding, layers and the head, with names of their own, as OpenChatKit has them."""
    root, layers = FAMILIES[name]
    tensors = tensors_of(name)
    early = ("embed_in", "embed_tokens", "embed_positions", "wte", "wpe")
    n = 1 + max(int(k.split(f".{layers}.")[1].split(".")[0]) for k in tensors if f".{layers}." in k)
    found: list[Tensors] = [{} for _ in range(n + 2)]
    for key, value in tensors.items():
        if f".{layers}." in key:
            number, own = key.split(f".{layers}.")[1].split(".", 1)
            found[int(number) + 1][own] = value
        else:
            own = key.removeprefix(root)
            found[0 if own.split(".")[0] in early else -1][own] = value
    return found


def layer_files(name: str, folder: Path) -> Path:
    """What OpenChatKit's prepare.py leaves."""
    shutil.copytree(tiny_checkpoint(name), folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    embedding, *layers, head = modules(name)
    torch.save(embedding, folder / "pytorch_embs.pt")
    torch.save(head, folder / "pytorch_lm_head.pt")
    for i, layer in enumerate(layers):
        torch.save(layer, folder / f"pytorch_{i}.pt")
    return folder


def stage_files(name: str, folder: Path, per_stage: int) -> Path:
    """What its training leaves: modules are numbered anew in each stage."""
    folder.mkdir()
    shutil.copy(tiny_checkpoint(name) / "config.json", folder)
    everything = modules(name)
    n_layers = len(everything) - 2
    for stage in range(-(-n_layers // per_stage)):
        first, last = stage * per_stage, min((stage + 1) * per_stage, n_layers)
        mine = everything[first + 1 : last + 1]
        mine = [everything[0], *mine] if stage == 0 else mine
        mine = [*mine, everything[-1]] if last == n_layers else mine
        flat = {
            f"{i}.{key}": value for i, module in enumerate(mine) for key, value in module.items()
        }
        torch.save(flat, folder / f"prank_{stage}_checkpoint.pt")
    return folder


def require_same(written: Path, name: str) -> None:
    """The bytes of the original, and its logits."""
    expected = open_checkpoint(tiny_checkpoint(name))
    found = open_checkpoint(written)
    assert set(found.tensor_names()) == set(expected.tensor_names())
    for tensor in expected.tensor_names():
        assert found.tensor(tensor).kind == expected.tensor(tensor).kind
        assert_array_equal(found.tensor(tensor).data, expected.tensor(tensor).data)
    ids = [5, 17, 3, 88, 42, 7]
    assert_array_equal(
        engine.load(written).logits(ids), engine.load(tiny_checkpoint(name)).logits(ids)
    )


# ---- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "mpt", "llama-chat", "llama-bfloat16", "gemma2"])
def test_a_pickled_directory_becomes_safetensors(tmp_path: Path, name: str) -> None:
    folder = pickled(name, tmp_path / "old")
    report = import_model(folder, tmp_path / "new")
    assert report.largest == 0 and report.n_tokens > 100 and report.left_out == ()
    require_same(tmp_path / "new", name)
    record = json.loads((tmp_path / "new" / "import.json").read_text())
    assert record["imported_from"] == str(folder) and record["tensors"] == report.n_tensors
    assert (tmp_path / "new/tokenizer.json").exists() == (name == "llama-chat")


def test_several_pickles_with_an_index_become_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pickled("llama-float16", tmp_path / "old")
    tensors = torch.load(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    weight_map = {}
    for i in range(3):
        file = f"pytorch_model-{i}-of-3.bin"
        part = dict(list(tensors.items())[i::3])
        # the second is of the format before torch 1.6
        torch.save(part, folder / file, _use_new_zipfile_serialization=i != 1)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    monkeypatch.setattr(safetensors_shards.write_shards, "__defaults__", (60_000,))
    report = import_model(folder, tmp_path / "new")
    assert len(list((tmp_path / "new").glob("model-*.safetensors"))) > 3
    assert report.largest == 0
    require_same(tmp_path / "new", "llama-float16")


def test_a_tied_head_is_written_once_and_buffers_not_at_all(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(20)
        tensors["value_head.weight"] = torch.ones(3)

    report = import_model(pickled("llama-tied", tmp_path / "old", add), tmp_path / "new")
    assert report.left_out == ("value_head.weight",)
    require_same(tmp_path / "new", "llama-tied")


def test_a_tied_head_of_other_numbers_stays_as_transformers_takes_it(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2

    import_model(pickled("llama-tied", tmp_path / "old", add), tmp_path / "new")
    assert not open_checkpoint(tmp_path / "new").decoder_config().tied_head


@pytest.mark.parametrize("name", FAMILIES)
def test_openchatkit_s_layers_are_put_together(tmp_path: Path, name: str) -> None:
    report = import_model(layer_files(name, tmp_path / "shards"), tmp_path / "new")
    assert report.kind == "OpenChatKit's layers"
    require_same(tmp_path / "new", name)


@pytest.mark.parametrize(("name", "per_stage"), [("neox", 1), ("neox", 2), ("llama-tied", 2)])
def test_openchatkit_s_stages_are_put_together_whatever_their_size(
    tmp_path: Path, name: str, per_stage: int
) -> None:
    report = import_model(stage_files(name, tmp_path / "shards", per_stage), tmp_path / "new")
    assert report.kind == "OpenChatKit's stages"
    require_same(tmp_path / "new", name)


@pytest.mark.parametrize("name", ["neox", "opt", "llama-tied"])
def test_transformers_opens_what_was_put_together(tmp_path: Path, name: str) -> None:
    import_model(stage_files(name, tmp_path / "shards", 1), tmp_path / "new")
    ids = [5, 17, 3, 88, 42, 7]
    found = reference_logits(tmp_path / "new", ids)
    assert_array_equal(found, reference_logits(tiny_checkpoint(name), ids))


def test_the_config_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = layer_files("neox", tmp_path / "shards")
    (folder / "config.json").rename(tmp_path / "neox.json")
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing; --config names a"):
        import_model(folder, tmp_path / "new")
    (tmp_path / "README.md").write_text("of something else")
    import_model(folder, tmp_path / "new", tmp_path / "neox.json")
    require_same(tmp_path / "new", "neox")
    assert not (tmp_path / "new" / "README.md").exists()
    (tmp_path / "neox.json").rename(tmp_path / "config.json")
    import_model(folder, tmp_path / "newer", tmp_path)
    assert (tmp_path / "newer" / "README.md").exists()


# ---- what is refused ----------------------------------------------------------------------------


def refused(folder: Path, match: str) -> str:
    """The message; nothing is left beside `folder`."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        import_model(folder, folder.parent / "new")
    assert sorted(folder.parent.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = torch.load(path)
    change(tensors)
    torch.save(tensors, path)


def test_every_fault_of_layers_is_named_at_once(tmp_path: Path) -> None:
    folder = layer_files("llama-tied", tmp_path / "shards")  # three layers
    (folder / "pytorch_1.pt").unlink()
    rewrite(folder / "pytorch_0.pt", lambda t: t.update({"mlp.up_proj.weight": torch.ones(3, 4)}))
    rewrite(folder / "pytorch_2.pt", lambda t: t.pop("input_layernorm.weight"))
    rewrite(folder / "pytorch_2.pt", lambda t: t.update({"mlp.gate.weight": torch.ones(3)}))
    rewrite(folder / "pytorch_lm_head.pt", lambda t: t.update({"extra": torch.ones(3)}))
    message = refused(folder, "missing: all of layers 1 .of 3., model.layers.2.input_layernorm")
    for part in (
        "of a wrong shape: model.layers.0.mlp.up_proj.weight has (3, 4) instead of (136, 200)",
        "not of this model: model.layers.2.mlp.gate.weight, extra",
        "nothing was written",
    ):
        assert part in message


def test_half_of_the_layers_are_not_lost_silently(tmp_path: Path) -> None:
    folder = stage_files("llama-tied", tmp_path / "shards", 1)
    (folder / "prank_2_checkpoint.pt").unlink()
    refused(folder, r"missing: all of layers 2 \(of 3\), model\.norm\.weight")
    (folder / "prank_0_checkpoint.pt").rename(folder / "prank_3_checkpoint.pt")
    refused(folder, r"prank_0_checkpoint\.pt, prank_2_checkpoint\.pt are missing")


def test_a_module_that_is_missing_moves_no_layer_to_another_place(tmp_path: Path) -> None:
    folder = stage_files("llama-tied", tmp_path / "shards", 3)

    def drop(tensors: Tensors) -> None:
        for key in [key for key in tensors if key.startswith("2.")]:
            del tensors[key]

    rewrite(folder / "prank_0_checkpoint.pt", drop)
    refused(folder, r"prank_0_checkpoint\.pt: module 2 is missing; nothing was written")


def test_a_tensor_that_is_there_twice_is_named(tmp_path: Path) -> None:
    folder = layer_files("neox", tmp_path / "shards")
    shutil.copy(folder / "pytorch_0.pt", folder / "pytorch_00.pt")
    refused(folder, r"twice: gpt_neox\.layers\.0\.")


def test_layers_that_the_config_does_not_have_are_named(tmp_path: Path) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    refused(folder, r"not of this model: model\.layers\.2\.")


def test_integers_are_no_weights(tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["model.norm.weight"] = torch.ones(200, dtype=torch.int64)

    folder = pickled("llama-tied", tmp_path / "old", change)
    refused(folder, r"no floats: model\.norm\.weight \(INT64\)")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["model.norm.weight"][3] = float("nan")

    refused(pickled("llama-tied", tmp_path / "old", change), r"^old: final_norm holds NaN")


def test_quantised_weights_are_refused_at_once(tmp_path: Path) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, r"config\.json: weights quantised by 'gptq' are not read")


class Hostile:
    """Runs a command when a common loader opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("how", ["zip", "old", "bare"])
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, how: str) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    trace, file = tmp_path / "ran", folder / "pytorch_model.bin"
    tensors = {**torch.load(file), "model.x": Hostile(trace)}
    if how == "bare":
        file.write_bytes(pickle.dumps(tensors["model.x"], protocol=2))
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=how == "zip")
    message = refused(folder, r"its pickle asks for posix\.system, which is no tensor")
    assert "nothing of it ran" in message and not trace.exists()


@pytest.mark.parametrize("data", [b"", b"junk" * 99, b"PK\3\4" + b"junk" * 99, b"\x80\x02."])
def test_a_file_that_is_no_pickle_of_tensors_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    (folder / "pytorch_model.bin").write_bytes(data)
    refused(folder, "pytorch_model.bin: no file of tensors that torch's weights-only loader reads")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[:-1000])
    refused(folder, "get the file again")


def test_pickles_with_any_bytes_are_read_or_are_one_line(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "a.pt"
    for is_zip in (True, False):
        tensors = {"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.float16)}
        torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
        data = bytearray(path.read_bytes())
        for _ in range(100):
            changed = data.copy()
            for at in rng.integers(0, len(data), rng.integers(1, 6)):
                changed[at] = rng.integers(0, 256)
            path.write_bytes(changed)
            try:
                read_pickle(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(3)], "holds a list instead of tensors by name"),
        ({3: torch.ones(3)}, "holds '3', which is no name of a tensor"),
        ({"a": "text"}, "'a' is a str, not a tensor"),
        ({"a": torch.ones(1).expand(1 << 40)}, "claims more numbers than the file holds"),
        ({"a": torch.ones(3).to_sparse()}, "no plain tensor"),
        ({"a": torch.ones(3, device="meta")}, "no plain tensor"),
    ],
)
def test_strange_contents_are_named(tmp_path: Path, value: Any, message: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        read_pickle(tmp_path / "a.pt")


def test_a_transposed_view_is_read_as_it_looks(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": tensor.T}, tmp_path / "a.pt")
    found = read_pickle(tmp_path / "a.pt")["a"]
    assert found.shape == (3, 2)
    assert_array_equal(found.float32(), tensor.numpy().T)


@pytest.mark.parametrize("shard", ["../secret.bin", "a/b.bin", "model.safetensors", 7])
def test_an_index_cannot_reach_outside(tmp_path: Path, shard: Any) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(folder, "is not the name of a pickle beside it")


def test_folders_with_nothing_to_import_say_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint("neox"), folder)
    refused(folder, "is a model as it is; `sparsechat --model")
    (folder / "model.safetensors").unlink()
    refused(folder, "nothing to import: neither pytorch_model.bin, nor")
    (folder / "latest").write_text("20")
    (folder / "checkpoint_20").mkdir()
    refused(folder, "a folder of checkpoints; name one of them, such as checkpoint_20")


# ---- nothing half done --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_leaves_nothing_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    folder = pickled("llama-tied", tmp_path / "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").write_text("mine")

    def stop(stage: str, fraction: float) -> None:
        if stage == "checking":
            raise error

    with pytest.raises(error):
        import_model(folder, tmp_path / "new", on_progress=stop)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "old"]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["mine.txt"]


def test_bytes_that_changed_on_the_way_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = safetensors_shards.write_shards

    def damage(folder: Path, *args: Any) -> None:
        real(folder, *args)
        file = folder / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-7] ^= 1
        file.write_bytes(data)

    monkeypatch.setattr(converting, "write_shards", damage)
    refused(pickled("llama-tied", tmp_path / "old"), "is not what pytorch_model.bin holds")


def test_only_one_pickle_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "COMPARED_BYTES", 0)
    report = import_model(layer_files("neox", tmp_path / "shards"), tmp_path / "new")
    assert report.largest is None and "logits of" in report.line()
    assert np.isfinite(engine.load(tmp_path / "new").logits([1, 2])).all()
