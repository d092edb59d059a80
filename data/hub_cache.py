"""What already lies in the local Hugging Face cache; reads folders only, never the network.

Layout: models--org--name/{refs/<revision>, snapshots/<commit>/, blobs/}.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def cache_folder() -> Path:
    """$HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("HF_HOME"):
        return Path(folder).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def find(repository: str, revision: str | None, file: str | None) -> Path | None:
    """The model file or directory of a cached repository; None when the cache has no usable one.

    repository  "org/name"
    revision    branch, tag or commit; None = main, or the only snapshot when there is no main
    file        a GGUF file of the repository; None = the model directory, or its only GGUF file
    Raises ValueError when the repository holds several GGUF files and none is named.
    """
    snapshot = _snapshot(cache_folder() / f"models--{repository.replace('/', '--')}", revision)
    if snapshot is None:
        return None
    if file:
        return snapshot / file if (snapshot / file).is_file() else None
    if is_model_directory(snapshot):
        return snapshot
    return only_gguf(snapshot, repository)


def find_pickles(repository: str, revision: str | None) -> Path | None:
    """The snapshot of a cached repository whose weights are pickles alone; None otherwise."""
    snapshot = _snapshot(cache_folder() / f"models--{repository.replace('/', '--')}", revision)
    if snapshot is None or is_model_directory(snapshot):
        return None
    names = ("pytorch_model.bin", "pytorch_model.bin.index.json")
    return snapshot if any((snapshot / name).is_file() for name in names) else None


def only_gguf(folder: Path, name: str) -> Path | None:
    """The one GGUF file in `folder`, None when there is none; ValueError when there are several."""
    found = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    if len(found) > 1:
        listed = ", ".join(f"{name}/{path.name}" for path in found)
        raise ValueError(f"{name} holds {len(found)} GGUF files; name one of them: {listed}")
    return found[0] if found else None


def is_model_directory(folder: Path) -> bool:
    """Whether `folder` has a config.json and weights (a snapshot may hold only a tokenizer)."""
    return (folder / "config.json").is_file() and any(
        path.is_file() for path in folder.glob("*.safetensors")
    )


def repositories() -> list[str]:
    """The cached repositories that hold a model, "org/name", sorted."""
    names = []
    try:
        folders = sorted(cache_folder().glob("models--*--*"))
    except OSError:
        return []
    for folder in folders:
        snapshot = _snapshot(folder, None)
        if snapshot and (is_model_directory(snapshot) or any(snapshot.glob("*.gguf"))):
            names.append(folder.name.removeprefix("models--").replace("--", "/", 1))
    return names


def _snapshot(folder: Path, revision: str | None) -> Path | None:
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        if revision is None:
            present = [path for path in snapshots.glob("*") if path.is_dir()]
            return present[0] if len(present) == 1 else None
        commit = revision
    if not re.fullmatch(r"[0-9a-fA-F]{7,64}", commit):
        return None
    return snapshots / commit if (snapshots / commit).is_dir() else None
