"""How much faster is each level of sparsity than the dense engine, and what does it cost?

    python -m benchmarks.sparsity [--parts PART …] [--keep FOLDER [--seconds S]] [--quick] [--save]

The levels of engine/sparsity/levels.py and the methods that they are made of, each alone, in calls
that need the likeliest token only (greedy) and the 40 likeliest (drawing with top_k 40):

calibration  seconds, and what it adds to the memory of the model
speed        decoding beside the dense engine, in turns, on 1 and on all cores
whole        whole answers with drafts by prompt lookup, which a user has besides (sparse_whole.py)
quality      teacher-forced, on three kinds of text that calibration has not seen
             (sparse_texts.py), against the dense distributions (divergence.py)
answers      200 whole answers against the dense ones, greedy and drawn with the same seed
drafts       what drafts by a sparse engine and proofs by the dense one would give

Regime: decoding is bound by memory, so that bytes not read are time; "bytes of weights a token"
says how many are. Of random weights (--model shape-1.1b) only speed is measured, and drafts with
the acceptance that the saved result of the default model has. All of it takes about a quarter of an
hour; with --keep, what was measured is kept in a folder and a later run goes on from there, and
with --seconds a run ends by itself. benchmarks/sparsity_picture.py draws the result.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import engine
from benchmarks import (
    gguf_files,
    options,
    report,
    sparse_answers,
    sparse_drafts,
    sparse_quality,
    sparse_settings,
    sparse_speed,
    sparse_texts,
    sparse_whole,
    sparsity_picture,
)
from benchmarks.kept import Kept, OutOfTime
from benchmarks.process import Worker, run
from benchmarks.sparse_texts import Text

PARTS = ("calibration", "speed", "whole", "quality", "answers", "drafts")
N_ANSWERS = 200
_UNFINISHED = 4  # exit code


class Measurement:
    """One run: the model is loaded once for each number of threads."""

    def __init__(self, chosen: options.Options, names: Sequence[str], kept: Kept) -> None:
        self._chosen, self._names, self._kept = chosen, names, kept
        self._has_text = chosen.label not in gguf_files.SHAPES

    def rows(self, parts: Sequence[str]) -> list[report.Row]:
        """Of the parts that this model has; OutOfTime when the run's seconds are over."""
        found = self._calibration() if "calibration" in parts else []
        for threads in self._chosen.threads:
            with_text = self._has_text and threads == self._chosen.threads[-1]
            asked = [
                part for part in parts
                if part in ("speed", "drafts") or (part != "calibration" and with_text)
            ]  # fmt: skip
            if not asked:
                continue
            self._model = engine.load(self._chosen.model, threads=threads)
            self._settings = list(sparse_settings.settings(self._model, self._names))
            self._texts = self._make_texts()
            for part in asked:
                options.note(f"{part}, {threads} threads")
                found += getattr(self, f"_{part}")()
            self._model.close()
        return found

    def _make_texts(self) -> list[Text]:
        if not self._has_text:
            ids = [random.Random(0).randrange(1000) for _ in range(sparse_texts.N_TEXT)]
            return [Text("chat", ids, sparse_texts.N_CONTEXT)]
        n_each = 2 if self._chosen.quick else None
        made = self._kept.get("texts", _listed, self._model, n_each)
        return [Text(*text) for text in made]

    @property
    def _longest(self) -> Text:
        """Of the answers: what speed is measured on."""
        chats = [text for text in self._texts if text.kind == "chat"]
        return max(chats, key=lambda text: len(text.token_ids) - text.start)

    def _calibration(self) -> list[report.Row]:
        threads = self._chosen.threads[-1]
        found = self._kept.get("calibration", _calibrated, self._chosen.model, threads)
        seconds = report.Row("calibration", threads, "time", "s", less_is_better=True)
        seconds.add(found["seconds"])
        memory = report.Row("calibration", threads, "peak memory", "models", less_is_better=True)
        if found["peak"]:
            memory.add((found["peak"] - found["before"]) / found["model"] + 1)
        memory.extra = {f"{name}_mb": found[name] and found[name] / 1e6
                        for name in ("before", "peak", "model")}  # fmt: skip
        return [seconds, memory]

    def _speed(self) -> list[report.Row]:
        rounds = self._chosen.rounds
        spare = 0 if self._chosen.quick else 2 * rounds
        return sparse_speed.measure(
            self._model, self._settings, self._longest, rounds, spare, self._kept
        )

    def _whole(self) -> list[report.Row]:
        rounds = self._chosen.rounds
        spare = 0 if self._chosen.quick else 2 * rounds
        return sparse_whole.measure(self._model, self._settings, rounds, spare, self._kept)

    def _quality(self) -> list[report.Row]:
        return sparse_quality.measure(self._model, self._settings, self._texts, self._kept)

    def _answers(self) -> list[report.Row]:
        n = 4 if self._chosen.quick else N_ANSWERS
        asked = sparse_answers.prompts(self._model, n)
        return sparse_answers.measure(self._model, self._settings, asked, self._kept)

    def _drafts(self) -> list[report.Row]:
        model, threads = self._model, self._model.threads
        drafting = [each for each in self._settings if each.name not in sparse_settings.METHODS]
        took = sparse_drafts.times(model, drafting, self._longest, self._chosen.rounds, self._kept)
        if not self._has_text:
            return sparse_drafts.rows_with(threads, took, _saved_rows())
        accepted = sparse_drafts.acceptance(model, drafting, self._texts, self._kept)
        return sparse_drafts.rows_of(threads, took, accepted)


def _listed(model: engine.Model, n_each: int | None) -> list[Text]:
    return list(sparse_texts.texts(model, n_each))


def _calibrated(path: Path, threads: int) -> dict[str, Any]:
    """In a process of its own, for its memory."""
    with Worker(sys.executable, "benchmarks.engine_driver") as worker:
        worker.ask("load", path=str(path), threads=threads)
        return worker.ask("calibrate")


def _saved_rows() -> list[dict[str, Any]]:
    """Of the default model's result; none without."""
    path = report.RESULTS / "sparsity.json"
    if not path.is_file():
        options.note("no acceptance of drafts: there is no saved result of the default model")
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = options.parser_of("sparsity", (__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=", ".join(PARTS))  # fmt: skip
    parser.add_argument(
        "--settings",
        nargs="*",
        default=sparse_settings.NAMES,
        metavar="NAME",
        help=f"{', '.join(sparse_settings.NAMES)}, or another level",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="what was measured, to go on")
    parser.add_argument("--seconds", type=float, metavar="S", help="begin nothing new after these")
    return parser


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen, args = options.parse_alone(_parser(), "sparsity", rounds=7)
    file = f"{chosen.name}-quick.json" if chosen.quick else f"{chosen.name}.json"
    kept = Kept(args.keep and args.keep / file, args.seconds)
    try:
        rows = Measurement(chosen, args.settings, kept).rows(args.parts)
    except OutOfTime as end:
        print(f"not finished, next: {end}; the same command goes on", file=sys.stderr)
        sys.exit(_UNFINISHED)
    print(sparsity_picture.in_text([row.as_json() for row in rows]))
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
