"""The registry: a file name is a model_type."""

from __future__ import annotations

from typing import Any

import pytest

from engine.architectures import ARCHITECTURES, architecture, decoder_config
from engine.config import DecoderConfig

LAYER = {"attention_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w_gate", "w_up", "w_down"}


def test_file_names_are_the_registry() -> None:
    assert {"llama", "mistral", "qwen2"} <= ARCHITECTURES
    assert not any(name.startswith("_") for name in ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_names_the_tensors_of_a_layer(name: str) -> None:
    tensors = architecture(name).TENSORS
    assert {"embedding", "final_norm", "head"} <= set(tensors)
    assert {f"layers.{{i}}.{part}" for part in LAYER} <= set(tensors)
    assert len(set(tensors.values())) == len(tensors)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_decoder_carries_its_architectures_name(name: str, config: dict[str, Any]) -> None:
    found = decoder_config(config | {"model_type": name})
    assert isinstance(found, DecoderConfig)
    assert found.architecture == name


@pytest.mark.parametrize("name", ["mamba", "_keys", "os", "llama.evil", "", "../llama"])
def test_an_unknown_model_type_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not known; this build has .*llama, .*mistral, "):
        architecture(name)


@pytest.mark.parametrize("value", [None, 3, ["llama"]])
def test_a_model_type_that_is_no_name_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^model_type must be a name, got "):
        architecture(value)
