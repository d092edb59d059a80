"""A run's folder: what was asked for, what happened, and checkpoints; one process at a time.

runs/<name>/settings.json     settings, versions, fingerprints of data and model
           /metrics.jsonl     every event, one JSON object a line
           /samples.jsonl     the fixed prompts with answers, base beside now
           /log               the same for people
           /checkpoints/      step folders, to go on from; the newest is the last
           /best/             the weights with the least loss on held-out rows
           /result.json       how it ended; absent while it is under way and after a kill
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from data.files import delete, private_folder, sync, sync_folder, write_json
from data.locks import hold, is_held
from data.paths import data_dir
from engine.training.events import Evaluated, Event, Finished, Saved, Started, Step, Warned
from engine.training.settings import TrainSettings, settings_from

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunInUseError(ValueError):
    """Another process trains this run; the message says which."""


def runs_dir() -> Path:
    """Where all runs are."""
    return data_dir() / "runs"


def require_name(name: str) -> None:
    """ValueError for what is no name of a folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r}: a run is named with letters, digits, '.', '_' and '-', at most 100"
        )


class Run:
    """The folder of one run. Write to it only within `owned`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints, self.best = folder / "checkpoints", folder / "best"
        self.metrics, self.samples = folder / "metrics.jsonl", folder / "samples.jsonl"
        self.log = folder / "log"

    @property
    def name(self) -> str:
        """Also of what it results in."""
        return self.folder.name

    @property
    def settings_file(self) -> Path:
        """Written first; a folder without it holds nothing to go on with."""
        return self.folder / "settings.json"

    @property
    def result_file(self) -> Path:
        """Written when training ends by itself or is stopped."""
        return self.folder / "result.json"

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end and left its result."""
        return bool((self.result() or {}).get("finished"))

    @property
    def is_held(self) -> bool:
        """Whether a process trains it now."""
        return is_held(self.folder / "lock")

    def result(self) -> dict[str, Any] | None:
        """How it ended (the fields of events.Result); None when it did not, or was killed."""
        try:
            value = json.loads(self.result_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def resume_command(self) -> str:
        """What a person types to go on."""
        return f"sparsechat train --resume {self.name}"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """RunInUseError while another process is within."""
        private_folder(self.folder)

        def refuse(text: str) -> None:
            raise RunInUseError(f"run {self.name} is being trained: {text}; stop that one first")

        try:
            with hold(self.folder / "lock", refuse):
                yield
        finally:
            if not self.settings_file.exists():
                with suppress(OSError):
                    self.folder.rmdir()  # nothing began

    def require_new(self) -> None:
        """ValueError when the folder holds a run already."""
        if self.settings_file.exists():
            raise ValueError(
                f"a run {self.name} is there already ({self.folder}); `{self.resume_command}` goes "
                "on with it, or give this one another name"
            )

    def begin(
        self, settings: TrainSettings, data: str, model: str, aim: dict[str, Any] | None = None
    ) -> None:
        """Write down what is asked for, and the fingerprints of data and model; aim: its facts."""
        delete(self.metrics, self.samples, self.log)
        value = {
            "settings": settings.as_dict(),
            "data_fingerprint": data,
            "model_fingerprint": model,
            "versions": versions(),
            "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        if aim is not None:
            value["aim"] = aim
        write_json(self.settings_file, value)

    def require_same(self, data: str, model: str) -> None:
        """ValueError when data or model are no longer those that the run began with."""
        known = self.read()
        for what, now in (("data", data), ("model", model)):
            if known.get(f"{what}_fingerprint") != now:
                raise ValueError(
                    f"the {what} of run {self.name} changed since it began, so it cannot go on as "
                    "if it had never stopped; train under a new name"
                )

    def read(self) -> dict[str, Any]:
        """settings.json; FileNotFoundError and ValueError in one line."""
        try:
            value = json.loads(self.settings_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no run {self.name} ({self.settings_file})") from None
        except ValueError as error:
            raise ValueError(f"{self.settings_file} is damaged: {error}") from None
        if not isinstance(value, dict) or not isinstance(value.get("settings"), dict):
            raise ValueError(f"{self.settings_file} is damaged: it has no settings")
        return value

    def settings(self) -> TrainSettings:
        """What was asked for."""
        return settings_from(self.read()["settings"], str(self.settings_file))

    def go_back(self, step: int) -> None:
        """Forget what was written down after `step`: it will happen again."""
        for path in (self.metrics, self.samples):
            if path.exists():
                kept = [line for line in _whole_lines(path) if line.get("step", 0) <= step]
                _write_lines(path, kept)

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that are whole."""
        return list(_whole_lines(self.metrics)) if self.metrics.exists() else []

    def write(self, event: Event) -> None:
        """Append the event to metrics.jsonl, samples.jsonl and log."""
        now = round(time.time(), 3)
        if isinstance(event, Started):
            delete(self.result_file)
        elif isinstance(event, Finished):
            write_json(self.result_file, _plain(event.result._asdict()))
        if isinstance(event, Step | Evaluated | Started):
            values = {k: v for k, v in event._asdict().items() if k != "samples"}
            kind = type(event).__name__.lower()
            _append(self.metrics, json.dumps({"event": kind, "time": now, **_plain(values)}))
        if isinstance(event, Evaluated):
            for sample in event.samples:
                line = {"step": event.step, "time": now, **sample._asdict()}
                _append(self.samples, json.dumps(line, ensure_ascii=False))
        _append(self.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {describe(event)}")


def describe(event: Event) -> str:
    """The event in one line for people."""
    match event:
        case Step():
            said = f"step {event.step}/{event.n_steps}  loss {event.loss:.4f}"
            said += f"  rate {event.learning_rate:.2e}  norm {event.grad_norm:.3f}"
            said += f"  {event.tokens_per_s:.0f} tokens/s"
            return f"{said}  skipped: {event.skipped}" if event.skipped else said
        case Evaluated():
            best = ", the best so far" if event.is_best else ""
            return (
                f"step {event.step}  held-out loss {event.loss:.4f}  perplexity "
                f"{event.perplexity:.3f}  accuracy {event.accuracy:.1%}{best}"
            )
        case Saved():
            return f"saved {event.path}"
        case Warned():
            return f"warning: {event.text}"
        case Finished():
            return f"ended: {event.result.reason}"
        case Started():
            said = f"started at step {event.first_step} of {event.n_steps}, base {event.base}, "
            return said + f"{event.n_trainable:,} of {event.n_weights:,} weights trained"


def versions() -> dict[str, str]:
    """Of what a run's numbers depend on."""
    found = {}
    for name in ("sparsechat", "torch", "numba", "numpy", "tokenizers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(not installed)"
    return found


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no paths, and no numbers that are not finite."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        is_number = isinstance(value, float)
        found[key] = str(value) if isinstance(value, Path) else value
        if is_number and not math.isfinite(value):
            found[key] = None
    return found


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue  # torn by a crash
            if isinstance(value, dict):
                yield value


def _write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        file.flush()
        sync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
