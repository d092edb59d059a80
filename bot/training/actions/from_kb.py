"""Write training rows out of a knowledge base: a question, its passages, the answer.

The model reads each passage, writes a question that it answers, and answers it from what a search
for that question finds, as in the shell. Rows whose search does not find the passage, or whose
answer is in no passage, are left out. The file is written row by row: after Ctrl-C the same command
goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bot import render
from bot.options import setting_type

if TYPE_CHECKING:
    from bot.interrupts import Interrupts
    from bot.settings import Settings
    from bot.training.kb_rows import Writing
    from bot.training.row_file import RowFile
    from bot.worker import Worker
    from engine import Model
    from retrieval import KnowledgeBase

CLOSE_S = 0.5
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The base, the file, and how many rows."""
    parser.add_argument("name", metavar="NAME", help="the knowledge base's name, or its folder")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file (NAME.jsonl, here)")
    parser.add_argument("--rows", metavar="N", type=_rows, help="end when there are N (all)")
    parser.add_argument(
        "--model", metavar="NAME", help="the model that writes; not given = as for chat"
    )
    parser.add_argument(
        "--k", metavar="N", type=setting_type("k"), default=3, help="passages in a row, at most (3)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=setting_type("seed"), default=0, help="same seed, same rows (0)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """0; 130 after Ctrl-C, when what was written is kept."""
    from bot.knowledge import opened
    from bot.training.row_file import RowFile

    out = args.out or Path(f"{Path(args.name).name}.jsonl")
    with opened(args.name) as base:
        rows = RowFile(out, base.name)
        try:
            return _written(args, base, rows)
        finally:
            rows.close()


def _written(args: argparse.Namespace, base: KnowledgeBase, rows: RowFile) -> int:
    from bot.interrupts import Interrupts
    from bot.kb.looking import load_encoder_of
    from bot.loading import Interrupted
    from bot.training.kb_rows import Writing
    from bot.training.questions import RowMaker
    from bot.worker import Worker

    settings, worker = _settings(args), Worker()
    writing = Writing(base, rows, args.seed, args.rows)
    if settings.search_mode != "lexical":
        load_encoder_of(base)
    with Interrupts() as interrupts:
        try:
            model = _model(settings, worker, interrupts)
            is_complete = writing.run(RowMaker(model, base, settings), worker, interrupts)
        except Interrupted:
            return INTERRUPTED
        finally:
            worker.close(CLOSE_S)
    _report(args, writing, is_complete)
    return 0 if is_complete else INTERRUPTED


def _settings(args: argparse.Namespace) -> Settings:
    from bot.config import read_config

    given = {"model": args.model} if args.model else {}
    flags = {**given, "k": args.k, "seed": args.seed, "sparsity": "off"}
    return read_config(flags).settings()


def _model(settings: Settings, worker: Worker, interrupts: Interrupts) -> Model:
    from bot.loading import ModelLoader, find_model

    status, loader = render.Status(), ModelLoader(worker)
    loader.start(find_model(settings.model), settings)
    try:
        return loader.wait(interrupts, status.show).model
    finally:
        status.clear()


def _report(args: argparse.Namespace, writing: Writing, is_complete: bool) -> None:
    from bot.kb.output import json_out

    rows, counts = writing.rows, writing.counts
    if args.json:
        json_out(
            {
                "file": str(rows.path),
                "rows": len(rows.chunk_ids),
                "complete": is_complete,
                "passages": dict(counts),
            }
        )
        return
    left_out = ", ".join(f"{n:,} {why}" for why, n in counts.most_common() if why != "written")
    new = f"{counts['written']:,} new, {len(rows.chunk_ids):,} in all"
    render.err(f"{rows.path}: {new}" + (f"; left out: {left_out}" if left_out else ""))
    if not is_complete:
        render.err("interrupted: all of them are kept; the same command goes on from there")
    elif rows.chunk_ids:
        render.err(f"look at them with `sparsechat train check {rows.path}`")


def _rows(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a number of rows is a whole number from 1, got {text!r}")
    return int(text)
