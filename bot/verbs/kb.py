"""Make, fill, search and check knowledge bases.

With --json, one JSON object goes to stdout and nothing else does; progress and errors go to stderr.
Ctrl-C loses nothing that was committed, and says which command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from bot.options import setting_type

_SUMMARIES = {
    "list": "the knowledge bases on this machine",
    "create": "make a base from files and folders; `create wikipedia` makes the embedded default",
    "add": "add files and folders, or take over what has changed in them",
    "sync": "look at everything that was added again: new, changed, gone",
    "show": "what a base holds, its encoder, its index and why it is of that kind",
    "search": "search as an answer would",
    "rm": "take documents out by pattern, or delete a base",
    "verify": "check every file of a base against its checksums",
    "compact": "give the room of deleted documents back",
    "embed": "make the vectors that are missing; --encoder takes another encoder",
    "build": "publish an index over all vectors; --shard encodes a share of them into a file",
    "merge": "take in the files of `build --shard`, and publish an index",
    "eval": "ask the questions of a JSONL file and measure what is found",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list (default), create, add, sync, show, search, rm, verify, compact, embed, build, …"""
    as_json = "one JSON object on stdout"
    parser.add_argument("--json", action="store_true", help=as_json)
    actions = parser.add_subparsers(dest="kb_action", metavar="ACTION")
    for name, summary in _SUMMARIES.items():
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=as_json)
        action.add_argument(
            "-v", "--verbose", action="count", default=argparse.SUPPRESS, help="log to stderr too"
        )
        if name != "list":
            action.add_argument("name", metavar="NAME", help="the base's name, or its folder")
        if name in _ARGUMENTS:
            _ARGUMENTS[name](action)
        action.set_defaults(usage_error=action.error)


def run(args: argparse.Namespace) -> int:
    """The exit code; expected errors are left to the entry point, which gives them theirs."""
    return _actions()[args.kb_action or "list"](args)


def _actions() -> dict[str, Callable[[argparse.Namespace], int]]:
    from bot.kb import filling, looking, removing, vectors

    return {
        "list": looking.list_,
        "create": filling.create,
        "add": filling.add,
        "sync": filling.sync,
        "show": looking.show,
        "search": looking.search,
        "rm": removing.remove,
        "verify": looking.verify,
        "compact": removing.compact,
        "embed": vectors.embed,
        "build": vectors.build,
        "merge": vectors.merge,
        "eval": looking.evaluate,
    }


def _filling(action: argparse.ArgumentParser, *, creates: bool) -> None:
    action.add_argument("paths", metavar="PATH", nargs="*", help="a file or a folder")
    action.add_argument(
        "--glob", action="append", default=[], metavar="G", help="only files like this: '*.md'"
    )
    action.add_argument(
        "--exclude", action="append", default=[], metavar="G", help="no files like this"
    )
    where = action.add_mutually_exclusive_group()
    where.add_argument("--dump", metavar="FILE", help="a MediaWiki dump: …-pages-articles.xml.bz2")
    where.add_argument("--rows", metavar="FILE", help="JSONL or parquet with text, title, url")
    _no_vectors(action)
    if creates:
        action.add_argument(
            "--sentences", type=int, default=3, metavar="N", help="sentences in a passage (3)"
        )
        action.add_argument(
            "--encoder", default="minilm", metavar="NAME", help="name or folder (minilm)"
        )
        action.add_argument(
            "--lexical", action="store_true", help="search words alone: no encoder, no vectors"
        )
        _backend(action)


def _no_vectors(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--no-vectors", action="store_true", help="leave the vectors to `kb embed`, or to the shell"
    )


def _searching(action: argparse.ArgumentParser) -> None:
    action.add_argument("query", metavar="QUERY", nargs="+")
    action.add_argument("--k", type=setting_type("k"), default=3, help="passages (3)")
    _how(action, w=5)
    action.add_argument("--filter", metavar="G", help="only documents whose path or URL is like G")


def _how(action: argparse.ArgumentParser, w: int) -> None:
    action.add_argument(
        "--w", type=setting_type("w"), default=w, help=f"neighbours each side ({w})"
    )
    action.add_argument(
        "--w-th", type=setting_type("w_th"), default=0.5, help="how alike neighbours are (0.5)"
    )
    action.add_argument(
        "--mode", type=setting_type("search_mode"), default="hybrid", help="hybrid, dense, lexical"
    )


def _removing(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "pattern", metavar="PATTERN", nargs="*", help="paths or globs; none = the whole base"
    )
    action.add_argument("--dry-run", action="store_true", help="say what would be taken out")
    action.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _embedding(action: argparse.ArgumentParser) -> None:
    action.add_argument("--encoder", metavar="NAME", help="another encoder; embeds everything anew")


def _building(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only encode the I-th of N shares of what lacks vectors, into a file for `kb merge`",
    )
    action.add_argument(
        "--out", metavar="FILE", help="that file (NAME-I-of-N.shard in this folder)"
    )
    _backend(action)


def _backend(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--backend", metavar="NAME", help="where vectors are indexed: faiss (default) or milvus"
    )
    action.add_argument(
        "--backend-url",
        metavar="URL",
        help="its server, http://HOST:19530 (SPARSECHAT_MILVUS_URL; its token comes from "
        "SPARSECHAT_MILVUS_TOKEN)",
    )


def _shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4)."""
    shard, slash, n_shards = text.partition("/")
    if not (slash and shard.isdecimal() and n_shards.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; the second of four is 2/4")
    return int(shard), int(n_shards)


def _merging(action: argparse.ArgumentParser) -> None:
    action.add_argument("files", metavar="FILE", nargs="+", help="what `kb build --shard` wrote")


def _verifying(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--repair", action="store_true", help="set damaged files aside and rebuild what can be"
    )


def _evaluating(action: argparse.ArgumentParser) -> None:
    action.add_argument("file", metavar="FILE", help="JSONL: question, answers, optional title")
    action.add_argument(
        "--ks", type=int, nargs="+", default=[1, 3, 5, 10, 20], metavar="K", help="recall@K"
    )
    _how(action, w=0)


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "create": partial(_filling, creates=True),
    "add": partial(_filling, creates=False),
    "sync": _no_vectors,
    "search": _searching,
    "rm": _removing,
    "embed": _embedding,
    "build": _building,
    "merge": _merging,
    "verify": _verifying,
    "eval": _evaluating,
}
