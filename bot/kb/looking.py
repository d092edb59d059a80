"""What reads a base: list, show, search, verify, eval."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import citations, render
from bot.evidence import evidence_of
from bot.kb import output
from bot.kb.work import Work, working
from bot.knowledge import opened
from data import files

if TYPE_CHECKING:
    from retrieval import KnowledgeBase
    from retrieval.evaluation import Found, SearchFunction
    from retrieval.reports import Info
    from retrieval.search import Search

INDENT = "    "


def list_(args: argparse.Namespace) -> int:
    """All bases; one that cannot be opened is in the list with the reason."""
    rows = base_rows()
    if args.json:
        output.json_out({"bases": rows})
        return 0
    show_rows(rows)
    if not rows:
        render.err("no knowledge base yet: `sparsechat kb create NAME PATH…` makes one")
    return 0


def base_rows() -> list[dict[str, Any]]:
    """One record per base."""
    from retrieval import KnowledgeBase

    rows = []
    for name in KnowledgeBase.names():
        try:
            with opened(name) as base:
                rows.append({**output.info_record(base.show()), "problem": None})
        except (OSError, ValueError) as error:
            rows.append({"name": name, "problem": str(error)})
    return rows


def show_rows(rows: list[dict[str, Any]], in_use: str | None = None) -> None:
    """The list for people; a star stands before the base in use."""
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        mark = "*" if row["name"] == in_use else " "
        if row["problem"]:
            facts = row["problem"]
        else:
            facts = (
                f"{row['n_documents']:>9,} documents {row['n_chunks']:>10,} passages "
                f"{_share(row):>14}  {files.megabytes(row['n_bytes'])}"
            )
        render.out(f"{mark} {row['name']:<{width}}  {facts}")


def show(args: argparse.Namespace) -> int:
    """What a base is made of, and what kind of index it has and why."""
    with opened(args.name) as base:
        info = base.show()
    if args.json:
        output.json_out(output.info_record(info))
    else:
        show_info(info)
    return 0


def show_info(info: Info) -> None:
    """The facts of a base for people."""
    rows = {
        "name": info.name,
        "folder": str(info.folder),
        "created": info.created,
        "documents": f"{info.n_documents:,}",
        "passages": f"{info.n_chunks:,} of {info.n_sentences} sentences ({info.chunker})",
        "encoder": info.encoder_id or info.encoder or "none: words are searched alone",
        "vectors": f"{info.n_embedded:,} of {info.n_chunks:,}",
        "index": _index(info),
        "size": f"{files.megabytes(info.n_bytes)}, index {files.megabytes(info.n_index_bytes)}",
    }
    output.table(rows)
    for path, n in info.sources:
        render.out(f"source     {path} ({n:,} documents)")


def search(args: argparse.Namespace) -> int:
    """Search as an answer would; 0 also when nothing is found."""
    query = " ".join(args.query)
    if not query.strip():
        args.usage_error("the query is missing")
    with opened(args.name) as base:
        if args.mode != "lexical":
            load_encoder_of(base)
        found = base.look_up(query, args.k, args.w, args.w_th, args.mode, args.filter)
    if args.json:
        output.json_out(search_record(args.name, found))
    else:
        show_search(args.name, found)
    return 0


def load_encoder_of(base: KnowledgeBase) -> None:
    """Give `base` its encoder where it has vectors; without it, words are searched alone."""
    from retrieval.encoder import EncoderMissingError, load_encoder

    info = base.show()
    if info.encoder is None or not info.n_embedded:
        return
    try:
        base.use_encoder(load_encoder(info.encoder))
    except EncoderMissingError as error:
        render.note(f"words are searched alone: {error}")


def search_record(name: str, found: Search) -> dict[str, Any]:
    """A search as JSON has it."""
    record = citations.to_record(evidence_of(name, found))
    return {**record, "timings": dict(found.timings)}


def show_search(name: str, found: Search) -> None:
    """Passages with their places, and the text below each."""
    evidence = evidence_of(name, found)
    for source, line in zip(evidence.sources, citations.lines(evidence.sources), strict=True):
        render.out(line)
        render.out("\n".join(INDENT + row for row in source.text.splitlines() if row.strip()))
    if not found.passages:
        best = f"; the best had {found.candidates[0].score:.2f}" if found.candidates else ""
        render.err(f"nothing found in {name} (a score of {found.threshold:.2f} is needed{best})")
    render.note(f"{citations.shown(evidence)} · {_timings(found.timings)}")


def verify(args: argparse.Namespace) -> int:
    """Check every file of a base; 1 when something is wrong and was not repaired."""
    with opened(args.name) as base:
        problems = base.verify(repair=args.repair)
    left = [problem for problem in problems if not problem.repaired]
    if args.json:
        output.json_out({"name": args.name, "problems": [asdict(p) for p in problems]})
    for problem in problems if not args.json else ():
        end = "repaired" if problem.repaired else problem.way_out
        render.out(f"{problem.where}: {problem.what}; {end}")
    if not problems and not args.json:
        render.err(f"{args.name} is whole")
    return 1 if left else 0


def evaluate(args: argparse.Namespace) -> int:
    """Ask the questions of a file and measure what is found."""
    from retrieval import evaluation

    questions = evaluation.read_questions(Path(args.file))
    with opened(args.name) as base:
        if args.mode != "lexical":
            load_encoder_of(base)
        depth = max(*args.ks, evaluation.CUTOFF)
        search = evaluation.ranking(base, args.mode, depth, w=args.w, w_th=args.w_th)
        with working(args.name) as work:
            asked = _told(search, work, len(questions))
            result = evaluation.evaluate(asked, questions, args.ks)
    if args.json:
        output.json_out({"name": args.name, "mode": args.mode, **result.as_record()})
    else:
        output.table(dict(result.table()))
    return 0


def _told(search: SearchFunction, work: Work, n_questions: int) -> SearchFunction:
    """`search` that tells how far it is and ends on Ctrl-C."""
    numbers, report = count(1), work.stage("asking")

    def found(question: str) -> Sequence[Found]:
        if work.is_cancelled:
            raise KeyboardInterrupt
        report(next(numbers), n_questions, "")
        return search(question)

    return found


def _index(info: Info) -> str:
    if info.kind is None:
        return "none yet" if info.encoder else "none"
    why = f" ({info.why})" if info.why else ""
    return f"{info.kind}{why}, {info.n_indexed:,} vectors, generation {info.generation}"


def _share(row: dict[str, Any]) -> str:
    if not row["encoder"]:
        return "words alone"
    if row["n_embedded"] >= row["n_chunks"]:
        return "with vectors"
    return f"{100 * row['n_embedded'] // row['n_chunks']} % vectors"


def _timings(timings: dict[str, float]) -> str:
    return ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in timings.items())
