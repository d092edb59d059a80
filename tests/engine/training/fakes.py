"""Rows, tokenizers and a trainable model for tests of training: small, and quick without Numba."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data.datasets import Row, Turn
from engine.templates import template_named
from engine.templates.jinja import JinjaTemplate
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.spelling import BYTE_OF
from engine.training.packing import Batch

TEMPLATES = Path(__file__).parents[2] / "golden" / "templates"
CHARACTER_OF = {byte: char for char, byte in BYTE_OF.items()}
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ċ Ċ", "Ġ t", "Ġt he"]
CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|begin_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
)  # fmt: skip
# the eos_token of each golden template's family; ChatML's otherwise
EOS = {
    "llama-2": "</s>", "mistral-v0.2": "</s>", "mistral-v0.3": "</s>", "zephyr": "</s>",
    "llama-3": "<|eot_id|>", "llama-3.1": "<|eot_id|>", "llama-3.2": "<|eot_id|>",
    "human_bot": "<|endoftext|>", "plain": "<|endoftext|>", "llama2": "</s>", "llama2_32k": "</s>",
}  # fmt: skip


def conversation(*contents: str, system: str | None = None, whole: bool = False) -> Row:
    """User and assistant in turns; the answers are trained, or everything is."""
    turns = [
        Turn("assistant" if i % 2 else "user", content, whole or bool(i % 2))
        for i, content in enumerate(contents)
    ]
    first = [] if system is None else [Turn("system", system, whole)]
    return Row((*first, *turns), None, "rows.jsonl:1", "messages")


@dataclass
class _Checkpoint:
    ggml_tokenizer: Mapping[str, Any]
    path: Path = Path("tiny.gguf")
    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    tokenizer_json: Path | None = None


def tokenizer_with(template: str) -> Tokenizer:
    """A byte-level tokenizer with a fixed template or a golden one of tests/golden/templates."""
    words = [CHARACTER_OF[byte] for byte in range(256)]
    tokens = [*CONTROL, *words, *(merge.replace(" ", "") for merge in MERGES)]
    eos = EOS.get(template, "<|im_end|>")
    bos = "<|begin_of_text|>" if template.startswith("llama-3") else "<s>"
    loaded = load_tokenizer(
        _Checkpoint(
            {
                "model": "gpt2",
                "pre": "smollm",
                "tokens": tokens,
                "token_type": [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)),
                "merges": MERGES,
                "bos_token_id": CONTROL.index(bos),
                "eos_token_id": CONTROL.index(eos),
                "add_bos_token": False,
            }
        )
    )
    assert loaded is not None
    golden = TEMPLATES / f"{template}.jinja"
    if golden.exists():
        special = {"bos_token": bos, "eos_token": eos}
        loaded.template = JinjaTemplate(golden.read_text(encoding="utf-8"), special)
    else:
        loaded.template = template_named(template)
    return loaded


class Bigram:
    """A model.Trainable in small: the next token depends on the last one alone."""

    def __init__(self, vocab_size: int = 50, seed: int = 0) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(vocab_size, vocab_size, generator=generator)
        self.trainable: dict[str, Any] = {"table": torch.nn.Parameter(table)}
        self.training = True

    def train(self, mode: bool = True) -> Bigram:
        self.training = mode
        return self

    def logits(self, batch: Batch) -> Any:
        import torch

        return self.trainable["table"][torch.from_numpy(batch.token_ids)]

    def __call__(self, batch: Batch) -> FakeLoss:
        import torch

        logits = self.logits(batch)[torch.from_numpy(batch.rows)]
        targets = torch.from_numpy(batch.targets)
        total = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        return FakeLoss(total, len(targets), int((logits.argmax(1) == targets).sum()))


class FakeLoss(NamedTuple):
    """engine.training.loss.Loss."""

    total: Any
    n: int
    correct: int
