"""Write a model, with an adapter merged into it, for other programs: a directory or a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import render

if TYPE_CHECKING:
    from data.models import ResolvedModel
    from engine import Adapter, Model
    from engine.export import Report

DIRECTORY = ("f32", "f16", "bf16")
FILE = ("f32", "f16", "bf16", "q8_0", "q4_1", "q4_0")
LLAMA2C = ("llama2c", "llama2c-v1")
# bytes of a weight, to see beforehand whether there is room
_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.07, "q4_1": 0.7, "q4_0": 0.65}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to write, and where to."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a model's name, GGUF file or folder (default: the one that chats)",
    )
    parser.add_argument(
        "--to",
        required=True,
        type=Path,
        metavar="FOLDER|FILE.gguf|FILE.bin",
        help="a folder becomes a Hugging Face directory, a name that ends in .gguf a GGUF file, "
        "one that ends in .bin a file of llama2.c with tokenizer.bin beside it",
    )
    parser.add_argument(
        "--adapter", metavar="NAME", help="merge this adapter, a name or a folder, into the weights"
    )
    parser.add_argument(
        "--format",
        type=str.lower,
        choices=(*FILE, *LLAMA2C, "peft"),
        metavar="F",
        help="f32, f16, bf16; of a GGUF file also q8_0 (default), q4_1, q4_0; of a .bin file "
        "llama2c (default) or llama2c-v1; peft: the adapter alone, in PEFT's layout",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """0 when what was written gives the logits of the model in memory; else nothing is left."""
    kind = _kind(args)
    from bot import adapters
    from bot.config import read_config
    from bot.loading import find_model

    found = find_model(args.model or read_config({}).settings().model)
    folder = None if args.adapter is None else adapters.find(args.adapter)
    _require_free(args.to, kind, args.force)
    if kind == "llama2c":
        _require_free(args.to.with_name("tokenizer.bin"), kind, args.force)
    status = render.Status()

    def report(stage: str, fraction: float) -> None:
        status.show(f"{stage} …" + (f" {100 * fraction:.0f} %" if fraction else ""))

    import engine

    try:
        model = engine.load(found.path, on_progress=report)
        if folder is not None:
            model.set_adapter(folder)
        _require_room(args, kind, model)
        done = _write(args, kind, found, model, report)
    finally:
        status.clear()
    _tell(args, found, model.adapter, done)
    return 0


def _kind(args: argparse.Namespace) -> str:
    """huggingface, gguf, llama2c or peft; ends with a usage error where the flags contradict each
    other."""
    is_file = args.to.suffix.casefold() == ".gguf"
    if args.to.suffix.casefold() == ".bin" or args.format in LLAMA2C:
        if args.to.suffix.casefold() != ".bin" or args.format not in (None, *LLAMA2C):
            args.usage_error("files of llama2.c are written by --to NAME.bin [--format llama2c-v1]")
        return "llama2c"
    if args.format == "peft":
        if args.adapter is None:
            args.usage_error("--format peft writes an adapter: --adapter NAME names it")
        if is_file:
            args.usage_error("--format peft writes a folder, --to names a file")
        return "peft"
    if not is_file and args.format not in (None, *DIRECTORY):
        args.usage_error(
            f"--format {args.format} is one of GGUF files: --to NAME.gguf; a directory has "
            f"{', '.join(DIRECTORY)}"
        )
    return "gguf" if is_file else "huggingface"


def _require_free(to: Path, kind: str, force: bool) -> None:
    """ValueError when something is there that is not to be replaced."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    mark = {"huggingface": "config.json", "peft": "adapter_config.json"}.get(kind)
    if to.is_dir() != (mark is not None) or (mark and not (to / mark).is_file()):
        raise ValueError(f"{to} is something else already; name another place")
    if not force:
        raise ValueError(f"{to} is there already; --force replaces it")


def _require_room(args: argparse.Namespace, kind: str, model: Model) -> None:
    from data import files

    if kind == "peft":
        return
    name = "f32" if kind == "llama2c" else args.format or ("q8_0" if kind == "gguf" else "f16")
    parent = next(p for p in args.to.absolute().parents if p.exists())
    files.require_space(parent, int(model.n_weights * _BYTES[name]))


def _write(
    args: argparse.Namespace, kind: str, found: ResolvedModel, model: Model, report: Any
) -> Report:
    from engine.export import Source, to_gguf, to_huggingface, to_llama2c, to_peft

    if kind == "peft":
        assert model.adapter is not None
        folder = found.path.is_dir() and found.source == "path"
        return to_peft(args.to, model.adapter, model, str(found.path) if folder else found.name)
    source = Source(found.path, model.adapter)
    if kind == "gguf":
        chosen = args.format or "q8_0"
        return to_gguf(args.to, source, model.logits, chosen, on_progress=report)
    if kind == "llama2c":
        chosen = args.format or LLAMA2C[0]
        return to_llama2c(args.to, source, model.logits, chosen, on_progress=report)
    return to_huggingface(
        args.to, source, model.logits, args.format, base=found.name, on_progress=report
    )


def _tell(
    args: argparse.Namespace, found: ResolvedModel, adapter: Adapter | None, done: Report
) -> None:
    from data.files import megabytes

    if args.json:
        record = {
            "path": str(done.path.absolute()),
            "format": done.format,
            "size": done.n_bytes,
            "model": found.name,
            "adapter": None if adapter is None else adapter.name,
            "check": {
                "tokens": done.n_tokens,
                "kl": done.kl,
                "largest_difference": done.largest,
                "same_token": done.same,
            },
        }
        render.out(json.dumps(record, ensure_ascii=False))
        return
    what = found.name if adapter is None else f"{found.name} with {adapter.name}"
    if done.format == "peft":
        what = f"adapter {adapter.name if adapter else ''}"
    render.out(f"{done.path}: {what}, {done.format}, {megabytes(done.n_bytes)}")
    render.err(f"checked against the model in memory: {done.line()}")
