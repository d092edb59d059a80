"""chatterbot-corpus: short conversations in 28 languages, out of a package of YAML files.

An entry is a list of lines. In some files they are said in turn; in the others they are a question
and several answers to it, and each answer makes a row.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path, PurePosixPath
from typing import Any

from data.catalogue import WheelSource
from data.datasets import BadRow, Row, Turn, digest
from data.datasets._turns import conversation

TITLE = "chatterbot-corpus, short conversations in 28 languages"
LICENCE = "BSD-3-Clause"
SOURCE = WheelSource(
    package="chatterbot-corpus",
    version="1.3.3",
    member="chatterbot_corpus/data",
    sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
)
LANGUAGE = "english"
# of these files the lines of an entry are said in turn
_DIALOGUES = {"conversations", "greetings", "health", "sport", "sports"}


def rows(found: Sequence[Path], only: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows of the languages `only`, by default of English."""
    try:
        wheel = zipfile.ZipFile(found[0])
    except zipfile.BadZipFile as error:
        raise ValueError(f"{found[0]} is no wheel ({error})") from error
    with wheel:
        names = [PurePosixPath(name) for name in sorted(wheel.namelist())]
        texts = [n for n in names if n.is_relative_to(SOURCE.member) and n.suffix == ".yml"]
        languages = sorted({name.parent.name for name in texts})
        wanted = [language.casefold() for language in only or [LANGUAGE]]
        if unknown := next((language for language in wanted if language not in languages), None):
            raise ValueError(f"there is no language {unknown!r} in it; {', '.join(languages)}")
        seen: set[bytes] = set()
        for name in texts:
            if name.parent.name in wanted:
                for row in _rows_of(wheel.read(str(name)), f"{name.parent.name}/{name.name}"):
                    yield _new(row, seen)


def _new(row: Row | BadRow, seen: set[bytes]) -> Row | BadRow:
    """A row that was there before is none: tech_support.yml says the same some forty times."""
    if isinstance(row, BadRow):
        return row
    n_before = len(seen)
    seen.add(digest(row))
    return row if len(seen) > n_before else BadRow(row.origin, "the same row is there before it")


def _rows_of(content: bytes, name: str) -> Iterator[Row | BadRow]:
    import yaml

    try:
        entries: Any = yaml.safe_load(content.decode("utf-8"))["conversations"]
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError) as error:
        reason = getattr(error, "problem", None) or f"{type(error).__name__}: {error}"
        yield BadRow(name, f"it cannot be read: {reason}")
        return
    for number, entry in enumerate(entries, 1):
        origin = f"{name}#{number}"
        lines = [line.strip() for line in entry] if _is_of_lines(entry) else []
        if len(lines) < 2:
            yield BadRow(origin, "it is no list of two lines or more")
            continue
        # a question that comes again is asked again
        if PurePosixPath(name).stem in _DIALOGUES or lines[0] in lines[1:]:
            yield _row(lines, origin)
        else:
            yield from (_row([lines[0], answer], origin) for answer in lines[1:])


def _is_of_lines(entry: Any) -> bool:
    return isinstance(entry, list) and all(isinstance(line, str) and line.strip() for line in entry)


def _row(lines: Sequence[str], origin: str) -> Row | BadRow:
    roles = zip(cycle(("user", "assistant")), lines, strict=False)
    try:
        return conversation((Turn(r, line, r == "assistant") for r, line in roles), origin, "oig")
    except ValueError as error:
        return BadRow(origin, str(error))
