"""The probe: which base is taken, and what it shortens for that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.training import probe as probing
from engine.training.aims import Aim, Plain
from engine.training.bases import width
from engine.training.examples import Example
from engine.training.packing import batch_of
from engine.training.probe import _choose, _Trial, probe, shortened
from engine.training.settings import TrainSettings
from engine.training.sparsify.aim import Sparsify
from engine.training.sparsify.settings import SparsifySettings
from engine.training.sparsify.student import Student
from engine.training.subject import open_subject
from tests.engine.training.tiny_model import write_rows, write_tiny_model

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    return TrainSettings(
        data=str(write_rows(tmp_path / "rows.jsonl", 60)),
        model=str(write_tiny_model(tmp_path / "model")),
        name="run", base="f32", tokens_per_step=256, epochs=3,
    )  # fmt: skip


def trial(tokens_per_s: float, *gradient: float) -> _Trial:
    return _Trial(None, tokens_per_s, torch.tensor(gradient))


@pytest.mark.parametrize(
    ("int8", "base", "n_warnings"),
    [
        (trial(300, 1.0, 0.1), "int8", 0),
        (trial(100, 1.0, 0.0), "f32", 0),  # slower
        (trial(900, 1.0, 1.0), "f32", 1),  # another direction
    ],
)
def test_int8_is_taken_where_it_is_quicker_and_true(
    int8: _Trial, base: str, n_warnings: int
) -> None:
    chosen, cosine, warnings = _choose({"f32": trial(200, 1.0, 0.0), "int8": int8})
    assert (chosen, len(warnings)) == (base, n_warnings)
    assert cosine == (pytest.approx(1 / np.sqrt(1.01)) if base == "int8" else None)


def test_a_cosine_is_right_over_as_many_numbers_as_a_model_has() -> None:
    a = torch.randn(30_000_000, generator=torch.Generator().manual_seed(0))
    assert probing._cosine(a, 3 * a) == pytest.approx(1, abs=1e-5)
    assert probing._cosine(a, a.flip(0)) == pytest.approx(0, abs=1e-3)
    half = a.clone()
    half[::2] = 0
    assert probing._cosine(a, half) == pytest.approx(0.5**0.5, abs=1e-3)
    assert probing._cosine(torch.zeros(3), torch.zeros(3)) == 0


@pytest.mark.parametrize(
    ("quick", "free", "candidates"),
    [
        ({"bf16", "int8"}, 100, ["f32", "bf16"]),
        ({"int8"}, 100, ["f32", "int8"]),
        ({"int16"}, 100, ["f32", "int16"]),
        (set(), 100, ["f32"]),  # trying int8 by plain loops took minutes
        ({"bf16", "int8"}, 10, ["int8"]),  # two do not fit
        ({"int16"}, 10, ["int8"]),  # which is widened to int16
        (set(), 10, ["int8"]),
    ],
)
def test_what_is_tried_is_what_the_cpu_is_quick_at(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, quick: set[str], free: int,
    candidates: list[str],
) -> None:  # fmt: skip
    for name in ("bf16", "int8", "int16"):
        monkeypatch.setattr(probing, f"has_quick_{name}", lambda name=name: name in quick)
    monkeypatch.setattr(probing, "available_bytes", lambda: free)
    assert probing._candidates(settings.changed(base="auto"), 2) == candidates
    assert probing._candidates(settings, 2) == ["f32"]


@pytest.mark.parametrize(
    ("has_amx", "free", "candidates"),
    [(True, 100, ["f32", "bf16"]), (True, 10, ["f32"]), (False, 100, ["f32"])],
)
def test_full_fine_tuning_tries_products_of_bfloat16_with_amx(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, has_amx: bool, free: int,
    candidates: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(probing, "has_amx", lambda: has_amx)
    monkeypatch.setattr(probing, "available_bytes", lambda: free)
    assert probing._candidates(settings.changed(base="auto", method="full"), 2) == candidates


def test_full_fine_tuning_trains_every_weight_there_is(settings: TrainSettings) -> None:
    settings = settings.changed(method="full", base="f32")
    found = probe(settings, open_subject(settings, lambda text: None), Plain())
    assert found.n_weights == sum(p.numel() for p in found.model.trainable.values())


def test_a_shortened_batch_keeps_labels_within_it() -> None:
    trained = [False, True, True, True, True]
    batch = batch_of(
        [Example([1, 2, 3, 4, 5], trained, "", 0), Example([6, 7], [False, True], "", 0)]
    )
    short = shortened(batch, 3)
    assert (short.token_ids.tolist(), short.lengths) == ([1, 2, 3], [3])
    assert (short.rows.tolist(), short.targets.tolist()) == ([0, 1], [2, 3])
    cut = shortened(batch, 6)
    assert cut.lengths == [5, 1] and cut.rows.tolist() == [0, 1, 2, 3]
    assert shortened(batch, 1) is batch  # there is no label in it
    assert shortened(batch, 100).lengths == batch.lengths


@pytest.mark.parametrize("aim", [Plain(), Sparsify(SparsifySettings(goal=0.5))])
def test_the_probe_changes_nothing_that_the_run_depends_on(
    settings: TrainSettings, aim: Aim
) -> None:
    subject = open_subject(settings, lambda text: None)
    found = probe(settings, subject, aim)
    for name, values in aim.arrays().items():
        assert np.array_equal(values, np.full_like(values, 1 if name == "importance" else -1))
    again = probing._build(settings, subject, "f32")
    for name, parameter in found.model.trainable.items():
        assert torch.equal(parameter, again.trainable[name])
        assert parameter.grad is None
    assert found.base == "f32" and found.tokens_per_s > 0
    assert found.n_steps == pytest.approx(len(list(subject.feed.batches())), rel=0.1)


def test_speed_is_of_what_is_trained(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that teaches sparsity takes longer than the rows' own tokens would."""
    settings = settings.changed(method="feed_forward")
    subject = open_subject(settings, lambda text: None)
    timed: list[object] = []
    monkeypatch.setattr(probing, "gradients", lambda model, batches: timed.append(model))
    found = probe(settings, subject, Sparsify(SparsifySettings()))
    assert isinstance(found.model, Student)
    assert timed[-1] is found.model and timed[0] is found.model.model


def test_more_memory_is_foreseen_for_more(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_subject(settings, lambda text: None)
    model = probing._build(settings, subject, "f32")

    def needed(base: str = "f32", **changes: object) -> int:
        return probing._still_to_come(settings.changed(**changes), subject, model, base)

    assert needed(tokens_per_step=2048) > needed()
    assert needed(checkpointing=True) < needed()
    assert needed(accumulate=2) < needed()
    assert needed("bf16") < needed()
    same = "bf16" if width("q4") == torch.bfloat16 else "f32"
    assert needed("q4") == needed(same)
    monkeypatch.setattr(probing, "is_fast", lambda config: True)
    assert needed("q4") < needed(same)  # which does not keep what can be made again
    assert needed(optimizer="adamw8bit") < needed()
