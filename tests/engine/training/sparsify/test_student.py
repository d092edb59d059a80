"""The student: its sparse forward is the engine's sparse decoding, its teacher its frozen self."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from engine.sparsity.copies import make_copies
from engine.training.packing import Batch
from engine.training.sparsify.settings import SparsifySettings
from engine.training.sparsify.student import Student, labels
from tests.engine.decoders import packed_weights
from tests.engine.training.checkpoints import (
    MemoryCheckpoint,
    random_batch,
    small_checkpoint,
    trainable,
)

METHODS = ("lora", "feed_forward")


def student_of(
    checkpoint: MemoryCheckpoint, method: str = "feed_forward", **settings: Any
) -> Student:
    values = {"match": 1, "goal": 0.6} | settings
    return Student(trainable(checkpoint, method), SparsifySettings(**values), seed=0)


def disturb(student: Student) -> None:
    """As if it had been trained."""
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for parameter in student.trainable.values():
            noise = rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
            parameter.add_(torch.from_numpy(noise), alpha=0.05)


def chat_batch(checkpoint: MemoryCheckpoint, n_prompt: int = 6, n: int = 20) -> Batch:
    """One document: a prompt, and an answer of which all tokens are labels."""
    ids = np.random.default_rng(7).integers(0, checkpoint.settings.vocab_size, n)
    rows = np.arange(n_prompt - 1, n - 1)
    return Batch(ids, np.arange(n), [n], rows, ids[rows + 1])


FAST = {"hidden_size": 64, "intermediate_size": 96, "n_heads": 2, "n_kv_heads": 1, "head_dim": 32}


@pytest.mark.parametrize(
    "flags", [{}, FAST, {"gated": False, "activation": "relu"}, {"mlp_bias": True}]
)
@pytest.mark.parametrize("rows", [0.6, 0.4, 0])
def test_the_sparse_student_is_the_engine_decoding_sparsely(rows: float, flags: Any) -> None:
    from engine.decoder import Decoder
    from engine.threads import Team

    if rows and not flags.get("gated", True):
        pytest.skip("no gate")
    checkpoint = small_checkpoint(**flags)
    student, batch = student_of(checkpoint, rows=rows), chat_batch(checkpoint)
    disturb(student)
    student.train(False)
    with torch.no_grad():
        student(batch)  # takes thresholds
    student.gates.goal *= 0.999  # beside the value that they are, where roundings decide
    ours = student.logits(batch, labels(batch)).numpy()

    values = dict(checkpoint.values) | student.full_tensors()
    weights, team = packed_weights(values), Team(1)
    trained = student.trained()
    try:
        decoder = Decoder(checkpoint.settings, weights, team, "f32")
        found_thresholds = trained.thresholds(decoder)
        told = {line.site: line.active for line in found_thresholds.sites}
        assert told == {"down": 1 - 0.6} | ({"up": 1 - rows} if rows else {})
        decoder.use_thresholds(found_thresholds.sparse(make_copies(checkpoint.settings, weights)))
        cache, found = decoder.new_cache(), []
        ids = batch.token_ids.tolist()
        found.append(decoder.extend(cache, ids[:6])[-1].copy())
        for token_id in ids[6:]:
            found.append(decoder.extend(cache, [token_id])[-1].copy())
        read = decoder.n_active.sum() / (
            decoder.config.intermediate_size * 14 * len(trained.values)
        )
    finally:
        team.close()
    assert_allclose(np.stack(found), ours[5:], rtol=1e-3, atol=1e-4)
    assert read < 2  # rows and inputs together: something was left out


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_is_the_model_before_training(method: str) -> None:
    checkpoint = small_checkpoint()
    student, batch = student_of(checkpoint, method), random_batch([9, 14], 50)
    before = student.logits(batch).numpy()
    disturb(student)
    with student._teacher.speaks():
        assert_array_equal(student.logits(batch).numpy(), before)
    assert not np.allclose(student.logits(batch).numpy(), before)


@pytest.mark.parametrize("method", METHODS)
def test_a_dense_student_that_has_learned_nothing_has_no_loss_and_no_gradient(method: str) -> None:
    student = student_of(small_checkpoint(), method, dense_share=0.9)
    student.settings = SparsifySettings(dense_share=0.9, match=1)
    student._dense_documents = lambda batch: torch.ones(len(batch.token_ids), dtype=torch.bool)  # type: ignore[method-assign]
    loss = student(random_batch([9, 14], 50))
    assert abs(float(loss.total.detach())) < 1e-4
    loss.total.backward()
    assert all(p.grad.abs().max() < 1e-4 for p in student.trainable.values() if p.grad is not None)


def test_training_towards_the_teacher_lowers_both_losses() -> None:
    checkpoint = small_checkpoint()
    student, batch = student_of(checkpoint, dense_share=0.3), random_batch([20, 24, 30, 22], 50)
    student.train(False)
    with torch.no_grad():
        first = float(student(batch).total)
    student.train(True)
    optimizer = torch.optim.Adam(student.trainable.values(), lr=3e-3)
    for step in range(40):
        student.begin(step, step / 40)
        optimizer.zero_grad()
        (student(batch).total / len(batch.rows)).backward()
        optimizer.step()
    student.train(False)
    with torch.no_grad():
        assert float(student(batch).total) < 0.6 * first


def test_prompts_and_dense_documents_are_read_densely() -> None:
    checkpoint = small_checkpoint()
    student = student_of(checkpoint)
    batch = chat_batch(checkpoint)
    student.train(False)
    with torch.no_grad():
        student(batch)
    dense, sparse = student.logits(batch), student.logits(batch, labels(batch))
    assert_allclose(dense[:6], sparse[:6], rtol=1e-5, atol=1e-6)
    assert (dense[6:] - sparse[6:]).abs().max() > 1e-3


def test_the_control_learns_the_rows_and_still_knows_the_thresholds() -> None:
    checkpoint = small_checkpoint()
    student, batch = student_of(checkpoint, control=True), chat_batch(checkpoint)
    student.begin(0, 0.0)
    loss = student(batch)
    expected = float(trainable(checkpoint)(batch).total.detach())
    assert_allclose(float(loss.total.detach()), expected, rtol=1e-5)
    student.begin(1, 0.1)
    assert student.gates.is_ready
    assert (student.gates.now < 0).all()


def test_what_the_teacher_shares_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="embedding would be trained, which the teacher shares"):
        student_of(small_checkpoint(), "full")
