"""The training loop, from top to bottom.

rows → Feed (rendered, packed) → gradients → rules (NaN, spikes) → optimizer → events, evaluations
and checkpoints. A run that was stopped or killed goes on from its last checkpoint with the losses
that it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from engine.cores import default_threads
from engine.memory import used_bytes
from engine.training.aims import Aim, Plain, aim_of
from engine.training.allocator import freed_memory_kept
from engine.training.events import Event, Finished, Result, Started, Step, Warned
from engine.training.feed import Fed
from engine.training.optimizers import optimizer
from engine.training.probe import Probe, probe
from engine.training.progress import Clock
from engine.training.run import Run, require_name, runs_dir
from engine.training.schedule import rate_factor
from engine.training.session import NO_HOOKS, Hooks, Session
from engine.training.settings import TrainSettings
from engine.training.subject import absolute_paths, open_subject
from engine.training.updates import Sums, apply, clear, gradients, is_enough
from engine.training.watch import remember, stop_line, why_skip

OnEvent = Callable[[Event], None]
SAVE_AFTER_S = 600.0  # without a checkpoint
EVALUATIONS = 10  # of a run, unless evaluate_every says otherwise


def train(
    settings: TrainSettings,
    *,
    aim: Aim | None = None,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    hooks: Hooks = NO_HOOKS,
) -> Result:
    """Train, and leave an adapter or a model that the shell can use.

    aim          what is taught, if not the rows' own tokens
    on_event     hears what happens, on this thread
    should_stop  asked after each step; True saves and returns a Result that is not finished
    hooks        decide what settings cannot say; a resumed run does not have them
    ValueError and OSError in one line for what cannot be trained.
    """
    require_name(settings.name)
    run = Run(runs_dir() / settings.name)
    with run.owned():
        return _train(
            run, absolute_paths(settings), aim or Plain(), True, on_event, should_stop, hooks
        )


def resume(
    folder: Path | str,
    *,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Go on with the run in `folder` (or of that name) as if it had never stopped."""
    found = Path(folder)
    run = Run(found if found.is_absolute() or found.exists() else runs_dir() / found)
    settings, aim = run.settings(), aim_of(run.read().get("aim"))
    with run.owned():
        return _train(run, settings, aim, False, on_event, should_stop)


def _train(
    run: Run,
    settings: TrainSettings,
    aim: Aim,
    is_new: bool,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    hooks: Hooks = NO_HOOKS,
) -> Result:
    def tell(event: Event) -> None:
        run.write(event)
        on_event(event)

    if is_new:
        run.require_new()
    threads = settings.threads or default_threads()
    n_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with freed_memory_kept(), torch.random.fork_rng(devices=[]):
            warnings: list[str] = []
            subject = open_subject(settings, warnings.append)
            found = probe(settings, subject, aim)
            if is_new:
                # written down as found: another probe might find another base, and other losses
                settings = settings.changed(base=found.base)
                run.begin(settings, subject.rows.fingerprint(), subject.fingerprint, aim.facts())
            else:
                run.require_same(subject.rows.fingerprint(), subject.fingerprint)
            for text in [*warnings, *found.warnings]:
                tell(Warned(text))
            torch.manual_seed(settings.seed)
            made = optimizer(
                settings.optimizer, found.model.trainable, settings.weight_decay, threads
            )
            session = Session(run, settings, subject, found.model, made, tell, hooks, aim)
            return _loop(session, found, should_stop)
    finally:
        torch.set_num_threads(n_before)


def _loop(session: Session, found: Probe, should_stop: Callable[[], bool]) -> Result:
    settings, tell = session.settings, session.tell
    if not session.restore():
        session.progress.evaluate_every = _evaluate_every(settings, found.n_steps)
    progress = session.progress
    session.run.go_back(progress.step)
    tell(_started(session, found))
    session.model.train(True)
    if progress.is_due and not session.evaluate(should_stop):
        return _stop(session)
    clock, saved_s = Clock(), time.monotonic()
    reason = _why_end(session)
    steps = _steps(session)
    while not reason:
        clock.begin()
        if (feds := next(steps, None)) is None:
            reason = "all rows are learned"
            break
        sums, skipped, rate = _step(session, feds)
        progress.seconds += clock.end(sums.n_tokens)
        tell(_step_event(session, found, clock, sums, skipped, rate))
        if progress.n_in_row >= settings.max_skipped:
            return _end(session, stop_line(progress.step, progress.n_in_row, skipped, rate), False)
        progress.is_due = _is_due(session, feds[-1].ends_epoch)
        if progress.is_due:
            session.evaluate(should_stop)
        is_late = time.monotonic() - saved_s > SAVE_AFTER_S
        stops = should_stop()
        if stops:
            return _stop(session)
        if _saves(session, is_late):
            session.save()
            saved_s = time.monotonic()
        reason = _why_end(session)
    if progress.evaluated_at != progress.step and not session.evaluate(should_stop):
        return _stop(session)
    session.save()
    return _end(session, reason, True)


def _stop(session: Session) -> Result:
    """To be gone on with."""
    session.save()
    return _end(session, f"stopped at step {session.progress.step}", False)


