"""What `pull` has put on the disk: one folder per model with a model.json beside the files.

A model counts as installed when its model.json can be read and every file in it is there with its
size. model.json is written last and deleted first, so a half-finished change is "not installed".
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import files, paths
from .catalogue import RegisteredModel

RECORD = "model.json"
# downloads in progress and locks; no model name begins with a full stop
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of an installed model; `name` is relative to the model's folder."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """An installed model. `file` is its GGUF file, None for a model directory."""

    name: str
    folder: Path
    file: str | None
    size: int
    sha256: str | None
    source: str
    licence: str | None
    pulled_at: str
    files: tuple[FileRecord, ...]

    @property
    def path(self) -> Path:
        """What engine.load takes: the GGUF file or the directory."""
        return self.folder / self.file if self.file else self.folder


def folder_of(name: str) -> Path:
    """The folder of the model `name`, whether or not it exists ("org/name" becomes "org--name")."""
    return paths.models_dir() / name.casefold().replace("/", "--")


def partial_folder(name: str) -> Path:
    """Where the downloads of the model `name` lie until they are whole."""
    return paths.models_dir() / PARTIAL / folder_of(name).name


def find(name: str) -> InstalledModel | None:
    """The installed model `name`, or None."""
    if not name or name.startswith(".") or set(name) & set("\\:"):
        return None  # such names would leave models_dir() on one system or another
    model = _read(folder_of(name))
    return model if model and model.name.casefold() == name.casefold() else None


def all_installed() -> list[InstalledModel]:
    """Every installed model, by name."""
    try:
        folders = sorted(paths.models_dir().iterdir())
    except OSError:
        return []
    return [model for model in map(_read, folders) if model]


def install(
    model: RegisteredModel, staging: Path, held: list[FileRecord], source: str
) -> InstalledModel:
    """Move the whole, verified files `held` from `staging` into the model's folder.

    The first of them is the GGUF file when the model is one. What else lies in `staging` (left
    by a process that was killed, or by an earlier revision) is deleted.
    """
    folder = folder_of(model.name)
    weights = [record for record in held if record.name.endswith((".gguf", ".safetensors"))]
    installed = InstalledModel(
        name=model.name,
        folder=folder,
        file=held[0].name if held[0].name.endswith(".gguf") else None,
        size=sum(record.size for record in held),
        sha256=weights[0].sha256 if len(weights) == 1 else None,
        source=source,
        licence=model.licence,
        pulled_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=tuple(held),
    )
    record = {key: value for key, value in asdict(installed).items() if key != "folder"}
    _keep_only(staging, [entry.name for entry in held])
    files.write_json(staging / RECORD, record)
    if not folder.exists():
        os.rename(staging, folder)
    else:  # an older pull, or files of the user's: replace ours, keep theirs
        files.delete(folder / RECORD)
        for name in [*(record.name for record in held), RECORD]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, folder / name)
    files.sync_folder(folder.parent)
    return installed


def remove(model: InstalledModel) -> list[Path]:
    """Delete the files that pull created; returns what else lies in the folder and so stays."""
    files.delete(model.folder / RECORD)
    for record in model.files:
        files.delete(model.folder / record.name)
    shutil.rmtree(partial_folder(model.name), ignore_errors=True)
    for folder in sorted((p for p in model.folder.rglob("*") if p.is_dir()), reverse=True):
        _remove_if_empty(folder)
    _remove_if_empty(model.folder)
    return sorted(model.folder.iterdir()) if model.folder.exists() else []


def _keep_only(folder: Path, names: list[str]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir():
            _remove_if_empty(path)
        elif path.relative_to(folder).as_posix() not in names:
            path.unlink()


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _read(folder: Path) -> InstalledModel | None:
    try:
        value: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        records = tuple(FileRecord(**entry) for entry in value["files"])
        installed = InstalledModel(**{**value, "folder": folder, "files": records})
        whole = all((folder / r.name).stat().st_size == r.size for r in records)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    inside = all(_is_inside(r.name) for r in records) and _is_inside(installed.file or "x")
    return installed if whole and inside and records else None


def _is_inside(name: str) -> bool:
    # model.json is a file that anybody may have edited; `rm` must not follow it elsewhere
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and not path.drive
