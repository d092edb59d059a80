"""Make a model of pickled weights: pytorch_model.bin, or what OpenChatKit's scripts leave.

Pickles can run code, so no model is ever loaded from one. An import reads them once through torch's
weights-only loader, which builds tensors and refuses everything else, checks that each tensor is
there exactly once and with its shape, writes safetensors, and compares.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bot import render

if TYPE_CHECKING:
    from engine.importing import Report

_LEFT = re.compile(r"[a-z0-9_]{8}(\.old)?")  # as tempfile names what is being written
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to read, and what it is to be called."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER|ORG/NAME",
        help="a folder, or a repository in the hub cache, with pytorch_model.bin (or several and "
        "their index), or with OpenChatKit's pytorch_embs.pt, pytorch_0.pt …, pytorch_lm_head.pt, "
        "or its prank_0_checkpoint.pt …",
    )
    parser.add_argument(
        "--to",
        metavar="NAME|FOLDER",
        help="what `sparsechat --model NAME` will open, or a folder elsewhere (default: the "
        "folder's name)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FOLDER|JSON",
        help="where config.json and the tokenizer are (default: in FOLDER)",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """0 when what was written has every tensor and gives the same logits; else nothing is left."""
    from data import files, locks

    folder, name = _source(args.folder)
    to = _target(args.to or name.rpartition("/")[2])
    _require_free(to, args.force)
    _require_torch()
    from engine.importing import import_model
    from engine.importing.sources import find_paths

    _, pickles = find_paths(folder)
    files.private_folder(to.absolute().parent)
    files.require_space(to.absolute().parent, sum(path.stat().st_size for path in pickles))
    status = render.Status()

    def report(stage: str, fraction: float) -> None:
        status.show(f"{stage} …" + (f" {100 * fraction:.0f} %" if fraction else ""))

    try:
        with locks.hold(to.absolute().with_name(f".{to.name}.lock"), render.err):
            _clear(to.absolute())
            done = import_model(folder, to, args.config, report, origin=name)
    finally:
        status.clear()
    _tell(args, done)
    return 0


def _source(given: Path) -> tuple[Path, str]:
    """The folder, or that of a repository in the hub cache, and what it is called."""
    from data import catalogue, hub_cache

    if given.is_dir():
        return given, given.resolve().name
    if given.is_file():
        is_model = given.suffix.casefold() == ".gguf"
        raise ValueError(f"{given}: {'opened as it is' if is_model else 'a file; name its folder'}")
    model = catalogue.hub_model(str(given))
    source = model.sources[0] if model else None
    if isinstance(source, catalogue.HubSource):
        found = hub_cache.find_pickles(source.repository, source.revision)
        if found is not None:
            return found, source.repository
        raise ValueError(f"{given}: no such folder, and no pickles in the hub cache")
    raise ValueError(f"{given}: no such folder")


def _target(word: str) -> Path:
    """A name's folder among the models, or the folder that a path names."""
    from data import catalogue, models, paths

    if "/" in word or "\\" in word or word.startswith(("~", ".")):
        return Path(word).expanduser()
    if not _NAME.fullmatch(word):
        raise ValueError(
            f"{word!r} is no name for a model: letters, digits, '.', '_' and '-'; --to NAME gives "
            "another"
        )
    if catalogue.find(word) or any(model.name == word for model in models.installed()):
        raise ValueError(f"{word} is the name of another model; --to NAME gives another")
    return paths.models_dir() / word


def _require_free(to: Path, force: bool) -> None:
    """ValueError when something is there that is not to be replaced."""
    from data.models import IMPORTED

    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / IMPORTED).is_file():
        raise ValueError(f"{to} is something else already; --to NAME gives another name")
    if not force:
        raise ValueError(f"{to.name} was imported already ({to}); --force replaces it")


def _clear(to: Path) -> None:
    """Delete what an import of this name left that was killed; the caller holds its lock.

    A model that was being replaced stays where nothing has taken its name yet.
    """
    for path in to.parent.glob(f".{to.name}.*"):
        left = _LEFT.fullmatch(path.name.removeprefix(f".{to.name}."))
        if left and path.is_dir() and (to.exists() or not left[1]):
            shutil.rmtree(path, ignore_errors=True)


def _require_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ValueError(
            "pickles are read by torch, which is not installed: pip install 'sparsechat[train]'"
        )


def _tell(args: argparse.Namespace, done: Report) -> None:
    from data.files import megabytes

    if args.json:
        record = done._asdict() | {"path": str(done.path.absolute()), "checked": done.line()}
        render.out(json.dumps(record, ensure_ascii=False))
        return
    size = megabytes(done.n_bytes)
    render.out(f"{done.path}: {done.n_tensors} tensors of {done.kind}, {size}")
    if done.left_out:
        names = ", ".join(done.left_out[:5]) + (" …" if len(done.left_out) > 5 else "")
        render.err(f"left out, because no such model has them: {names}")
    render.err(f"checked: {done.line()}")
    from data import paths

    is_named = done.path.parent == paths.models_dir()
    render.err(f"`sparsechat --model {done.path.name if is_named else done.path}` opens it")
