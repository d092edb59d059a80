from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def config() -> dict[str, Any]:
    """What a config.json of the Llama family holds at the least."""
    return {
        "vocab_size": 331,
        "hidden_size": 60,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
    }
