"""BOLT's `train` on our decoder: its signature and defaults, its metrics, its dict of histories.

Where BOLT counts rows of one predicted token each, batch_size counts the trained tokens of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from engine.training.callbacks import Callback
from engine.training.events import Evaluated, Event, Result, Step
from engine.training.run import runs_dir
from engine.training.session import Hooks
from engine.training.settings import TrainSettings, settings_from
from engine.training.train import train as run_training

if TYPE_CHECKING:
    from engine.model import Model

METRICS = ("loss", "categorical_accuracy", "perplexity")
Histories = dict[str, list[float]]


def train(
    model: Model,
    train_data: Any,
    learning_rate: float = 1e-5,
    epochs: int = 5,
    batch_size: int = 10_000,
    train_metrics: Sequence[str] = ("loss",),
    val_data: Any = None,
    val_metrics: Sequence[str] = (),
    max_in_memory_batches: int | None = None,
    callbacks: Sequence[Callback] = (),
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> Histories:
    """See engine.model.Model.train."""
    require_metrics("train_metrics", train_metrics)
    require_metrics("val_metrics", val_metrics)
    if val_metrics and val_data is None:
        raise ValueError(f"val_metrics {list(val_metrics)} need val_data")
    settings = _settings(model, options) | {
        "data": _path_of(train_data),
        "val_data": None if val_data is None else _path_of(val_data),
        "learning_rate": learning_rate,
        "epochs": epochs,
        "targets_per_step": batch_size,
        "max_in_memory_batches": max_in_memory_batches,
    }
    record = _Record(
        train_metrics, val_metrics if val_data is not None else (), callbacks, on_event
    )
    hooks = Hooks(record.learning_rate, record.why_end)
    made = settings_from(settings, "train")
    result = run_training(made, on_event=record.hear, hooks=hooks)
    _use(model, result, made)
    return record.history


def require_metrics(where: str, names: Sequence[str]) -> None:
    """ValueError for a name that is not supported, or for one text in place of a list."""
    if isinstance(names, str):
        raise ValueError(f"{where} is a list of names; write [{names!r}]")
    for name in names:
        if name not in METRICS:
            known = ", ".join(METRICS)
            raise ValueError(f"{where}: metric {name!r} is not supported; there are {known}")


def _settings(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """What BOLT does not ask for: its own defaults are those of full fine-tuning at one rate."""
    return {
        "model": str(model.path),
        "name": _free_name(),
        "method": "full",
        "schedule": "constant",
        "warmup": 0.0,
        "val_share": 0.0,
        "evaluate_every": 0,
        "samples": 0,
        "threads": model.threads,
    } | options


def _free_name() -> str:
    stamp = time.strftime("trained-%Y%m%d-%H%M%S")
    names = [stamp, *(f"{stamp}-{n}" for n in range(2, 1000))]
    return next(name for name in names if not (runs_dir() / name).exists())


def _path_of(data: Any) -> str:
    """A path, or a data source that knows its own (BOLT's `LLMDataSource(path)`)."""
    for name in ("path", "filename", "file_name"):
        if not isinstance(data, str | Path) and isinstance(getattr(data, name, None), str | Path):
            data = getattr(data, name)
    if not isinstance(data, str | Path):
        raise ValueError(
            f"train_data is {type(data).__name__}; give a file, a folder or "
            '"a.jsonl:2,b.jsonl:1", or an object with a path'
        )
    return str(data)


def _use(model: Model, result: Result, settings: TrainSettings) -> None:
    """Let the model answer with what it learned."""
    if result.path is None:
        raise ValueError(f"{result.reason}; nothing was learned, the model is as it was")
    if settings.method == "lora":
        model.set_adapter(result.path)
        return
    from engine.model import load

    level, threads = model.sparsity.level, model.threads
    model.close()
    learned = load(result.path, model.weight_format, max_seq_len=model.max_seq_len, threads=threads)
    vars(model).update(vars(learned))
    if level not in ("off", "auto"):
        logger.warning("sparsity {} was calibrated for other weights; it is off now", level)


class _Record:
    """Turns a run's events into a value an epoch for each metric."""

    def __init__(
        self,
        train_metrics: Sequence[str],
        val_metrics: Sequence[str],
        callbacks: Sequence[Callback],
        on_event: Callable[[Event], None],
    ) -> None:
        self._train, self._val = list(train_metrics), list(val_metrics)
        self._callbacks, self._on_event = callbacks, on_event
        keys = [*(f"train_{m}" for m in self._train), *(f"val_{m}" for m in self._val)]
        self.history: Histories = {key: [] for key in [*keys, "epoch_times"]}
        self._steps: list[Step] = []
        self._began, self._reason = time.perf_counter(), ""
        self._epoch_ended = False

    def learning_rate(self, epochs: float, rate: float) -> float:
        """For Hooks."""
        for callback in self._callbacks:
            rate = callback.learning_rate(int(epochs), rate)
        return rate

    def why_end(self) -> str:
        """For Hooks: asked after a step and after the evaluation that follows it."""
        if self._epoch_ended:
            self._epoch_ended = False
            number = len(self.history["epoch_times"]) - 1
            reasons = [c.on_epoch_end(number, self.history) for c in self._callbacks]
            self._reason = next(filter(None, reasons), "")
        return self._reason

    def hear(self, event: Event) -> None:
        """For train's on_event."""
        if isinstance(event, Step):
            self._steps.append(event)
            if event.epoch == int(event.epoch):
                self._end_epoch()
        if isinstance(event, Evaluated) and event.step:
            values = _metrics(event.loss, event.accuracy)
            for name in self._val:
                self.history[f"val_{name}"].append(values[name])
        self._on_event(event)

    def _end_epoch(self) -> None:
        kept = [step for step in self._steps if not step.skipped] or self._steps
        n = max(sum(step.n_targets for step in kept), 1)
        loss = sum(step.loss * step.n_targets for step in kept) / n
        values = _metrics(loss, sum(step.accuracy * step.n_targets for step in kept) / n)
        for name in self._train:
            self.history[f"train_{name}"].append(values[name])
        now = time.perf_counter()
        self.history["epoch_times"].append(now - self._began)
        self._steps, self._began, self._epoch_ended = [], now, True


def _metrics(loss: float, accuracy: float) -> dict[str, float]:
    perplexity = math.exp(loss) if loss < 100 else math.inf
    return {"loss": loss, "categorical_accuracy": accuracy, "perplexity": perplexity}
