"""The registry: a file name is a model_type."""

from __future__ import annotations

from typing import Any

import pytest

from engine.architectures import ARCHITECTURES, architecture, decoder_config
from engine.checkpoints._names import pattern_of
from engine.config import DecoderConfig
from engine.shapes import all_shapes

# what some need beside the least
MORE = {"num_key_value_heads": 2, "rotary_dim": 4}
FUSED = ({"wq", "wk", "wv"}, {"w_gate", "w_up"})


def test_file_names_are_the_registry() -> None:
    assert {"llama", "mistral", "qwen2"} <= ARCHITECTURES
    assert not any(name.startswith("_") for name in ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_names_the_tensors_of_its_decoder(
    name: str, config: dict[str, Any]
) -> None:
    tensors = architecture(name).TENSORS
    needed = all_shapes(decoder_config(config | MORE | {"model_type": name}))
    assert {"head", *map(pattern_of, needed)} <= set(tensors)
    for stored in set(tensors.values()):
        sharing = {ours for ours, theirs in tensors.items() if theirs == stored}
        parts = {ours.removeprefix("layers.{i}.").removesuffix(".bias") for ours in sharing}
        assert len(sharing) == 1 or parts in FUSED


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_decoder_carries_its_architectures_name(name: str, config: dict[str, Any]) -> None:
    found = decoder_config(config | MORE | {"model_type": name})
    assert isinstance(found, DecoderConfig)
    assert found.architecture == name.removesuffix("_text")


@pytest.mark.parametrize("name", ["mamba", "_keys", "os", "llama.evil", "", "../llama"])
def test_an_unknown_model_type_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not known; this build has .*llama, .*mistral, "):
        architecture(name)


@pytest.mark.parametrize("value", [None, 3, ["llama"]])
def test_a_model_type_that_is_no_name_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^model_type must be a name, got "):
        architecture(value)
