"""Vectors of a base: the encoder fetched, texts embedded, the index over them published."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from bot import render
from bot.kb import output
from bot.kb.work import Work, stopped, working
from bot.knowledge import opened
from bot.pieces import InPieces, Stopped

if TYPE_CHECKING:
    from retrieval import KnowledgeBase
    from retrieval.encoder import Encoder


def embed(args: argparse.Namespace) -> int:
    """Make the vectors that are missing, and the index over them."""
    with opened(args.name) as base:
        name = args.encoder or base.show().encoder or "minilm"
        fetch_encoder(name)
        with working(args.name) as work:
            n_new = make_vectors(base, name, work)
            if work.is_cancelled:
                return stopped(work, f"{n_new:,} new vectors are kept", f"embed {args.name}")
        info = base.show()
    if args.json:
        output.json_out({"name": args.name, "embedded": n_new, "generation": info.generation})
    else:
        render.err(f"{args.name}: {n_new:,} new vectors, {info.n_embedded:,} in all")
    return 0


def build(args: argparse.Namespace) -> int:
    """Publish an index over all vectors."""
    with opened(args.name) as base:
        with working(args.name) as work:
            number = base.build(on_progress=work.stage("index"), cancel=work.cancel)
            if work.is_cancelled:
                return stopped(work, "the index in use stays", f"build {args.name}")
        info = base.show()
    if args.json:
        output.json_out({"name": args.name, "generation": number, "kind": info.kind})
    else:
        render.err(f"{args.name}: generation {number}, {info.n_indexed:,} vectors, {info.kind}")
    return 0


def make_vectors(base: KnowledgeBase, encoder: str, work: Work) -> int:
    """Embed with the encoder of that name, then publish; how many vectors are new."""
    from retrieval.encoder import load_encoder

    work.stage("loading the encoder")(0, None, "")
    loaded = load_encoder(encoder)
    before = base.show().n_embedded
    pieces = InPieces(loaded, _teller(base, loaded, work))
    try:
        n_new = base.embed(pieces, cancel=work.cancel, name=encoder)
    except Stopped:
        n_new = max(0, base.show().n_embedded - before)
    if not work.is_cancelled:
        base.build(on_progress=work.stage("index"), cancel=work.cancel)
    return n_new


def _teller(base: KnowledgeBase, encoder: Encoder, work: Work) -> Callable[[int], None]:
    """Tells how far the vectors are, piece by piece, and ends them on Ctrl-C."""
    info, report = base.show(), work.stage("vectors")
    is_same = info.encoder_id == encoder.encoder_id
    told = {"batches": info.n_embedded if is_same else 0, "piece": 0}

    def tell(n_done: int) -> None:
        if n_done <= told["piece"]:  # another batch has begun
            told["batches"] += told["piece"]
        told["piece"] = n_done
        report(min(told["batches"] + n_done, info.n_chunks), info.n_chunks, "")
        if work.is_cancelled:
            raise Stopped

    return tell


def fetch_encoder(name: str) -> None:
    """Pull an encoder of the catalogue that is not on this machine; DownloadError, OSError."""
    from bot.verbs.models import pull_with_progress
    from data import catalogue
    from retrieval.encoder import EncoderMissingError, find_encoder

    try:
        find_encoder(name)
    except EncoderMissingError:
        if catalogue.find(name) is None:
            raise
        pull_with_progress(name)


def lacks_vectors(base: KnowledgeBase) -> bool:
    """Whether passages are without a vector, or vectors outside the index."""
    info = base.show()
    is_complete = info.n_embedded >= info.n_chunks and info.n_indexed >= info.n_chunks
    return info.encoder is not None and not is_complete


def encoder_problem(base: KnowledgeBase) -> str | None:
    """Why there can be no vectors now: a base without them is of use all the same."""
    from data.download import DownloadError
    from retrieval.encoder import EncoderMissingError

    try:
        fetch_encoder(base.show().encoder or "")
    except (DownloadError, EncoderMissingError) as error:
        return " ".join(str(error).split())
    return None
