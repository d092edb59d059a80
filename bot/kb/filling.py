"""What puts documents into a base: create, add, sync."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import render
from bot.kb import output
from bot.kb.progress import Progress
from bot.kb.vectors import (
    check_backend,
    choose_backend,
    encoder_problem,
    lacks_vectors,
    make_vectors,
)
from bot.kb.work import Work, stopped, working
from bot.knowledge import DEFAULT_BASE, OFF, base_names, open_base

if TYPE_CHECKING:
    from data.documents import Document
    from retrieval import KnowledgeBase
    from retrieval.reports import Report

SKIPPED_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Input:
    """What is to be added: files and folders, or articles."""

    paths: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    documents: Callable[[KnowledgeBase, Progress], Iterable[Document]] | None = None
    fetch: Callable[[Progress], object] | None = None  # what is needed from the network, before

    @property
    def is_empty(self) -> bool:
        return not self.paths and self.documents is None


def create(args: argparse.Namespace) -> int:
    """Make a base and fill it; `wikipedia` without anything to add is the embedded default."""
    from retrieval import KnowledgeBase

    given = _input(args)
    if args.name == DEFAULT_BASE and given.is_empty:
        given = wikipedia_leads()
        if args.name in base_names():
            return _filled(open_base(args.name), given, args, "create")
    _refuse_existing(args.name)
    check_backend(args)
    missing = [path for path in given.paths if not Path(path).exists()]
    if missing:  # before an empty base is made
        raise FileNotFoundError(f"{missing[0]} does not exist; nothing was made")
    encoder = None if args.lexical else args.encoder
    base = KnowledgeBase.create(args.name, n_sentences=args.sentences, encoder=encoder)
    choose_backend(base, args)
    return _filled(base, given, args, "create")


def add(args: argparse.Namespace) -> int:
    """Add to a base, or take over what has changed."""
    given = _input(args)
    if given.is_empty:
        args.usage_error("what is to be added is missing: files, folders, --dump or --rows")
    return _filled(open_base(args.name), given, args, "add")


def sync(args: argparse.Namespace) -> int:
    """Look at all that was added again: what is new, changed or gone."""
    return _filled(open_base(args.name), None, args, "sync")


def wikipedia_leads() -> Input:
    """The embedded default's articles, fetched when they are not there."""
    from data import wikipedia_leads

    return Input(
        documents=lambda base, progress: wikipedia_leads.leads(),
        fetch=lambda progress: wikipedia_leads.fetch(progress.fetching),
    )


def fill(base: KnowledgeBase, given: Input | None, work: Work) -> Report:
    """Add `given`; None = what was added before, again."""
    report, cancel = work.stage("reading"), work.cancel
    if given is None:
        return base.sync(on_progress=report, cancel=cancel)
    if given.documents is not None:
        documents = given.documents(base, work.progress)
        return base.add_documents(documents, on_progress=report, cancel=cancel)
    return base.add(
        given.paths,
        globs=given.globs,
        exclude=given.exclude,
        on_progress=report,
        cancel=cancel,
    )


def say_report(work: Work, report: Report) -> None:
    """One line, and the first files that could not be read."""
    counts = [
        f"{count:,} {word}"
        for count, word in (
            (report.added, "added"),
            (report.updated, "updated"),
            (report.removed, "removed"),
            (report.unchanged, "unchanged"),
        )
        if count
    ]
    documents = ", ".join(counts) or "nothing to add"
    passages = render.counted(report.n_chunks, "passage")
    work.progress.note(f"documents: {documents}; {passages} can be found")
    for path, reason in report.skipped[:SKIPPED_SHOWN]:
        work.progress.note(f"skipped: {path}: {reason}")
    if len(report.skipped) > SKIPPED_SHOWN:
        work.progress.note(f"skipped: {len(report.skipped) - SKIPPED_SHOWN:,} more (--json: all)")


def _filled(base: KnowledgeBase, given: Input | None, args: argparse.Namespace, action: str) -> int:
    """Documents first: they can be searched by their words at once. Vectors follow."""
    result: dict[str, Any] = {"name": args.name}
    if given is None or not given.is_empty:
        if given is not None and given.fetch is not None:
            _fetch(given.fetch, args.name)
        with working(args.name) as work:
            report = fill(base, given, work)
            say_report(work, report)
            if work.is_cancelled:
                return stopped(work, "what was added is kept", _again(args, action))
        result |= output.report_record(report)
    n_new, problem = 0, None
    if not args.no_vectors and lacks_vectors(base):
        problem = encoder_problem(base)
        if problem is None:
            with working(args.name) as work:
                n_new = make_vectors(base, base.show().encoder or "", work)
                if work.is_cancelled:
                    return stopped(work, f"{n_new:,} new vectors are kept", f"embed {args.name}")
    result |= {"embedded": n_new, "problem": problem}
    if args.json:
        output.json_out(result)
    elif problem:
        render.err(f"{args.name}: words are searched, meanings are not: {problem}")
    else:
        later = " (words alone: `kb embed` makes vectors)" if lacks_vectors(base) else ""
        render.err(f"{args.name} is ready{later}: sparsechat --kb {args.name}")
    return 0


def _fetch(fetch: Callable[[Progress], object], name: str) -> None:
    progress = Progress(name)
    try:
        fetch(progress)
    except KeyboardInterrupt:
        progress.note(f"interrupted; `sparsechat kb create {name}` goes on from there")
        raise
    finally:
        progress.close()


def _again(args: argparse.Namespace, action: str) -> str:
    """What goes on: a base that was made is added to, the default finds what was begun."""
    if action == "sync":
        return shlex.join([action, args.name])
    more = [*args.paths]
    for flag, value in (("--dump", args.dump), ("--rows", args.rows)):
        more += [flag, value] if value else []
    return shlex.join(["add" if more else action, args.name, *more])


def _refuse_existing(name: str) -> None:
    if name == OFF:
        raise ValueError(f"{name!r} cannot name a knowledge base: --kb {name} means none")
    if name in base_names():
        raise FileExistsError(
            f"there is a knowledge base {name!r} already; `sparsechat kb add {name} PATH` adds to "
            f"it, `sparsechat kb rm {name}` deletes it"
        )


def _input(args: argparse.Namespace) -> Input:
    if (args.dump or args.rows) and args.paths:
        args.usage_error("--dump and --rows stand alone, without files and folders")
    if args.dump or args.rows:
        return Input(documents=_pages(args.dump, args.rows))
    return Input(tuple(args.paths), tuple(args.glob), tuple(args.exclude))


def _pages(
    dump: str | None, rows: str | None
) -> Callable[[KnowledgeBase, Progress], Iterable[Document]]:
    def documents(base: KnowledgeBase, progress: Progress) -> Iterable[Document]:
        from data import wikipedia

        if dump is not None:
            return wikipedia.dump(
                Path(dump),
                is_known=lambda url, revision: base.revision_of(url) == revision,
                on_progress=progress.passing,
            )
        assert rows is not None
        return wikipedia.rows(Path(rows))

    return documents


def words_of(paths: Sequence[str]) -> Input:
    """Files and folders as the shell's /kb add takes them."""
    return Input(tuple(str(Path(path).expanduser()) for path in paths))
