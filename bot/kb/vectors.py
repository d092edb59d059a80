"""Vectors of a base: the encoder fetched, texts embedded, the index over them published."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Publish an index over all vectors; with --shard only write a share of them to a file."""
    if args.shard is not None:
        return _encode_shard(args)
    if args.out is not None:
        args.usage_error("--out goes with --shard")
    with opened(args.name) as base:
        choose_backend(base, args)
        return _published(base, args, "build", {})


def merge(args: argparse.Namespace) -> int:
    """Take in what `build --shard` wrote, all of it or nothing, and publish an index."""
    with opened(args.name) as base:
        with working(args.name) as work:
            merged = base.merge(args.files, work.progress.report, work.cancel)
            if work.is_cancelled:
                return stopped(work, "what was taken in is kept", _merge_of(args.name, args.files))
        work.progress.note(
            f"{merged.n_vectors:,} vectors in {render.counted(len(args.files), 'file')}, "
            f"{merged.n_new:,} new"
        )
        if merged.n_unused:
            work.progress.note(f"{merged.n_unused:,} are of texts that are not in the base now")
        if merged.n_pending:
            work.progress.note(
                f"{render.counted(merged.n_pending, 'passage')} still without a vector; "
                f"`sparsechat kb embed {args.name}` makes them"
            )
        return _published(base, args, "merge", asdict(merged))


def check_backend(args: argparse.Namespace) -> None:
    """ValueError, or a usage error, for --backend and --backend-url that no base can have."""
    if args.backend is None:
        if args.backend_url is not None:
            args.usage_error("--backend-url goes with --backend")
        return
    from retrieval import backends

    backends.spec_of(args.backend, args.backend_url)


def choose_backend(base: KnowledgeBase, args: argparse.Namespace) -> None:
    """What they say holds from the next index on."""
    check_backend(args)
    if args.backend is not None:
        base.use_backend(args.backend, args.backend_url)


def _published(
    base: KnowledgeBase, args: argparse.Namespace, action: str, record: dict[str, Any]
) -> int:
    with working(args.name) as work:
        number = base.build(on_progress=work.stage("index"), cancel=work.cancel)
        if work.is_cancelled:
            return stopped(work, "the index in use stays", f"build {args.name}")
    info = base.show()
    if args.json:
        output.json_out({"name": args.name, "generation": number, "kind": info.kind, **record})
    elif not number:
        render.err(f"{args.name}: no vectors yet; `sparsechat kb embed {args.name}` makes them")
    else:
        render.err(f"{args.name}: generation {number}, {info.n_indexed:,} vectors, {info.kind}")
    return 0


def _encode_shard(args: argparse.Namespace) -> int:
    if args.backend is not None or args.backend_url is not None:
        args.usage_error("--backend goes with a whole index, not with --shard")
    number, n_shards = args.shard
    out = Path(args.out or f"{Path(args.name).name}-{number}-of-{n_shards}.shard")
    with opened(args.name) as base:
        name = base.show().encoder or "minilm"
        fetch_encoder(name)
        with working(args.name) as work:
            loaded = _loaded(name, work)
            n_new = base.encode_shard(loaded, args.shard, out, work.stage("vectors"), work.cancel)
            if work.is_cancelled:
                again = ["build", args.name, "--shard", f"{number}/{n_shards}", "--out", str(out)]
                return stopped(work, f"{n_new:,} new vectors are kept", shlex.join(again))
    if args.json:
        output.json_out({"name": args.name, "file": str(out), "embedded": n_new})
    else:
        others = [f"{i}/{n_shards}" for i in range(1, n_shards + 1) if i != number]
        rest = f" (with the files of {', '.join(others)})" if others else ""
        render.err(
            f"{args.name}: {n_new:,} new vectors in {out}; "
            f"`sparsechat kb merge {args.name} {shlex.quote(str(out))} …` takes them in{rest}"
        )
    return 0


def _merge_of(name: str, paths: Sequence[str]) -> str:
    return shlex.join(["merge", name, *paths])


def _loaded(name: str, work: Work) -> Encoder:
    from retrieval.encoder import load_encoder

    work.stage("loading the encoder")(0, None, "")
    return load_encoder(name)


def make_vectors(base: KnowledgeBase, encoder: str, work: Work) -> int:
    """Embed with the encoder of that name, then publish; how many vectors are new."""
    loaded = _loaded(encoder, work)
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
