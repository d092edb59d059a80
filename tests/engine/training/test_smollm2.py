"""The default model: what its bases cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engine
from engine.training.packing import Batch
from tests.engine.training.checkpoints import cosine, disturb_adapters, gradients, trainable

pytestmark = [pytest.mark.model, pytest.mark.slow]

TEXT = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May? She sold 24 clips in May, "
    "so altogether she sold 48 + 24 = 72 clips. The capital of France is Paris, which lies on the "
    "river Seine. Water boils at 100 degrees Celsius at sea level, and freezes at 0 degrees. "
)


def batch_of(model: engine.Model) -> Batch:
    assert model.tokenizer is not None
    documents = [np.array(model.tokenizer.encode(text)) for text in (TEXT, TEXT[90:])]
    lengths = [len(ids) for ids in documents]
    token_ids = np.concatenate(documents)
    positions = np.concatenate([np.arange(n) for n in lengths])
    labels = np.flatnonzero(positions > 0)
    return Batch(token_ids, positions, lengths, labels - 1, token_ids[labels])


@pytest.fixture(scope="module")
def batch(smollm2_path: Path) -> Batch:
    return batch_of(engine.load(smollm2_path, threads=2))


def test_logits_equal_the_engine(smollm2_path: Path, batch: Batch) -> None:
    n = batch.lengths[0]
    ids = batch.token_ids[:n].tolist()
    theirs = engine.load(smollm2_path, "f32", threads=2).logits(ids)
    ours = trainable(smollm2_path).logits(batch).numpy()[:n]
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


# q4 is exact where the file is of that format: what is left is the rounding of activations
@pytest.mark.parametrize(
    ("base", "least"), [("bf16", 0.995), ("int8", 0.99), ("int16", 0.999), ("q4", 0.995)]
)
def test_gradients_of_bases_point_where_those_of_float32_do(
    base: str, least: float, smollm2_path: Path, batch: Batch
) -> None:
    exact, ours = trainable(smollm2_path), trainable(smollm2_path, base=base)
    for model in (exact, ours):
        disturb_adapters(model, size=0.01)
    assert cosine(gradients(exact, batch), gradients(ours, batch)) > least
    change = ours(batch).total.item() - exact(batch).total.item()
    assert abs(change) / len(batch.targets) < 0.02


def test_gradients_through_a_tenth_of_the_vocabulary_are_good(
    smollm2_path: Path, batch: Batch
) -> None:
    exact, ours = trainable(smollm2_path), trainable(smollm2_path, build_head_mass=0.999)
    for model in (exact, ours):
        disturb_adapters(model, size=0.01)
    assert cosine(gradients(exact, batch), gradients(ours, batch)) > 0.99
