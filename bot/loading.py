"""The model on its way from a name to something that answers, behind the prompt."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot.adapters import use_adapter, wanted_adapter
from bot.interrupts import Interrupts
from bot.settings import Settings, Value, parse
from bot.sparsity import CALIBRATING, Calibration, progress_line, use_level
from bot.worker import Worker

if TYPE_CHECKING:
    from data.models import ResolvedModel
    from engine import Model
    from engine.sparsity.knob import Level

POLL_S = 0.05  # waits are cut into pieces: Windows does not hear Ctrl-C inside a long one


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and the name it was asked for by.

    level    of sparsity that it was asked to have; model.sparsity says which one it has
    news     lines that the user should be told
    adapter  that it was asked to have; model.adapter says which one it has
    refused  why it has not got it, or ""
    """

    name: str
    model: Model
    level: Level = "off"
    news: tuple[str, ...] = ()
    adapter: str | None = None
    refused: str = ""


@dataclass
class Loading:
    """A model that is being loaded; `stages` hears each stage once, for whoever waits."""

    name: str
    future: Future[LoadedModel]
    stages: queue.SimpleQueue[str]
    calibration: Calibration = field(default_factory=Calibration)


class Interrupted(Exception):
    """Ctrl-C ended a wait."""


class ModelLoader:
    """Holds the model in use and the one on its way.

    A model that fails to load leaves the one in use where it is.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.current: LoadedModel | None = None
        self.loading: Loading | None = None

    def start(self, found: ResolvedModel, settings: Settings) -> Loading:
        """Load `found` on the worker thread."""
        stages: queue.SimpleQueue[str] = queue.SimpleQueue()
        calibration = Calibration()
        future = self.worker.submit(
            lambda: load_model(found, settings, _each_once(stages), calibration)
        )
        self.loading = Loading(found.name, future, stages, calibration)
        return self.loading

    def settle(self) -> LoadedModel | None:
        """The model in use, which is the new one as soon as that is there.

        The new one's failure is raised, once; the old one, if any, is in use again after that.
        """
        loading = self.loading
        if loading is not None and loading.future.done():
            self.loading = None
            new = loading.future.result()
            if self.current is not None:
                self.current.model.close()
            self.current = new
        return self.current

    def wait(self, interrupts: Interrupts, on_stage: Callable[[str], None]) -> LoadedModel:
        """Block until a model is in use. Interrupted on Ctrl-C, but that only ends a calibration;
        the error of one that failed.
        """
        pressed = threading.Event()
        with interrupts.cancelling(pressed):
            while self.loading is not None and not self.loading.future.done():
                for stage in _until_quiet(self.loading.stages):
                    on_stage(stage)
                if pressed.is_set() and self.loading.calibration.skip():
                    pressed.clear()
                elif pressed.is_set():
                    raise Interrupted("stopped; the model goes on loading")
        loaded = self.settle()
        if loaded is None:
            raise ValueError("no model is loaded; /model NAME loads one")
        return loaded


def find_model(name: str) -> ResolvedModel:
    """Where the model lies; ModelNotFoundError with the way out when it is nowhere."""
    from data import models

    return models.resolve(name)


def load_model(
    found: ResolvedModel,
    settings: Settings,
    on_progress: Callable[[str, float], None],
    calibration: Calibration,
) -> LoadedModel:
    """Read the checkpoint, calibrate it where its level needs that; ValueError in one line when it
    cannot talk."""
    import engine

    model = engine.load(
        found.path,
        max_seq_len=settings.max_seq_len,
        threads=settings.threads,
        kv_cache=settings.kv_cache,
        on_progress=on_progress,
    )
    if model.tokenizer is None:
        model.close()
        raise ValueError(
            f"{found.path} has no tokenizer, so it gives numbers and no text; choose another model"
        )
    adapter = wanted_adapter(settings)
    refused = "" if adapter is None else use_adapter(model, adapter)
    level_news = use_level(model, settings.sparsity, on_progress, calibration)
    news = (_form_news(found.name, model, settings), model.context_note, level_news)
    lines = tuple(line for line in news if line)
    return LoadedModel(found.name, model, settings.sparsity, lines, adapter, refused)


def _form_news(name: str, model: Model, settings: Settings) -> str:
    """That a model goes on with what is typed, where nobody asked for that; or ""."""
    from engine.templates import continues

    assert model.tokenizer is not None
    if settings.template is not None or not continues(model.tokenizer.template):
        return ""
    return (
        f"{name} knows no turns: it goes on with what you type; template=plain asks it as a chat "
        "model is asked"
    )


def checkpoint_settings(model: Model) -> dict[str, Value]:
    """The layer of settings that comes with a model: its generation_config, where it makes sense.

    max_tokens is among them when the built-in one would reserve more than half of the context.
    """
    values: dict[str, Value] = {}
    for name, value in model.generation_defaults.items():
        try:
            values[name] = parse(name, value)
        except (KeyError, ValueError):
            continue  # a stranger's file: what makes no sense there must not stop a chat
    half = model.max_seq_len // 2
    if half < Settings(model="").max_tokens:
        values["max_tokens"] = max(1, half)
    return values


def _each_once(stages: queue.SimpleQueue[str]) -> Callable[[str, float], None]:
    """Into `stages`, each stage once; of a calibration, which takes long, each tenth of one."""
    seen: set[str] = set()

    def on_progress(stage: str, fraction: float) -> None:
        tenth = int(10 * fraction) / 10 if stage.startswith(CALIBRATING) else 0.0
        if (line := progress_line(stage, tenth)) not in seen:
            seen.add(line)
            stages.put(line)

    return on_progress


def _until_quiet(stages: queue.SimpleQueue[str]) -> Iterator[str]:
    """What is said within POLL_S."""
    try:
        yield stages.get(timeout=POLL_S)
        while True:
            yield stages.get_nowait()
    except queue.Empty:
        return
