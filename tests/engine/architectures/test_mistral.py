from __future__ import annotations

from typing import Any

import pytest

from engine.architectures.mistral import decoder_config


@pytest.mark.parametrize(
    ("changes", "window"),
    [({}, 4096), ({"sliding_window": None}, 0), ({"sliding_window": 16}, 16)],
)
def test_the_window_is_that_of_transformers(
    config: dict[str, Any], changes: dict[str, Any], window: int
) -> None:
    found = decoder_config(config | changes)
    assert (found.sliding_window, found.full_attention_layers) == (window, ())


def test_there_are_no_biases(config: dict[str, Any]) -> None:
    found = decoder_config(config | {"attention_bias": True, "mlp_bias": True})
    assert not (found.qkv_bias or found.o_bias or found.mlp_bias)


def test_faults_name_the_window(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^sliding_window must be from 0 to .*, got -1$"):
        decoder_config(config | {"sliding_window": -1})
