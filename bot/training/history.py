"""What run folders tell: how far each run is, and its curves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from engine.training.run import Run

STATES = ("running", "finished", "stopped")


@dataclass(frozen=True, slots=True)
class History:
    """One run. problem: why its folder cannot be read, "" when it can; the rest is then empty.

    steps, evaluations  lines of metrics.jsonl
    """

    name: str
    state: str = "damaged"
    problem: str = ""
    settings: dict[str, Any] | None = None
    began: str = ""
    steps: tuple[dict[str, Any], ...] = ()
    evaluations: tuple[dict[str, Any], ...] = ()
    result: dict[str, Any] | None = None
    resume_command: str = ""

    @property
    def step(self) -> int:
        """The last one."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def n_steps(self) -> int | None:
        """Of the whole run, as it was last known."""
        return int(self.steps[-1]["n_steps"]) if self.steps else None

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation with the least loss."""
        found = [line for line in self.evaluations if line.get("loss") is not None]
        return min(found, key=lambda line: float(line["loss"]), default=None)

    def record(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.name,
            "state": self.state,
            "problem": self.problem or None,
            "began": self.began or None,
            "model": (self.settings or {}).get("model"),
            "method": (self.settings or {}).get("method"),
            "data": (self.settings or {}).get("data"),
            "step": self.step,
            "n_steps": self.n_steps,
            "first_loss": self.evaluations[0]["loss"] if self.evaluations else None,
            "best_loss": self.best["loss"] if self.best else None,
            "best_step": self.best["step"] if self.best else None,
            "resume_command": self.resume_command or None,
        }


def history_of(run: Run) -> History:
    """What its folder tells; a damaged one has a `problem`."""
    try:
        known = run.read()
        lines = run.history()
    except (OSError, ValueError) as error:
        return History(run.name, problem=str(error))
    state = "running" if run.is_held else "finished" if run.is_finished else "stopped"
    return History(
        name=run.name,
        state=state,
        settings=known["settings"],
        began=str(known.get("began", "")),
        steps=tuple(line for line in lines if line.get("event") == "step"),
        evaluations=tuple(line for line in lines if line.get("event") == "evaluated"),
        result=run.result(),
        resume_command=run.resume_command if state == "stopped" else "",
    )


def samples_of(run: Run) -> list[dict[str, Any]]:
    """The answers of the last evaluation that has any; torn lines are passed over."""
    try:
        text = run.samples.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and {"step", "prompt", "base", "now"} <= value.keys():
            lines.append(value)
    last = max((line["step"] for line in lines), default=None)
    return [line for line in lines if line["step"] == last]
