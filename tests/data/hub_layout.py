"""A Hugging Face cache as the hub's own library leaves it."""

from __future__ import annotations

from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def cache_repository(
    cache: Path,
    name: str = "org/name",
    names: tuple[str, ...] = ("config.json", "model.safetensors"),
    *,
    commit: str = COMMIT,
    ref: str | None = "main",
) -> Path:
    """Put empty files into a snapshot, and `ref` on it; returns the snapshot."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for entry in names:
        (snapshot / entry).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / entry).write_bytes(b"")
    if ref:
        (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot
