"""Settings are strict: a typo or a value out of range fails before anything is computed."""

from __future__ import annotations

import json

import pytest

from engine.training.settings import TrainSettings, settings_from

BASIC = {"data": "a.jsonl", "model": "m.gguf", "name": "run"}


def test_settings_survive_json() -> None:
    settings = settings_from({**BASIC, "rank": 8, "learning_rate": 1e-3, "checkpointing": True})
    assert settings_from(json.loads(json.dumps(settings.as_dict()))) == settings


def test_learning_rates_go_by_method() -> None:
    assert TrainSettings(**BASIC).peak_learning_rate == 2e-4
    assert TrainSettings(**BASIC, method="full").peak_learning_rate == 2e-5
    assert TrainSettings(**BASIC, learning_rate=1e-5).peak_learning_rate == 1e-5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1.0}, "train: unknown setting 'lerning_rate'; did you mean 'learning_ra"),
        ({"epochs": "3"}, "train: epochs must be int, got '3'"),
        ({"epochs": True}, "train: epochs must be int, got True"),
        ({"max_steps": 1.5}, "train: max_steps must be int, got 1.5"),
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, adamw8bit, got 'sgd'"),
        ({"learning_rate": 0.0}, r"learning_rate must be in \(0, 10\], got 0.0"),
        ({"learning_rate": float("nan")}, r"learning_rate must be in \(0, 10\], got nan"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"accumulate": 3}, "tokens_per_step 2048 is not a multiple of accumulate 3"),
        ({"val_share": 0.9}, r"val_share must be in \[0, 0.5\], got 0.9"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from({**BASIC, **values})


def test_missing_names_are_named() -> None:
    with pytest.raises(ValueError, match=r"x.toml: 'name' is missing"):
        settings_from({"data": "a", "model": "b"}, "x.toml")


def test_changed_refuses_unknown_names() -> None:
    assert TrainSettings(**BASIC).changed(rank=4).rank == 4
    with pytest.raises(ValueError, match="unknown setting 'rnk'"):
        TrainSettings(**BASIC).changed(rnk=4)


def test_a_batch_is_a_share_of_a_step() -> None:
    assert TrainSettings(**BASIC, tokens_per_step=2048, accumulate=4).tokens_per_batch == 512
