"""What a generation says about itself: checked as strictly as any foreign file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data import files

FILE = "manifest.json"
VERSION = 1
MAX_BYTES = 16 << 20  # far above any manifest; a larger file is something else


class ManifestError(ValueError):
    """A manifest that is not one; one line."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` maps each file of the folder to {"sha256", "size", "mtime_ns", "inode"} as written;
    `index` is what the backend gave and gets back. `base_id` and `encoder_id` say for whose
    vectors it was built; it holds all chunks up to `last_chunk_id` that there were at `commit`.
    """

    base_id: str
    encoder_id: str
    backend: str
    dimension: int
    metric: str
    count: int
    last_chunk_id: int
    commit: int
    chunker: str
    files: Mapping[str, Mapping[str, Any]]
    index: Mapping[str, Any]
    version: int = VERSION


def write(folder: Path, manifest: Manifest) -> None:
    """Save it, whole or not at all."""
    files.write_json(folder / FILE, asdict(manifest))


def read(folder: Path) -> Manifest:
    """ManifestError, FileNotFoundError."""
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is larger than any manifest")
        values = json.loads(path.read_text(encoding="utf-8"))
        types = {name: kind for name, kind in Manifest.__annotations__.items()}
        if set(values) != set(types):
            raise ValueError("its keys are not those of a manifest")
        for name, kind in types.items():
            plain = {"int": int, "str": str}.get(kind, dict)
            if type(values[name]) is not plain:
                raise ValueError(f"{name} is not of type {plain.__name__}")
        if values["version"] != VERSION:
            raise ValueError(f"its version is {values['version']}, not {VERSION}")
        return Manifest(**values)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}") from error


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash, size, time and inode of every file in `folder` but the manifest; each is on the disk
    when this returns."""
    result = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == FILE:
            continue
        with path.open("rb+") as file:
            files.sync(file.fileno())
        stat = path.stat()
        stamp = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
        result[name] = {"sha256": files.sha256_of(path), **stamp}
    return result
