from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from bot.interrupts import Interrupts
from bot.loading import Interrupted, ModelLoader, checkpoint_settings, find_model
from bot.settings import Settings
from bot.worker import Worker
from engine.templates import template_named
from tests.bot.conftest import press_ctrl_c
from tests.fakes import FakeEngine, FakeModel, report_on

SETTINGS = Settings(model="tiny", threads=2, max_seq_len=99)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine({"tiny": FakeModel(), "other": FakeModel(), "bad": ValueError("damaged")})
    engine.install_in(monkeypatch.setitem)
    return engine


@pytest.fixture
def loader(engine: FakeEngine) -> Iterator[ModelLoader]:
    worker = Worker()
    yield ModelLoader(worker)
    assert worker.close(10)


def wait(loader: ModelLoader, stages: list[str] | None = None):  # type: ignore[no-untyped-def]
    return loader.wait(Interrupts(), (stages if stages is not None else []).append)


def test_a_model_is_loaded_with_the_settings_that_concern_it(
    engine: FakeEngine, loader: ModelLoader
) -> None:
    loader.start(find_model("tiny"), SETTINGS)
    loaded = wait(loader)
    assert (loaded.name, loaded.model) == ("tiny", engine.models["tiny"])
    assert engine.loads[0]["threads"] == 2 and engine.loads[0]["max_seq_len"] == 99


def test_each_stage_is_told_once_to_whoever_waits(engine: FakeEngine, loader: ModelLoader) -> None:
    told, release, stages = threading.Event(), threading.Event(), []

    def loading(on_progress) -> None:  # type: ignore[no-untyped-def]
        for stage in ("packing", "packing", "compiling", "packing"):
            on_progress(stage, 0.5)
        told.set()
        assert release.wait(10)

    def hear(stage: str) -> None:
        stages.append(stage)
        if stage == "compiling …":
            release.set()

    engine.loading = loading
    loader.start(find_model("tiny"), SETTINGS)
    assert told.wait(10)
    loader.wait(Interrupts(), hear)
    assert stages == ["packing …", "compiling …"]


def test_without_a_model_waiting_says_what_to_do(loader: ModelLoader) -> None:
    with pytest.raises(ValueError, match="no model is loaded; /model NAME loads one"):
        wait(loader)


def test_a_failure_is_raised_once_and_the_model_in_use_stays(loader: ModelLoader) -> None:
    loader.start(find_model("tiny"), SETTINGS)
    first = wait(loader)
    loader.start(find_model("bad"), SETTINGS)
    with pytest.raises(ValueError, match="damaged"):
        wait(loader)
    assert wait(loader) is first
    assert not first.model.is_closed


def test_a_new_model_closes_the_old_one(loader: ModelLoader) -> None:
    loader.start(find_model("tiny"), SETTINGS)
    first = wait(loader)
    loader.start(find_model("other"), SETTINGS)
    assert wait(loader).name == "other"
    assert first.model.is_closed


def test_ctrl_c_ends_the_wait_and_not_the_loading(engine: FakeEngine, loader: ModelLoader) -> None:
    release = threading.Event()
    engine.loading = lambda on_progress: (on_progress("reading", 0.0), release.wait(10))[0]
    loader.start(find_model("tiny"), SETTINGS)

    class Pressed:
        def wait(self, timeout: float) -> bool:
            return True

    def press(stage: str) -> None:
        press_ctrl_c(Pressed())  # type: ignore[arg-type]

    with Interrupts() as interrupts, pytest.raises(Interrupted):
        loader.wait(interrupts, press)
    release.set()
    assert wait(loader).name == "tiny"


def test_a_level_without_a_calibration_gets_one_while_the_model_loads(
    engine: FakeEngine, loader: ModelLoader
) -> None:
    stages: list[str] = []
    loader.start(find_model("tiny"), Settings(model="tiny", sparsity="balanced"))
    loaded = wait(loader, stages)
    assert stages == ["calibrating sparsity, once for this model: answers … 50 %"]
    assert loaded.model.sparsity.level == loaded.level == "balanced"
    assert loaded.news == ("sparsity was calibrated in 0 s, once for this model",)
    loader.start(find_model("tiny"), Settings(model="tiny", sparsity="fast"))
    assert (wait(loader).news, engine.calibrations) == ((), 1)


def test_ctrl_c_ends_a_calibration_and_the_model_answers_without(
    engine: FakeEngine, loader: ModelLoader
) -> None:
    stages: list[str] = []

    def press(stage: str) -> None:
        stages.append(stage)
        os.kill(os.getpid(), signal.SIGINT)

    engine.calibrating = report_on
    loader.start(find_model("tiny"), Settings(model="tiny", sparsity="balanced"))
    with Interrupts() as interrupts:
        loaded = loader.wait(interrupts, press)
    assert len(stages) == 1 and loaded.model.sparsity.level == "off"
    assert loaded.news == (
        "the calibration was stopped, so that sparsity is off until balanced is asked for again",
    )


def test_what_there_is_to_say_of_form_and_context_is_said_once(
    engine: FakeEngine, loader: ModelLoader
) -> None:
    model = engine.models["tiny"]
    assert isinstance(model, FakeModel) and model.tokenizer is not None
    model.tokenizer.template = template_named("completion")
    model.context_note = "the context is long"
    loader.start(find_model("tiny"), Settings(model="tiny"))
    assert wait(loader).news == (
        "tiny knows no turns: it goes on with what you type; template=plain asks it as a chat "
        "model is asked",
        "the context is long",
    )
    loader.start(find_model("tiny"), Settings(model="tiny", template="plain"))
    assert wait(loader).news == ("the context is long",)


@pytest.mark.parametrize(
    ("defaults", "max_seq_len", "layer"),
    [
        ({}, 4096, {}),
        ({"temperature": 0.2, "top_k": 20}, 4096, {"temperature": 0.2, "top_k": 20}),
        ({"temperature": -1, "top_k": 2.5, "nonsense": 1}, 4096, {}),
        ({}, 512, {"max_tokens": 256}),
        ({}, 2, {"max_tokens": 1}),
    ],
)
def test_a_models_own_settings_are_taken_where_they_make_sense(
    defaults: dict[str, float], max_seq_len: int, layer: dict[str, float]
) -> None:
    model = FakeModel(generation_defaults=defaults, max_seq_len=max_seq_len)
    assert checkpoint_settings(model) == layer  # type: ignore[arg-type]
