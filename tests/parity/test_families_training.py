"""Training of the other families: gradients are transformers', and what was learned is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.checkpoints import RawTensor, open_checkpoint
from engine.checkpoints.huggingface import HuggingFaceCheckpoint
from engine.shapes import all_shapes
from engine.training.packing import Batch
from engine.training.settings import TrainSettings
from engine.training.sparsify.settings import SparsifySettings
from engine.training.sparsify.sparsifying import sparsify
from engine.training.subject import open_subject
from engine.training.train import train
from tests.engine.training.checkpoints import (
    MemoryCheckpoint,
    disturb_adapters,
    gradients,
    random_batch,
    trainable,
)
from tests.engine.training.tiny_model import write_rows
from tests.tiny import (
    FAMILY_CONFIGS,
    FAMILY_NAMES,
    build_checkpoint,
    reference_model,
    tiny_checkpoint,
)

pytestmark = pytest.mark.parity

LENGTHS = [9, 40]  # tokens of two texts: within windows and what rotations were trained on; beyond
SCALE = 4 / 3  # of adapters of rank 3 with alpha 4
TRAINED = {
    "lora": ("neox", "gpt2", "gptj", "gemma2"),
    "full": ("mpt-clipped", "phi3-window"),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other take longer than such small products."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stored_gradients(folder: Path, batch: Batch) -> dict[str, np.ndarray]:
    """Of the batch's loss by transformers' parameters, text by text."""
    import torch

    model, start = reference_model(folder), 0
    model.zero_grad()
    for length in batch.lengths:
        ids = torch.from_numpy(batch.token_ids[start : start + length])
        logits = model(ids[None]).logits[0].float()
        inside = (batch.rows >= start) & (batch.rows < start + length)
        rows, targets = (torch.from_numpy(a[inside]) for a in (batch.rows - start, batch.targets))
        torch.nn.functional.cross_entropy(logits[rows], targets, reduction="sum").backward()
        start += length
    found = {
        name: parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad()
    return found


def as_checkpoint(folder: Path, tensors: Mapping[str, np.ndarray]) -> HuggingFaceCheckpoint:
    """Tensors under transformers' names, to be read as a checkpoint's."""
    raw = {
        name: RawTensor(name, values.shape, "F32", values.reshape(-1).view(np.uint8))
        for name, values in tensors.items()
    }
    return HuggingFaceCheckpoint(folder, open_checkpoint(folder).config, raw, ())


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_gradients_of_adapters_equal_transformers(name: str) -> None:
    folder = tiny_checkpoint(name)
    checkpoint = open_checkpoint(folder)
    config = checkpoint.decoder_config()
    values = {n: checkpoint.tensor(n).float32().copy() for n in all_shapes(config)}
    batch = random_batch(LENGTHS, config.vocab_size)

    def model_of(base: dict[str, np.ndarray]) -> Any:
        made = trainable(MemoryCheckpoint(config, base), rank=3, alpha=4.0)
        disturb_adapters(made)
        return made

    # the base is taken to be what the adapters leave of transformers' weights
    pairs = model_of(values).adapter_matrices()
    base = {n: v - SCALE * pairs[n][1] @ pairs[n][0] if n in pairs else v
            for n, v in values.items()}  # fmt: skip
    ours = gradients(model_of(base), batch)
    theirs = as_checkpoint(folder, stored_gradients(folder, batch))
    assert len(ours) == 2 * len(pairs)
    for matrix, (a, b) in pairs.items():
        gradient = theirs.tensor(matrix).float32()
        for side, expected in (("a", b.T @ gradient), ("b", gradient @ a.T)):
            off = np.linalg.norm(ours[f"{matrix}.lora_{side}"] - SCALE * expected)
            assert off < 1e-3 * SCALE * np.linalg.norm(expected), (matrix, side)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 60)


def engine_loss(model: engine.Model, batches: Sequence[Batch]) -> float:
    """Nats a label, text by text."""
    total, n = 0.0, 0
    for batch in batches:
        start = 0
        for length in batch.lengths:
            logits = model.logits(batch.token_ids[start : start + length].tolist())
            inside = (batch.rows >= start) & (batch.rows < start + length)
            chosen = logits[batch.rows[inside] - start].astype(np.float64)
            chosen -= chosen.max(axis=1, keepdims=True)
            targets = chosen[np.arange(len(chosen)), batch.targets[inside]]
            total -= float((targets - np.log(np.exp(chosen).sum(axis=1))).sum())
            n, start = n + len(chosen), start + length
    return total / n


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for method, names in TRAINED.items() for name in names]
)
def test_the_engine_has_the_loss_that_training_ended_with(
    name: str, method: str, rows: Path, tmp_path: Path, home: Path
) -> None:
    config = next(config for config in FAMILY_CONFIGS if config.name == name)
    folder = build_checkpoint(replace(config, has_tokenizer=True), tmp_path / name)
    settings = TrainSettings(
        data=str(rows), model=str(folder), name="run", method=method, base="f32",
        tokens_per_step=512, learning_rate=3e-3, max_steps=6, evaluate_every=6, val_share=0.1,
        samples=0, threads=1,
    )  # fmt: skip
    result = train(settings)
    assert result.best_loss is not None and result.first_val_loss is not None
    assert result.best_loss < result.first_val_loss - 0.1
    batches = open_subject(settings, print).val_batches
    if method == "lora":
        learned = engine.load(folder, threads=1, adapter=result.path)
    else:
        assert result.path is not None
        learned = engine.load(result.path, threads=1)
    assert engine_loss(learned, batches) == pytest.approx(result.best_loss, rel=1e-3)
    learned.set_adapter(None)
    if method == "lora":
        assert engine_loss(learned, batches) == pytest.approx(result.first_val_loss, rel=1e-3)


def test_a_family_without_gates_or_files_learns_to_be_sparse(
    rows: Path, tmp_path: Path, home: Path
) -> None:
    config = next(config for config in FAMILY_CONFIGS if config.name == "gpt-neo")
    folder = build_checkpoint(replace(config, has_tokenizer=True), tmp_path / "tiny")
    settings = TrainSettings(
        data=str(rows), model=str(folder), name="run", method="feed_forward", base="f32",
        tokens_per_step=512, max_steps=2, evaluate_every=2, val_share=0.1, samples=0, threads=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="gpt_neo has no gate; rows must be 0"):
        sparsify(settings, SparsifySettings(goal=0.5, rows=0.3, result="f32"))
    result = sparsify(settings, SparsifySettings(goal=0.5, result="f32"))
    assert result is not None and result.path is not None and result.path.is_dir()
    model = engine.load(result.path, threads=1)
    assert model.trained is not None and model.trained.share == 0.5
