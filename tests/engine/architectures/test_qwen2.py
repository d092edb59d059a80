from __future__ import annotations

from typing import Any

import pytest

from engine.architectures.qwen2 import decoder_config

SLIDING = {"use_sliding_window": True, "sliding_window": 16}
KINDS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]


def test_q_k_and_v_have_biases_and_nothing_else(config: dict[str, Any]) -> None:
    found = decoder_config(config | {"mlp_bias": True})
    assert (found.qkv_bias, found.o_bias, found.mlp_bias) == (True, False, False)


@pytest.mark.parametrize(
    ("changes", "window", "full"),
    [
        ({}, 0, ()),
        ({"sliding_window": 16, "max_window_layers": 0}, 0, ()),
        (SLIDING, 0, ()),  # max_window_layers is 28 by default, all four layers are below it
        (SLIDING | {"max_window_layers": 4}, 0, ()),
        (SLIDING | {"max_window_layers": 3}, 16, (0, 1, 2)),
        (SLIDING | {"max_window_layers": 0}, 16, ()),
        (SLIDING | {"layer_types": KINDS, "max_window_layers": 4}, 16, (1, 3)),
        ({"sliding_window": 16, "layer_types": KINDS}, 0, ()),
    ],
)
def test_the_window_applies_from_max_window_layers_on(
    config: dict[str, Any], changes: dict[str, Any], window: int, full: tuple[int, ...]
) -> None:
    found = decoder_config(config | changes)
    assert (found.sliding_window, found.full_attention_layers) == (window, full)


@pytest.mark.parametrize("kinds", [KINDS[:3], [*KINDS[:3], "chunked_attention"], "full", [1] * 4])
def test_other_layer_types_are_refused(config: dict[str, Any], kinds: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^layer_types must list 4 times one of full_attention, sliding_attention"
    ):
        decoder_config(config | SLIDING | {"layer_types": kinds})
