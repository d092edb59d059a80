"""Fetch public training data and write it as rows: chatterbot, oig, oig-chip2, oig-moderation.

What is fetched is verified, and an interrupted download goes on where it stopped. --origin takes a
file, a folder or an address instead of the usual source.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bot import render

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which data, into which file."""
    from data.preparing import RECIPES

    names = ", ".join(name.replace("_", "-") for name in RECIPES)
    parser.add_argument("name", metavar="NAME", help=f"one of {names}")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file (NAME.jsonl, here)")
    parser.add_argument("--origin", metavar="PLACE", help="a file, folder or http(s) address")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="G",
        help="only files like this; of chatterbot: this language (english)",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """0; 130 after Ctrl-C."""
    from bot.kb.output import json_out
    from bot.kb.progress import Progress
    from data.preparing import prepare, recipe

    licence = recipe(args.name).LICENCE
    out = args.out or Path(f"{args.name}.jsonl")
    progress = Progress(args.name)
    try:
        made = prepare(
            args.name,
            out,
            args.origin,
            only=args.only,
            overwrite=args.force,
            on_progress=lambda stage, done, total: progress.report(done, total, stage),
            on_note=progress.note,
        )
    except KeyboardInterrupt:
        progress.note("interrupted; the same command goes on from there")
        return INTERRUPTED
    finally:
        progress.close()
    if args.json:
        left_out = [bad._asdict() for bad in made.left_out]
        json_out({**made._asdict(), "left_out": left_out, "licence": licence})
        return 0
    rows = render.counted(made.n_rows, "row")
    render.err(f"{made.path}: {rows} of {made.source} ({licence})")
    if made.n_left_out:
        first = made.left_out[0]
        missing = render.counted(made.n_left_out, "row")
        render.err(f"{missing} left out, such as {first.origin}: {first.reason}")
    render.err(f"look at them with `sparsechat train check {made.path}`")
    return 0
