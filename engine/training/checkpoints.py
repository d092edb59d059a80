"""Checkpoints of a run: folders that are whole or absent, and proved before they are used.

    step-000120/state.safetensors   arrays by name
    step-000120/state.json          what else is to know, and the SHA-256 of the arrays' file

A folder is written under another name, synced and renamed. What a crash of the machine or of a disk
damaged all the same shows in the hash, and the folder before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.files import (
    private_folder,
    require_space,
    room,
    sha256_of,
    sync,
    sync_folder,
    write_json,
)

ARRAYS, FACTS = "state.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{6,})")
_DTYPES = {
    "float32": "F32", "float64": "F64", "uint8": "U8", "int32": "I32", "int64": "I64",
}  # fmt: skip


class Checkpoint(NamedTuple):
    """arrays by name, and JSON values."""

    step: int
    arrays: dict[str, NDArray[Any]]
    facts: dict[str, Any]
    path: Path


def save(
    folder: Path, step: int, arrays: Mapping[str, NDArray[Any]], facts: Any, keep: int
) -> Path:
    """Write a checkpoint below `folder` and delete all but the newest `keep` after it.

    OSError; data.files.DiskFullError when there is no room: what is there stays as it is.
    """
    private_folder(folder)
    clean(folder)
    n_bytes = sum(array.nbytes for array in arrays.values()) + (1 << 20)
    require_space(folder, n_bytes)
    temporary = folder / f".step-{step:06d}.tmp-{os.getpid()}"
    final = folder / f"step-{step:06d}"
    try:
        with room(folder, lambda: n_bytes):
            temporary.mkdir(mode=0o700)
            digest = write_arrays(temporary / ARRAYS, arrays)
            write_json(temporary / FACTS, {"step": step, "sha256": digest, "facts": facts})
        if final.exists():  # this step was saved before; the run went back behind it
            shutil.rmtree(final)
        os.replace(temporary, final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in list(steps(folder))[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def steps(folder: Path) -> Iterator[Path]:
    """The checkpoints' folders, the newest first."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    yield from sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def clean(folder: Path) -> None:
    """Delete what a killed process left half written. Only the run's owner may call this."""
    for path in folder.glob(".step-*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a checkpoint that is of no use."""
    shutil.rmtree(path, ignore_errors=True)


def load(path: Path) -> Checkpoint:
    """ValueError in one line for a checkpoint that is not whole."""
    try:
        outer = json.loads((path / FACTS).read_text(encoding="utf-8"))
        step, digest, facts = int(outer["step"]), str(outer["sha256"]), dict(outer["facts"])
        if sha256_of(path / ARRAYS) != digest:
            raise ValueError(f"{ARRAYS} is not what was written")
        return Checkpoint(step, _read_arrays(path / ARRAYS), facts, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is damaged ({_reason(error)})") from None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """A safetensors file, straight from the arrays' memory; returns its SHA-256."""
    header: dict[str, Any] = {}
    start = 0
    for name, array in arrays.items():
        end = start + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (len(text).to_bytes(8, "little"), text):
            file.write(piece)
            digest.update(piece)
        for array in arrays.values():
            memory = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            file.write(memory)
            digest.update(memory)
        file.flush()
        sync(file.fileno())
    return digest.hexdigest()


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load_file

    arrays: dict[str, NDArray[Any]] = load_file(path)
    return arrays


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name} is missing"
    return " ".join(str(error).split())[:200] or type(error).__name__
