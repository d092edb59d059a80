"""model.train: BOLT's signature, histories and callbacks, and a model that answers better."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.model import Model
from engine.training.callbacks import EarlyStopping, LearningRateSchedule
from engine.training.events import Event, Step
from tests.engine.training.tiny_model import write_rows, write_tiny_model

pytestmark = pytest.mark.usefixtures("home")
LORA: dict[str, Any] = {"method": "lora", "base": "f32", "learning_rate": 1e-2, "batch_size": 200}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return engine.load(write_tiny_model(tmp_path / "model"), threads=1)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", 60)


@pytest.fixture
def other_rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "others.jsonl", 20, seed=1)


def answer(model: Model) -> str:
    assert model.tokenizer is not None
    ids = model.tokenizer.encode_chat([{"role": "user", "content": "What is 4 and 49?"}])
    params = engine.SamplingParams(temperature=0.0, max_tokens=8)
    return "".join(step.text for step in engine.stream(model, ids, params))


def test_the_signature_is_bolts() -> None:
    parameters = inspect.signature(Model.train).parameters
    assert [(p.name, p.default) for p in parameters.values() if p.name != "self"] == [
        ("train_data", inspect.Parameter.empty),
        ("learning_rate", 1e-5),
        ("epochs", 5),
        ("batch_size", 10_000),
        ("train_metrics", ("loss",)),
        ("val_data", None),
        ("val_metrics", ()),
        ("max_in_memory_batches", None),
        ("options", inspect.Parameter.empty),
    ]


def test_lora_is_put_on(model: Model, rows: Path, other_rows: Path) -> None:
    before = answer(model)
    events: list[Event] = []
    history = model.train(
        rows, epochs=6, train_metrics=["loss", "categorical_accuracy"], val_data=str(other_rows),
        val_metrics=["loss", "perplexity", "categorical_accuracy"], on_event=events.append, **LORA,
    )  # fmt: skip
    assert {key: len(values) for key, values in history.items()} == dict.fromkeys(
        ("train_loss", "train_categorical_accuracy", "val_loss", "val_perplexity",
         "val_categorical_accuracy", "epoch_times"), 6
    )  # fmt: skip
    assert history["train_loss"][-1] < history["train_loss"][0] / 2
    assert history["val_categorical_accuracy"][-1] > history["val_categorical_accuracy"][0]
    assert answer(model) != before and answer(model).startswith("It is ")
    steps = [event for event in events if isinstance(event, Step)]
    assert all(step.n_targets >= 200 or step.epoch == int(step.epoch) for step in steps)


def test_full_fine_tuning_is_the_default_and_the_model_is_the_new_one(
    model: Model, rows: Path
) -> None:
    before = answer(model)
    cache = model.cache
    history = model.train(rows, learning_rate=5e-3, epochs=6, batch_size=200)
    assert list(history) == ["train_loss", "epoch_times"]
    assert history["train_loss"][-1] < history["train_loss"][0] / 2
    assert answer(model) != before and answer(model).startswith("It is ")
    assert model.cache is not cache and model.adapter is None


def test_callbacks_set_rates_and_end(model: Model, rows: Path) -> None:
    events: list[Event] = []
    history = model.train(
        rows,
        epochs=9,
        on_event=events.append,
        callbacks=[
            LearningRateSchedule(lambda epoch, rate: rate / 2**epoch),
            EarlyStopping("train_loss", patience=2, min_delta=100),
        ],
        **LORA,
    )
    assert list(history) == ["train_loss", "epoch_times"]
    assert len(history["train_loss"]) == 3  # one, and two that were not better by 100
    rates = {e.learning_rate for e in events if isinstance(e, Step)}
    assert rates == {1e-2, 5e-3, 2.5e-3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_metrics": ["f_measure(0.5)"]}, r"train_metrics: metric 'f_measure\(0.5\)' is not"),
        ({"train_metrics": "loss"}, r"train_metrics is a list of names; write \['loss'\]"),
        ({"val_metrics": ["loss"]}, r"val_metrics \['loss'\] need val_data"),
        ({"lerning_rate": 1}, "train: unknown setting 'lerning_rate'; did you mean"),
        ({"batch_size": 0}, "targets_per_step must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(
    model: Model, rows: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.train(rows, **options)


def test_data_may_be_a_source_that_knows_its_path(model: Model, rows: Path) -> None:
    class LLMDataSource:
        def __init__(self, path: Path) -> None:
            self.path = path

    history = model.train(LLMDataSource(rows), epochs=1, **LORA)
    assert len(history["train_loss"]) == 1
    with pytest.raises(ValueError, match="train_data is list; give a file, a folder or"):
        model.train([1, 2])


def test_early_stopping_watches_what_there_is() -> None:
    stopping = EarlyStopping("val_loss", patience=2)
    said = [stopping.on_epoch_end(0, {"val_loss": [3.0, 2.0, 2.5, 2.1][:n]}) for n in (1, 2, 3, 4)]
    assert said == ["", "", "", "val_loss did not get better for 2 epochs"]
    rising = EarlyStopping("val_categorical_accuracy", patience=1)
    assert rising.on_epoch_end(1, {"val_categorical_accuracy": [0.1, 0.2]}) == ""
    with pytest.raises(ValueError, match="watches 'val_loss', but there are train_loss"):
        stopping.on_epoch_end(0, {"train_loss": [1.0]})
