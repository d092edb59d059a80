"""From a model to a sparse one: its own texts, the run, the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data.models import resolve
from engine.checkpoints import open_checkpoint
from engine.training.events import Event, Result
from engine.training.run import Run, require_name, runs_dir
from engine.training.settings import TrainSettings
from engine.training.sparsify.aim import Sparsify
from engine.training.sparsify.answers import Progress, write_answers
from engine.training.sparsify.gates import rows_of
from engine.training.sparsify.outcome import ANSWERS
from engine.training.sparsify.prompts import prompts
from engine.training.sparsify.settings import OWN_TEXTS, SparsifySettings
from engine.training.train import train


def sparsify(
    settings: TrainSettings,
    own: SparsifySettings,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    on_answer: Progress = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result | None:
    """Teach the model of the settings to be sparse; None when it was stopped before the first step.

    data       OWN_TEXTS, or rows as for any run
    on_answer  hears how many of its own texts the model has written. They are kept in the run's
               folder: the same call goes on with them.
    A run that has begun is gone on with as any other, by engine.training.train.resume.
    """
    checkpoint = open_checkpoint(resolve(settings.model).path)
    rows_of(checkpoint.decoder_config(), own)  # before an hour of writing texts
    if settings.data == OWN_TEXTS:
        path = _own_texts(settings, own, on_answer, should_stop)
        if path is None:
            return None
        settings = settings.changed(data=str(path))
    return train(settings, aim=Sparsify(own), on_event=on_event, should_stop=should_stop)


def _own_texts(
    settings: TrainSettings,
    own: SparsifySettings,
    on_answer: Progress,
    should_stop: Callable[[], bool],
) -> Path | None:
    require_name(settings.name)
    run = Run(runs_dir() / settings.name)
    path = run.folder / ANSWERS
    with run.owned():
        run.require_new()
        is_whole = write_answers(
            path,
            resolve(settings.model).path,
            prompts()[: own.questions],
            n_tokens=own.answer_tokens,
            temperature=own.temperature,
            seed=settings.seed,
            threads=settings.threads,
            on_progress=on_answer,
            should_stop=should_stop,
        )
    return path if is_whole else None
