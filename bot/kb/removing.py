"""What takes something out of a base: rm, compact."""

from __future__ import annotations

import argparse
import sys

from bot import render, terminal
from bot.kb import output
from bot.knowledge import opened
from data import files


def remove(args: argparse.Namespace) -> int:
    """Documents by pattern; the whole base without one, after a question."""
    if args.pattern:
        return _documents(args)
    if args.dry_run:
        args.usage_error("--dry-run goes with patterns; without them the whole base is deleted")
    from retrieval import DamagedError, KnowledgeBase

    try:
        with opened(args.name) as base:
            size = base.show().n_bytes
    except DamagedError:  # it may go all the same
        size = 0
    if not args.yes and not terminal.is_terminal(sys.stdin):
        render.complain(f"deleting {args.name} needs --yes when nobody can be asked")
        return 2
    if not args.yes and not _agreed(f"Delete the knowledge base {args.name}?"):
        render.err(f"{args.name} stays")
        return 1
    KnowledgeBase.remove(args.name)
    if args.json:
        output.json_out({"removed": args.name, "freed": size})
    else:
        freed = f", {files.megabytes(size)} are free again" if size else ""
        render.err(f"{args.name} is deleted{freed}")
    return 0


def compact(args: argparse.Namespace) -> int:
    """Give the room of deleted documents back to the disk."""
    with opened(args.name) as base:
        before = base.show().n_bytes
        base.compact()
        freed = max(0, before - base.show().n_bytes)
    if args.json:
        output.json_out({"name": args.name, "freed": freed})
    else:
        render.err(f"{args.name}: {files.megabytes(freed)} are free again")
    return 0


def _documents(args: argparse.Namespace) -> int:
    with opened(args.name) as base:
        uris = base.delete(args.pattern, dry_run=args.dry_run)
    if args.json:
        output.json_out({"name": args.name, "documents": uris, "dry_run": args.dry_run})
        return 0
    for uri in uris:
        render.out(uri)
    verb = "would be taken out" if args.dry_run else "taken out"
    render.err(
        f"{args.name}: {render.counted(len(uris), 'document')} {verb}; the files themselves stay"
    )
    return 0


def _agreed(question: str) -> bool:
    render.ask_for_line(f"{question} [y/N] ")
    return sys.stdin.readline().strip().casefold() in ("y", "yes")
