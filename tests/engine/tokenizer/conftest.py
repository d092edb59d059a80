"""Checkpoints made of nothing but a tokenizer, and the tiny vocabularies that stand in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.spelling import BYTE_OF

GOLDEN = Path(__file__).parents[2] / "golden"
# what git and editors would not leave alone in a text file
UNPRINTABLE = (
    "\ncontrols [\0][\x01][\x07][\x08][\x0b][\x0c][\x1b][\x7f][\x80]\n"
    "line\u2028separator\u2029paragraph\x85next \uffff\nwindows\r\nline ends\r\nand old\rones"
)
CHARACTER_OF = {byte: char for char, byte in BYTE_OF.items()}


@dataclass
class FakeCheckpoint:
    """engine.checkpoints.Checkpoint, as far as tokenizers read it."""

    path: Path = Path("tiny.gguf")
    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    tokenizer_json: Path | None = None
    ggml_tokenizer: Mapping[str, Any] | None = None


@pytest.fixture(scope="session")
def mixed_text() -> str:
    """Scripts, emoji, code, spaces, invisible characters: everything a conversation may hold."""
    return (GOLDEN / "text" / "mixed.txt").read_text(encoding="utf-8") + UNPRINTABLE


@pytest.fixture(scope="session")
def byte_level_metadata() -> dict[str, Any]:
    """GGUF's keys for a byte-level vocabulary: all bytes, a few words, ChatML's tokens and a
    user-defined one."""
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "1 2"]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [CHARACTER_OF[byte] for byte in range(256)]
    tokens = [*control, *words, *(merge.replace(" ", "") for merge in merges), "<think>"]
    return {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [3] * len(control) + [1] * (len(tokens) - 4) + [4],
        "merges": merges,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": False,
    }


@pytest.fixture(scope="session")
def checkpoint() -> Callable[..., FakeCheckpoint]:
    """Makes checkpoints."""
    return FakeCheckpoint


@pytest.fixture
def tokenizer(
    byte_level_metadata: dict[str, Any], checkpoint: Callable[..., FakeCheckpoint]
) -> Tokenizer:
    """The tiny byte-level tokenizer; without a template of its own it gets ChatML."""
    loaded = load_tokenizer(checkpoint(ggml_tokenizer=byte_level_metadata))
    assert loaded is not None
    return loaded
