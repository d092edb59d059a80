"""What a run tells while it goes on: the command line, trackers and metrics.jsonl read these."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """One fixed prompt: what the model answered before training and what it answers now."""

    prompt: str
    base: str
    now: str


class Started(NamedTuple):
    """Before the first step: what the probe found.

    n_steps       the whole run's, as far as it can be known before the rows were read
    first_step    0, or the step that a resumed run goes on from
    base          how the frozen weights are kept; cosine: of its gradient with float32's, None when
                  they are float32
    memory_bytes  the peak of the process that is expected
    """

    run: Path
    n_steps: int
    first_step: int
    n_rows: int
    n_val_rows: int
    n_trainable: int
    n_weights: int
    base: str
    cosine: float | None
    tokens_per_s: float
    eta_s: float
    memory_bytes: int


class Step(NamedTuple):
    """After an optimizer step.

    loss          nats per trained token, of the batches of this step
    n_tokens      of this step, all of them; n_targets: the trained ones; accuracy: the share of
                  these that was the likeliest token
    epoch         how many are done, a fraction
    memory_bytes  of the process now
    skipped       why the weights were left as they were, "" when they were not
    """

    step: int
    n_steps: int
    loss: float
    learning_rate: float
    tokens_per_s: float
    eta_s: float
    memory_bytes: int
    grad_norm: float
    n_tokens: int
    n_targets: int
    epoch: float
    skipped: str
    accuracy: float = 0.0


class Evaluated(NamedTuple):
    """Held-out rows, teacher-forced; perplexity = exp(loss), accuracy = share of labels that were
    the likeliest token."""

    step: int
    loss: float
    perplexity: float
    accuracy: float
    is_best: bool
    samples: tuple[Sample, ...]


class Saved(NamedTuple):
    """A checkpoint stands on the disk."""

    step: int
    path: Path


class Warned(NamedTuple):
    """Something to know, in one line; the run goes on."""

    text: str


class Result(NamedTuple):
    """How a run ended.

    finished        False when it was stopped; resume_command then goes on with it
    reason          why it ended, in one line
    path            the adapter's or model's folder, None when the run is not finished
    best_loss       on held-out rows, None when there were none; best_step: where
    n_skipped       steps that left the weights as they were
    """

    finished: bool
    reason: str
    run: Path
    path: Path | None
    step: int
    loss: float | None
    first_val_loss: float | None
    best_loss: float | None
    best_step: int | None
    n_skipped: int
    seconds: float
    resume_command: str


class Finished(NamedTuple):
    """The last event."""

    result: Result


Event = Started | Step | Evaluated | Saved | Warned | Finished