def _steps(session: Session) -> Iterator[list[Fed]]:
    """The batches of each step. A step never goes on into the next epoch."""
    settings = session.settings
    held: list[Fed] = []
    for fed in session.subject.feed.batches(session.progress.place):
        held.append(fed)
        batches = [one.batch for one in held]
        if fed.ends_epoch or is_enough(batches, settings.accumulate, settings.targets_per_step):
            yield held
            held = []


def _step(session: Session, feds: list[Fed]) -> tuple[Sums, str, float]:
    """One step: what it summed, why it was skipped if it was, and its learning rate."""
    settings, progress = session.settings, session.progress
    rate = settings.peak_learning_rate * rate_factor(
        settings.schedule,
        settings.warmup,
        _share(settings, progress.step, progress.epochs),
        _share(settings, progress.step + 1, feds[-1].epochs),
    )
    rate = session.hooks.learning_rate(progress.epochs, rate)
    session.aim.begin(progress.step, _share(settings, progress.step, progress.epochs))
    sums = gradients(session.model, [fed.batch for fed in feds])
    skipped = why_skip(sums.loss, sums.grad_norm, progress.recent, settings.max_spike)
    if skipped:
        clear(session.model)
        progress.n_skipped, progress.n_in_row = progress.n_skipped + 1, progress.n_in_row + 1
    else:
        apply(session.model, session.optimizer, sums, rate, settings.clip)
        remember(progress.recent, sums.loss)
        progress.n_in_row = 0
    progress.step += 1
    progress.n_tokens += sums.n_tokens
    progress.place, progress.epochs = feds[-1].next, feds[-1].epochs
    return sums, skipped, rate


def _share(settings: TrainSettings, step: int, epochs: float) -> float:
    """How much of the run is done: by rows, or by steps where these end it sooner."""
    done = epochs / settings.epochs
    return max(done, step / settings.max_steps) if settings.max_steps else done


def _n_steps(session: Session, found: Probe) -> int:
    """Of the whole run: as the steps so far went, else as the first window of rows promises."""
    settings, progress = session.settings, session.progress
    share = _share(settings, progress.step, progress.epochs)
    n_steps = max(progress.step, round(progress.step / share)) if share else found.n_steps
    return min(n_steps, settings.max_steps or n_steps)


def _why_end(session: Session) -> str:
    """Why no further step is made; "" when one is."""
    settings, progress = session.settings, session.progress
    if settings.max_steps and progress.step >= settings.max_steps:
        return f"max_steps {settings.max_steps} are made"
    if settings.patience and progress.n_worse >= settings.patience:
        return f"the held-out loss did not fall for {progress.n_worse} evaluations"
    return session.hooks.why_end()


def _evaluate_every(settings: TrainSettings, n_steps: int) -> int:
    if settings.evaluate_every is not None:
        return settings.evaluate_every
    return max(1, math.ceil(n_steps / EVALUATIONS))


def _is_due(session: Session, ends_epoch: bool) -> bool:
    """Whether the step that was just made is followed by an evaluation; 0 = by epochs."""
    every = session.progress.evaluate_every
    return ends_epoch if every == 0 else session.progress.step % every == 0


def _saves(session: Session, is_late: bool) -> bool:
    progress, every = session.progress, session.settings.save_every
    if every is not None:
        return progress.step % every == 0
    return is_late or progress.evaluated_at == progress.step


def _started(session: Session, found: Probe) -> Started:
    progress, subject = session.progress, session.subject
    left = found.n_steps - progress.step
    return Started(
        run=session.run.folder,
        n_steps=found.n_steps,
        first_step=progress.step,
        n_rows=subject.rows.n_rows,
        n_val_rows=subject.n_val_rows,
        n_trainable=sum(int(p.numel()) for p in session.model.trainable.values()),
        n_weights=found.n_weights,
        base=found.base,
        cosine=found.cosine,
        tokens_per_s=found.tokens_per_s,
        eta_s=left * session.settings.tokens_per_step / max(found.tokens_per_s, 1e-9),
        memory_bytes=found.memory_bytes,
    )


def _step_event(
    session: Session, found: Probe, clock: Clock, sums: Sums, skipped: str, rate: float
) -> Step:
    progress, n_steps = session.progress, _n_steps(session, found)
    return Step(
        step=progress.step,
        n_steps=n_steps,
        loss=sums.loss,
        learning_rate=rate,
        tokens_per_s=clock.tokens_per_s,
        eta_s=clock.eta_s(n_steps - progress.step),
        memory_bytes=used_bytes(),
        grad_norm=sums.grad_norm,
        n_tokens=sums.n_tokens,
        n_targets=sums.n_targets,
        accuracy=sums.n_correct / max(sums.n_targets, 1),
        epoch=progress.epochs,
        skipped=skipped,
    )


def _end(session: Session, reason: str, finished: bool) -> Result:
    progress, run = session.progress, session.run
    path: Path | None = None
    if finished:
        session.optimizer.settle()
        session.take_best()
        path = session.aim.write(run.name, session.model, session.settings, session.subject)
    result = Result(
        finished=finished,
        reason=reason,
        run=run.folder,
        path=path,
        step=progress.step,
        loss=progress.recent[-1] if progress.recent else None,
        first_val_loss=progress.first_val_loss,
        best_loss=progress.best_loss,
        best_step=progress.best_step,
        n_skipped=progress.n_skipped,
        seconds=progress.seconds,
        resume_command=run.resume_command,
    )
    session.tell(Finished(result))
    return result
