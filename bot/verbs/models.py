"""List, fetch, inspect and remove models; list adapters.

Only `pull` uses the network. With --json, one JSON object goes to stdout and nothing else does;
errors stay on stderr and in the exit code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bot import adapters, render, terminal
from bot.model_card import describe, lines
from bot.removing import Deletable, deletable, size_of
from data import catalogue, files, hub_cache, models
from data.catalogue import RegisteredModel
from data.models import DEFAULT_MODEL
from data.records import InstalledModel

REDRAW_S = 0.1
BAR = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list (default), pull, show, rm."""
    as_json = "one JSON object on stdout"
    parser.add_argument("--json", action="store_true", help=as_json)
    actions = parser.add_subparsers(dest="models_action", metavar="ACTION")
    for name, summary in (
        ("list", "models that are installed, can be pulled, or lie in the hub cache; adapters"),
        ("pull", "fetch a model and verify it; goes on where an earlier pull stopped"),
        ("show", "what a model is, without loading it: parts, context, memory, what runs fast"),
        ("rm", "delete a pulled or imported model"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        # SUPPRESS: what stands before the action must not be undone by a default
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=as_json)
        action.add_argument(
            "-v", "--verbose", action="count", default=argparse.SUPPRESS, help="log to stderr too"
        )
        if name == "pull":
            action.add_argument(
                "--if-missing", action="store_true", help="say nothing when it is already here"
            )
            action.add_argument(
                "--force", action="store_true", help="fetch it even when it is already here"
            )
        if name == "show":
            action.add_argument(
                "--context",
                type=_tokens,
                metavar="N",
                help="show the memory for N tokens (default: the model's own, at most 4096)",
            )
        if name == "rm":
            action.add_argument("-y", "--yes", action="store_true", help="do not ask")
            action.add_argument("name", metavar="NAME", help="a name from the list")
        elif name != "list":
            where = "org/name[/file.gguf][@revision] on the hub"
            where = f"or {where}" if name == "pull" else f"a path, or {where}, if it is cached"
            action.add_argument(
                "name",
                metavar="NAME",
                nargs="?",
                default=DEFAULT_MODEL,
                help=f"a name from the list, {where} (default: {DEFAULT_MODEL})",
            )


def _tokens(text: str) -> int:
    """A number of tokens, 1 or more."""
    if not text.isdecimal() or not 0 < int(text[:12]) <= 10**9:
        raise argparse.ArgumentTypeError(f"takes 1 to {10**9} tokens, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """The exit code; expected errors are left to the entry point, which gives them theirs."""
    actions = {None: _list, "list": _list, "pull": _pull, "show": _show, "rm": _remove}
    return actions[args.models_action](args)


def pull_with_progress(name: str, *, force: bool = False) -> Path:
    """Fetch the model with a progress bar on stderr and return its path (what engine.load takes).

    Returns at once, without the network, when it is installed. Raises what data.models.pull
    raises; a KeyboardInterrupt says how to go on and is raised again.
    """
    return _pulled(name, force).path


def _pulled(name: str, force: bool) -> InstalledModel:
    progress = PullProgress(name)
    try:
        return models.pull(name, progress.report, progress.note, force=force)
    except KeyboardInterrupt:
        kept = f"{files.megabytes(progress.done)} are kept; " if progress.done else ""
        again = f"sparsechat models pull {name}{' --force' if force else ''}"
        progress.note(f"interrupted: {kept}`{again}` goes on from there")
        raise
    finally:
        progress.close()


class PullProgress:
    """A bar on terminals, elsewhere a line per tenth; stderr either way."""

    def __init__(self, name: str) -> None:
        self.done = 0
        self._name = name
        self._status = render.Status()
        self._moves = terminal.is_terminal(sys.stderr) and not terminal.is_dumb()
        self._stage, self._tenth = "", 0
        self._began, self._first, self._drawn = 0.0, 0, -REDRAW_S

    def report(self, stage: str, done: int, total: int | None) -> None:
        """What data.models.pull calls."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._first = stage, now, done
            self._drawn, self._tenth = now - REDRAW_S, (done * 10 // total if total else 0)
            if not self._moves:
                render.err(f"{self._name}: {stage}")
        if stage == "downloading":
            self.done = done
        if self._moves and (now - self._drawn >= REDRAW_S or done == total):
            self._drawn = now
            self._status.show(self._line(done, total, now))
        elif not self._moves and total and done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            if stage == "downloading":  # the other stages are over in a moment
                render.err(f"{self._name}: {stage} {self._tenth * 10} %{_of(done, total)}")

    def note(self, text: str) -> None:
        """A line of its own above the bar."""
        self._status.clear()
        render.err(f"{self._name}: {text}")

    def close(self) -> None:
        """Take the bar away."""
        self._status.clear()

    def _line(self, done: int, total: int | None, now: float) -> str:
        head = f"{self._name}: {self._stage}"
        if not total:
            return f"{head} {files.megabytes(done)}" if done else head
        tail = f"{100 * done // total:3d} %{_of(done, total)}"
        elapsed, new = now - self._began, done - self._first
        if elapsed > 1 and new and self._stage == "downloading":
            left_s = round((total - done) * elapsed / new)
            speed = f"{files.megabytes(round(new / elapsed))}/s"
            tail += f", {speed}, {left_s // 60}:{left_s % 60:02d} left"
        # a line that wraps cannot be written over; the bar gives way first
        columns = shutil.get_terminal_size().columns - 1
        width = min(BAR, columns - len(head) - len(tail) - 4)
        filled = width * done // total
        bar = f" [{'#' * filled}{'.' * (width - filled)}]" if width >= 4 else ""
        return f"{head}{bar} {tail}"[:columns]


def _of(done: int, total: int) -> str:
    return f", {files.megabytes(done)} of {files.megabytes(total)}"


def _pull(args: argparse.Namespace) -> int:
    known = catalogue.find(args.name)
    name = known.name if known else args.name
    before = {model.name for model in models.installed()}
    from data.download import DownloadError

    try:
        model = _pulled(name, args.force)
    except DownloadError as error:
        render.err(f"sparsechat: {error}")  # a line per source, where other errors have one
        return 1
    is_new = args.force or model.name not in before
    if args.json:
        _print_json({**_record(model), "pulled": is_new})
    elif is_new:
        size = files.megabytes(model.size)
        render.err(f"{model.name} is ready: {size}, SHA-256 verified, {model.path}")
    elif not args.if_missing:
        render.err(f"{model.name} is already here: {model.path} (--force fetches it anew)")
    return 0


def _list(args: argparse.Namespace) -> int:
    rows, adapted = _rows(), adapters.rows()
    if args.json:
        _print_json({"default": DEFAULT_MODEL, "models": rows, "adapters": adapted})
        return 0
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        mark = "*" if row["default"] else " "
        size = files.megabytes(row["size"]) if row["size"] else "?"
        facts = f"{row['status']:<10} {size:>9}  {row['licence'] or '?':<11} {row['title'] or ''}"
        render.out(f"{mark} {row['name']:<{width}}  {facts}".rstrip())
    if adapted:
        render.out("adapters, for --adapter NAME:")
    for line in adapters.lines(adapted):
        render.out(line)
    render.err("* = default; `sparsechat models pull NAME` fetches one that is available")
    return 0


def _rows() -> list[dict[str, Any]]:
    """One row per model: installed ones, then what can be pulled, then what the hub cache holds."""
    here = {model.name: model for model in models.installed()}
    known = {model.name: model for model in models.registry()}
    rows = [_row(name, known.get(name), here.get(name)) for name in dict.fromkeys([*here, *known])]
    cached = [name for name in hub_cache.repositories() if name not in here]
    rows += [
        {
            **_row(model.name, None, None),
            "status": model.source,
            "size": size_of(model.path),
            "path": str(model.path),
        }
        for model in models.trained()
    ]
    return rows + [{**_row(name, None, None), "status": "hub cache"} for name in cached]


def _row(name: str, known: RegisteredModel | None, mine: InstalledModel | None) -> dict[str, Any]:
    best = mine or known
    return {
        "name": name,
        "title": known.title if known else None,
        "status": "installed" if mine else "available",
        "default": name == DEFAULT_MODEL,
        "size": mine.size if mine else known.size_bytes if known else None,
        "licence": (mine and mine.licence) or (known and known.licence),
        "sha256": best.sha256 if best else None,
        "path": str(mine.path) if mine else None,
    }


def _show(args: argparse.Namespace) -> int:
    found = models.resolve(args.name)
    record = next((m for m in models.installed() if m.path == found.path), None)
    card = describe(found, record, args.context)
    if args.json:
        _print_json(card)
    else:
        for line in lines(card):
            render.out(line)
    if card["problem"]:
        render.complain(card["problem"])
        return 1
    return 0


def _remove(args: argparse.Namespace) -> int:
    found = deletable(args.name)
    if found is None:
        models.remove(args.name)  # says which names are near when there is no such model
        return 0  # it came in between
    if not args.yes and not terminal.is_terminal(sys.stdin):
        render.complain(f"deleting {found.name} needs --yes when nobody can be asked")
        return 2
    if not args.yes and not _agreed(found):
        render.err(f"{found.name} stays")
        return 1
    kept = found.delete()
    if args.json:
        _print_json({"removed": found.name, "freed": found.size, "kept": [str(p) for p in kept]})
        return 0
    render.err(f"{found.name} is deleted, {files.megabytes(found.size)} are free again")
    for path in kept:
        render.err(f"kept, because {found.maker} did not create it: {path}")
    return 0


def _agreed(found: Deletable) -> bool:
    size = files.megabytes(found.size)
    render.ask_for_line(f"Delete {found.name} ({size}, {found.folder})? [y/N] ")
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


def _record(model: InstalledModel) -> dict[str, Any]:
    return {**asdict(model), "folder": str(model.folder), "path": str(model.path)}


def _print_json(value: Any) -> None:
    render.out(json.dumps(value, ensure_ascii=False, indent=2))
