"""A run in memory: the model, its optimizer and where it stands; evaluated, saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.files import DiskFullError
from engine.training import checkpoints
from engine.training.aims import Aim, Plain
from engine.training.evaluation import evaluate, greedy
from engine.training.events import Evaluated, Event, Sample, Saved, Warned
from engine.training.optimizers import Optimizer
from engine.training.progress import Progress
from engine.training.results import adapter_of
from engine.training.run import Run
from engine.training.settings import TrainSettings
from engine.training.subject import Subject


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller in Python decides while a run goes on.

    learning_rate  epochs that are done, the settings' rate -> the rate of the next step
    why_end        asked after each step: a line when the run is to end as a finished one, else ""
    """

    learning_rate: Callable[[float, float], float] = lambda epochs, rate: rate
    why_end: Callable[[], str] = lambda: ""


NO_HOOKS = Hooks()


@dataclass
class Session:
    """tell hears every event after it was written down."""

    run: Run
    settings: TrainSettings
    subject: Subject
    model: Any  # a Trainable
    optimizer: Optimizer
    tell: Callable[[Event], None]
    hooks: Hooks = NO_HOOKS
    aim: Aim = field(default_factory=Plain)
    progress: Progress = field(default_factory=Progress)
    saved_at: int = -1  # the step of the newest checkpoint

    def restore(self) -> bool:
        """Go on from the newest checkpoint that is whole; False when there is none."""
        for path in list(checkpoints.steps(self.run.checkpoints)):
            try:
                found = checkpoints.load(path)
                progress = Progress.from_facts(found.facts)
            except (ValueError, TypeError, KeyError) as error:
                self.tell(Warned(f"{error}; going back to the checkpoint before it"))
                checkpoints.remove(path)
                continue
            self._put(found.arrays)
            self.optimizer.load(_part(found.arrays, "optimizer/"))
            torch.set_rng_state(torch.from_numpy(found.arrays["rng"].copy()))
            self.progress, self.saved_at = progress, progress.step
            return True
        return False

    def save(self) -> None:
        """Write a checkpoint to go on from. A full disk is told, and the run goes on."""
        if self.saved_at == self.progress.step:
            return
        arrays = self._learned()
        arrays |= {f"optimizer/{key}": array for key, array in self.optimizer.state().items()}
        arrays["rng"] = torch.get_rng_state().numpy()
        facts = self.progress.as_facts()
        if self._write(self.run.checkpoints, arrays, facts, self.settings.keep):
            self.saved_at = self.progress.step

    def evaluate(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Score the held-out rows, answer the fixed prompts, and keep the weights if they are the
        best so far. False when it was stopped, as if it had not begun."""
        progress = self.progress
        if not self.subject.val_batches:
            progress.evaluated_at, progress.is_due = progress.step, False
            return True
        self.optimizer.settle()
        scores = evaluate(self.model, self.subject.val_batches, should_stop)
        if scores is None:
            return False
        progress.evaluated_at, progress.is_due = progress.step, False
        is_best = scores.loss < (np.inf if progress.best_loss is None else progress.best_loss)
        if progress.first_val_loss is None:
            progress.first_val_loss = scores.loss
        if is_best:
            progress.best_loss, progress.best_step, progress.n_worse = scores.loss, progress.step, 0
        else:
            progress.n_worse += 1
        samples = self._samples()
        self.tell(Evaluated(progress.step, *scores[:3], is_best, samples))
        if is_best and progress.step:
            self._write(self.run.best, self._learned(), {"loss": scores.loss}, 1)
        self.aim.evaluated(progress.step, self.run.folder, self.subject.val_batches)
        return True

    def take_best(self) -> None:
        """The weights of the best evaluation, where there was one after the first step."""
        if self.progress.best_step == 0 and self.progress.step:
            self.tell(Warned("no evaluation was better than the one before training"))
        for path in checkpoints.steps(self.run.best):
            try:
                found = checkpoints.load(path)
            except ValueError as error:
                self.tell(Warned(f"best/{error}; the last weights are taken"))
                return
            if found.step == self.progress.best_step:
                self._put(found.arrays)
            return

    def _samples(self) -> tuple[Sample, ...]:
        prompts = self.subject.prompts
        if not prompts:
            return ()
        tokenizer = self.subject.tokenizer
        answers = [tokenizer.decode(new).strip() for new in self._answers(prompts)]
        if not self.progress.step:
            self.progress.base_answers = answers
        base = self.progress.base_answers or [""] * len(prompts)
        shown = [tokenizer.decode(prompt, skip_special=False) for prompt in prompts]
        return tuple(Sample(*three) for three in zip(shown, base, answers, strict=True))

    def _answers(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """By the engine where it can take an adapter: a hundred times quicker."""
        n_tokens = self.settings.sample_tokens
        adapter = adapter_of(self.run.name, self.model, self.settings, self.subject)
        if adapter is None:
            return greedy(self.model, prompts, self.subject.tokenizer.stop_ids, n_tokens)
        import engine

        model = engine.load(self.subject.path, threads=self.settings.threads)
        try:
            model.set_adapter(adapter)
            params = engine.SamplingParams(temperature=0.0, max_tokens=n_tokens)
            return [
                [step.token_id for step in engine.stream(model, prompt, params)
                 if step.token_id >= 0 and step.token_id not in model.stop_ids]
                for prompt in prompts
            ]  # fmt: skip
        finally:
            model.close()

    def _learned(self) -> dict[str, NDArray[Any]]:
        """The weights, and what the aim holds beside them."""
        weights = {name: p.detach().numpy() for name, p in self.model.trainable.items()}
        arrays = {f"weights/{name}": array for name, array in weights.items()}
        return arrays | {f"aim/{name}": array for name, array in self.aim.arrays().items()}

    def _put(self, arrays: dict[str, NDArray[Any]]) -> None:
        """A checkpoint's weights into the parameters; ValueError when they are of another model."""
        weights = _part(arrays, "weights/")
        with torch.no_grad():
            for name, parameter in self.model.trainable.items():
                values = weights.get(name)
                if values is None or values.shape != tuple(parameter.shape):
                    raise ValueError(
                        f"the checkpoint of run {self.run.name} is of another model: {name} differs"
                    )
                parameter.copy_(torch.from_numpy(values))
        self.aim.put(_part(arrays, "aim/"))

    def _write(self, folder: Path, arrays: Any, facts: dict[str, Any], keep: int) -> bool:
        try:
            path = checkpoints.save(folder, self.progress.step, arrays, facts, keep)
        except DiskFullError as error:
            self.tell(Warned(f"step {self.progress.step} is not saved: {error}"))
            return False
        self.tell(Saved(self.progress.step, path))
        return True


def _part(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
