"""Which files of a folder to read: by kind and pattern, and never outside of the folder."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import kind_of
from ._bytes import reason_of, special

# folders of what programs make
_GENERATED = {"__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is not read, and why, in a few words."""

    path: Path
    reason: str


def files_in(
    root: Path | str, globs: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Path | Skipped]:
    """The files below the folder `root` (or `root` itself, when it is a file), as absolute paths.

    Sorted by path. Hidden files, links that leave `root`, links to folders, special files and those
    of unknown kind come as Skipped; a hidden folder once. A file that `globs` name is of interest
    whatever its suffix; others are passed over in silence.

    globs, exclude  patterns in the way of .gitignore: "*.md" anywhere, "docs/*.md" from `root` on,
                    "docs/**/*.md" at any depth; one that matches a folder means all in it
    FileNotFoundError when there is no `root`; ValueError for a pattern that is none.
    """
    top = Path(os.path.abspath(root))
    wanted, unwanted = _Patterns(globs), _Patterns(exclude)
    try:
        mode = os.stat(top).st_mode
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise FileNotFoundError(f"{top.as_posix()}: {reason}") from error
    if stat.S_ISDIR(mode):
        yield from _below(top, wanted, unwanted)
    elif name := special(mode):
        yield Skipped(top, f"it is {name}")
    else:
        yield top


def _below(top: Path, wanted: _Patterns, unwanted: _Patterns) -> Iterator[Path | Skipped]:
    real_top = os.path.realpath(top)
    waiting = [top]  # the next entry is the last
    while waiting:
        path = waiting.pop()
        relative = path.relative_to(top).as_posix()
        try:
            if path == top or _is_plain_folder(path):
                if path == top or not (reason := _unread_folder(path, relative, unwanted)):
                    waiting += sorted((path / name for name in os.listdir(path)), reverse=True)
                elif reason != "excluded":
                    yield Skipped(path, reason)
                continue
            if unwanted.match(relative) or (wanted and not wanted.match(relative)):
                continue
            reason = _unread_file(path, real_top, is_named=bool(wanted))
        except OSError as error:
            reason = reason_of(error)
        yield Skipped(path, reason) if reason else path


def _is_plain_folder(path: Path) -> bool:
    is_junction = getattr(os.path, "isjunction", lambda path: False)  # Windows, Python 3.12
    return stat.S_ISDIR(os.lstat(path).st_mode) and not is_junction(path)


def _unread_folder(path: Path, relative: str, unwanted: _Patterns) -> str:
    if unwanted.match(relative):
        return "excluded"
    if path.name.startswith("."):
        return "hidden"
    return "a folder of generated files" if path.name in _GENERATED else ""


def _unread_file(path: Path, real_top: str, is_named: bool) -> str:
    """Why a file is not read; "" when it is."""
    if path.name.startswith("."):
        return "hidden"
    if os.path.islink(path) or os.path.isdir(path):  # a junction is a folder that is no plain one
        target = os.path.realpath(path)
        if not _is_inside(target, real_top):
            return "a link that leaves the folder"
        if not os.path.exists(target):
            return "a link to nothing"
        if os.path.isdir(target):
            return "a link to a folder; the folder itself is read"
    if name := special(os.stat(path).st_mode):
        return f"it is {name}"
    if not is_named and kind_of(path) is None:
        return "of unknown kind; name it, or give a pattern that matches it, to read it as text"
    return ""


def _is_inside(path: str, top: str) -> bool:
    """Is `path` below `top`? Both without links."""
    path, top = os.path.normcase(path), os.path.normcase(top)
    try:
        return os.path.commonpath([path, top]) == top
    except ValueError:  # on two drives
        return False


class _Patterns:
    """Patterns of files; true when there are any."""

    def __init__(self, patterns: Sequence[str]) -> None:
        flags = re.IGNORECASE if sys.platform == "win32" else 0
        self._compiled = [re.compile(_translated(pattern), flags) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def match(self, relative: str) -> bool:
        """Does any pattern match the path (posix, relative to the root) or a folder above it?"""
        return any(pattern.match(relative) for pattern in self._compiled)


def _translated(pattern: str) -> str:
    """A pattern as a regular expression for the beginning of a relative path."""
    given = pattern.replace(os.sep, "/").removeprefix("./").rstrip("/")
    if not given or given.startswith("/"):
        raise ValueError(
            f"the pattern {pattern!r} matches nothing; patterns are relative, such as '*.md' or "
            "'docs/**/*.txt'"
        )
    parts = [] if "/" in given else ["(?:.*/)?"]
    for token in re.findall(r"\*\*/|/\*\*$|\*\*|\*|\?|\[[^\]/]+\]|.", given, re.DOTALL):
        if token == "**/":
            parts.append("(?:.*/)?")
        elif token in ("/**", "**"):
            parts.append(re.escape(token.rstrip("*")) + ".*")
        elif token in ("*", "?"):
            parts.append("[^/]*" if token == "*" else "[^/]")
        elif len(token) > 1:
            inner = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
            parts.append(f"[^{inner[1:]}/]" if inner[0] == "!" and inner[1:] else f"[{inner}]")
        else:
            parts.append(re.escape(token))
    return "".join(parts) + r"(?:/|\Z)"
