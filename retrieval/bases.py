"""Where knowledge bases lie and what they may be called."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from data import paths

from .commits import FILE as COMMITTED
from .database import FILE
from .generations import CURRENT
from .writer_lock import FILE as LOCK

# the files and folders of a base: the database first, so that no reader opens half of it
OWN = (FILE, f"{FILE}*", COMMITTED + "*", f"{CURRENT}*", "gen-*", "salvage-*", LOCK)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10)}


class KnowledgeBaseNotFoundError(FileNotFoundError):
    """No such base on this machine; the message names the nearest ones and the command."""


def bases_dir() -> Path:
    """One folder per base that has a name."""
    return paths.data_dir() / "knowledge"


def folder_of(name_or_path: str | Path) -> Path:
    """The folder of a base: a Path and whatever holds a slash is taken as a path. ValueError."""
    separators = {"/", os.sep, os.altsep or os.sep}
    if isinstance(name_or_path, Path) or any(s in name_or_path for s in separators):
        return Path(os.path.abspath(os.path.expanduser(name_or_path)))
    name = name_or_path
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f"{name!r} cannot name a knowledge base: small letters, digits, '.', '_' and '-', a "
            "letter or digit first, no '.' last, at most 100; or a path with a slash in it"
        )
    if name.split(".")[0] in _RESERVED:
        raise ValueError(f"{name!r} cannot name a knowledge base: Windows keeps it for a device")
    return bases_dir() / name


def names() -> list[str]:
    """The bases that have a name, alphabetically."""
    folder = bases_dir()
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name) and is_base(p))


def is_base(folder: Path) -> bool:
    """Whether there is a base, whole or not."""
    return any(folder.glob(f"{FILE}*"))


def other_files(folder: Path) -> list[Path]:
    """What lies in a folder and is not part of a base."""
    return sorted(p for p in folder.iterdir() if not any(p.match(own) for own in OWN))


def remove(folder: Path) -> None:
    """Delete the files of a base; the folder too, unless it holds others. The caller holds the
    base's lock, which goes last."""
    for pattern in OWN:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    with suppress(OSError):
        folder.rmdir()


def existing(name_or_path: str | Path) -> Path:
    """The folder of a base that is there; KnowledgeBaseNotFoundError, ValueError."""
    folder = folder_of(name_or_path)
    if is_base(folder):
        return folder
    known = names()
    near = difflib.get_close_matches(str(name_or_path), known, 3, 0.5) or known[:5]
    there = f"; there is {', '.join(near)}" if near else ""
    raise KnowledgeBaseNotFoundError(
        f"there is no knowledge base {str(name_or_path)!r}{there}; "
        f"`sparsechat kb create {name_or_path}` makes one"
    )
