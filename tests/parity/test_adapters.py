"""Adapters between us and peft, both ways, on tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import engine
from engine.adapters import Adapter, Base, in_modules, read_adapter, write_adapter
from engine.export import Source
from engine.export.gguf import write_file
from tests.engine.test_low_rank import random_pairs
from tests.tiny import PROMPT_IDS, tiny_checkpoint

# peft asks transformers by a name that is about to go
_OLD_NAME = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings(_OLD_NAME)]

NAME = "llama-grouped"


def base_model(name: str = NAME) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    path = tiny_checkpoint(name)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)


def logits_of(model: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor([list(PROMPT_IDS)])).logits[0].numpy()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("only", [(), ("wq", "w_down")], ids=["all", "some"])
def test_peft_loads_what_is_written_here(tmp_path: Path, only: tuple[str, ...]) -> None:
    from peft import PeftModel

    model = engine.load(tiny_checkpoint(NAME), kv_cache="f32")
    pairs = random_pairs(model.config, 4, only)
    pairs |= random_pairs(model.config, 6, ("w_down",))
    del pairs["layers.1.w_down"]
    adapter = Adapter("polite", 6, 0.5, pairs)
    folder = write_adapter(tmp_path / "polite", adapter, Base(NAME, model.fingerprint))
    before = logits_of(base_model())
    theirs = logits_of(PeftModel.from_pretrained(base_model(), folder))
    assert np.abs(theirs - before).max() > 0.5
    model.set_adapter(folder)
    assert_close(model.logits(PROMPT_IDS), theirs)


OPTIONS: dict[str, dict[str, Any]] = {
    "all-linear": {"target_modules": "all-linear"},
    "some": {"target_modules": ["q_proj", "v_proj"]},
    "rslora": {"target_modules": "all-linear", "use_rslora": True},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"q_proj": 3, "model.layers.1.mlp.up_proj": 7},
        "alpha_pattern": {"k_proj": 5, "layers.0.mlp.down_proj": 2},
    },
    "last-layer": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [2]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_peft_writes_is_read_here(tmp_path: Path, options: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=5, lora_alpha=10, **options)
    theirs = get_peft_model(base_model(), config)
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    model = engine.load(tiny_checkpoint(NAME), kv_cache="f32", adapter=tmp_path / "theirs")
    assert_close(model.logits(PROMPT_IDS), logits_of(theirs))


# q, k and v in one module: head by head, one after another, by inputs; gate and up in one
FUSED = ("neox", "mpt", "gpt2", "phi3")


@pytest.mark.parametrize("name", [*FUSED, "gptj"])
@pytest.mark.parametrize("only", [(), ("wk", "w_up")], ids=["all", "some"])
def test_peft_loads_pairs_of_fused_modules(
    tmp_path: Path, name: str, only: tuple[str, ...]
) -> None:
    from peft import PeftModel

    model = engine.load(tiny_checkpoint(name), kv_cache="f32")
    adapter = Adapter("polite", 4, 0.5, random_pairs(model.config, 4, only))
    origin = Base(name, model.fingerprint, model.config.architecture)
    folder = write_adapter(tmp_path / "polite", in_modules(adapter, model.config), origin)
    theirs = logits_of(PeftModel.from_pretrained(base_model(name), folder))
    model.set_adapter(adapter)
    ours = model.logits(PROMPT_IDS)
    assert_close(ours, theirs)
    model.set_adapter(folder)
    # each matrix has its own pair again, with the rank that it had
    np.testing.assert_array_equal(model.logits(PROMPT_IDS), ours)


@pytest.mark.parametrize("name", FUSED)
def test_what_peft_writes_of_fused_modules_is_read_here(tmp_path: Path, name: str) -> None:
    from peft import LoraConfig, get_peft_model

    transposed = name == "gpt2"
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=5,
        lora_alpha=10,
        target_modules="all-linear",
        fan_in_fan_out=transposed,
    )
    theirs = get_peft_model(base_model(name), config)
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    model = engine.load(tiny_checkpoint(name), kv_cache="f32", adapter=tmp_path / "theirs")
    expected = logits_of(theirs)
    assert_close(model.logits(PROMPT_IDS), expected)
    # and on the GGUF file of the same model
    file = tmp_path / "m.gguf"
    with file.open("wb") as out:
        write_file(out, Source(tiny_checkpoint(name)), "f32", name)
    model = engine.load(file, kv_cache="f32", adapter=tmp_path / "theirs")
    assert_close(model.logits(PROMPT_IDS), expected)


def test_a_fused_pair_of_another_model_is_refused(tmp_path: Path) -> None:
    model = engine.load(tiny_checkpoint("phi3"))
    adapter = Adapter("polite", 4, 0.5, random_pairs(model.config, 4, ("wq", "wk", "wv")))
    found = in_modules(adapter, model.config)
    cut = {name: (a, b[:-8]) for name, (a, b) in found.matrices.items()}
    with pytest.raises(ValueError, match=r"polite: layers.0.wq and layers.0.wk and layers.0.wv "
                                         r"have 200 rows, lora_B has 192; it belongs"):  # fmt: skip
        model.set_adapter(found._replace(matrices=cut))
    with pytest.raises(ValueError, match=r"layers.0.wq is a part of a module of phi3"):
        write_adapter(tmp_path / "polite", adapter, Base("phi3", "", "phi3"))


def test_peft_s_dora_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True)
    get_peft_model(base_model(), config).save_pretrained(tmp_path / "dora")
    with pytest.raises(ValueError, match=r"DoRA \(use_dora\) is not supported"):
        read_adapter(tmp_path / "dora")


def shake(model: Any) -> None:
    """Random values for all Bs, which are zero at the start."""
    import torch

    rng = np.random.default_rng(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_B" in name:
                parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) / 4))
