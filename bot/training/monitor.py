"""What a run shows on stderr: one line that is written over, and a table of its evaluations."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from bot import render, terminal
from data.files import megabytes
from engine.training.events import Evaluated, Event, Finished, Sample, Started, Step, Warned
from engine.training.trackers.print import line_of

HEADER = "  step     loss  held-out  perplexity  accuracy   tok/s"
_CONTROL = re.compile(r"<[|｜][^<>]{1,40}[|｜]>|</?s>|\[/?INST\]")
_SHOWN_PROMPT = 100  # characters


class Monitor:
    """Hears the events of one run.

    prints_steps  whether steps are lines of their own where no line can be written over
    """

    def __init__(self, name: str, model: str, prints_steps: bool = True) -> None:
        self._name, self._prints_steps = name, prints_steps
        self._status = render.Status()
        self._moves = terminal.is_terminal(sys.stderr) and not terminal.is_dumb()
        self._losses: list[float] = []
        self._speed = 0.0
        self._has_header = False
        self._show(f"{name}: reading the rows, loading {model}, measuring this machine …")

    def log(self, event: Event) -> None:
        """Show it."""
        match event:
            case Started():
                self._lines(*started_lines(self._name, event))
            case Step():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Warned():
                self.note(event.text)
            case Finished():
                self._status.clear()

    def note(self, text: str) -> None:
        """A line of its own, above the moving one."""
        self._lines(f"{self._name}: {text}")

    def close(self) -> None:
        """Take the moving line away."""
        self._status.clear()

    def _step(self, event: Step) -> None:
        self._losses.append(event.loss)
        self._speed = event.tokens_per_s
        if event.skipped:
            self._lines(f"{self._name}: step {event.step} left the weights alone: {event.skipped}")
        if self._moves:
            self._show(step_line(self._name, event))
        elif self._prints_steps and not event.skipped:
            left = f" · {duration(event.eta_s)} left" if event.step < event.n_steps else ""
            self._lines(f"{line_of(event)}{left}")

    def _evaluated(self, event: Evaluated) -> None:
        lines = [] if self._has_header else [HEADER]
        self._has_header = True
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        lines.append(evaluation_line(event, loss, self._speed if loss is not None else None))
        self._losses.clear()
        width = shutil.get_terminal_size().columns - 1
        for sample in event.samples:
            lines += [line[:width] for line in sample_lines(sample, is_base=event.step == 0)]
        self._lines(*lines)

    def _lines(self, *lines: str) -> None:
        self._status.clear()
        render.err("\n".join(lines))

    def _show(self, line: str) -> None:
        # a line that wraps cannot be written over
        self._status.show(line[: shutil.get_terminal_size().columns - 1])


def started_lines(name: str, event: Started) -> list[str]:
    """What is trained, on what, how fast."""
    like = "" if event.cosine is None else f" (gradient like float32's: cosine {event.cosine:.3f})"
    rows = f"{event.n_rows:,} rows to train on, {event.n_val_rows:,} held out"
    share = f"{event.n_trainable:,} of {event.n_weights:,} weights are trained"
    lines = [
        f"{name}: {rows}; {share}, base {event.base}{like}",
        f"{name}: about {event.n_steps:,} steps, {event.tokens_per_s:,.0f} tok/s, "
        f"{duration(event.eta_s)}, {megabytes(event.memory_bytes)} of memory; {event.run}",
    ]
    if event.first_step:
        lines.append(f"{name}: goes on after step {event.first_step}")
    return lines


def step_line(name: str, event: Step) -> str:
    """`oig-lora: step 12/300 · loss 1.873 · …`"""
    return (
        f"{name}: step {event.step}/{event.n_steps} · loss {event.loss:.3f} · "
        f"{event.tokens_per_s:,.0f} tok/s · {duration(event.eta_s)} left · "
        f"{megabytes(event.memory_bytes)}"
    )


def evaluation_line(event: Evaluated, loss: float | None, tokens_per_s: float | None) -> str:
    """A row under HEADER. loss: of the rows trained on since the last one."""
    trained = "-" if loss is None else f"{loss:.4f}"
    speed = "-" if tokens_per_s is None else f"{tokens_per_s:,.0f}"
    best = "  best" if event.is_best and event.step else ""
    return (
        f"{event.step:>6,}  {trained:>7}  {event.loss:>8.4f}  {event.perplexity:>10.2f}  "
        f"{100 * event.accuracy:>6.1f} %  {speed:>6}{best}"
    )


def sample_lines(sample: Sample, is_base: bool) -> list[str]:
    """The prompt's end, what the base answers and what the model answers now."""
    lines = [
        f"        > {shown_prompt(sample.prompt)}",
        f"          base  {_one_line(sample.base)}",
    ]
    return lines if is_base else [*lines, f"          now   {_one_line(sample.now)}"]


def shown_prompt(prompt: str) -> str:
    """The last turn of a prompt, without the template's marks, its end where it is long."""
    *_, last = [part for part in _CONTROL.split(prompt) if len(part.split()) > 1] or [prompt]
    text = _one_line(re.sub(r"^(?:user|human)\n", "", last.strip()))
    return text if len(text) <= _SHOWN_PROMPT else f"…{text[1 - _SHOWN_PROMPT :]}"


def duration(seconds: float) -> str:
    """ "0:42", "12:05", "3:20:00"."""
    whole = max(0, round(seconds)) if seconds < 1e9 else 0
    hours, rest = divmod(whole, 3600)
    minutes, seconds_left = divmod(rest, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds_left:02d}"
    return f"{minutes}:{seconds_left:02d}"


def result_line(path: Path | None) -> str:
    """How what was trained is used."""
    if path is None:
        return ""
    if (path / "adapter_config.json").exists():
        return f"use it: sparsechat --adapter {path.name}, or /adapter {path.name} in the shell"
    return f"use it: sparsechat --model {path.name}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
