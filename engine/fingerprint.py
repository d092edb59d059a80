"""A checkpoint's SHA-256, remembered by its files' size and time: hashing 4 GB takes seconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from loguru import logger

from engine.checkpoints import Checkpoint
from engine.packed import replacing


def fingerprint(checkpoint: Checkpoint, cache: Path) -> str:
    """checkpoint.fingerprint(), through a memo in the folder `cache`."""
    known = remembered(checkpoint, cache)
    if known is not None:
        return known
    computed = checkpoint.fingerprint()
    try:
        with replacing(_memo(checkpoint, cache)) as file:
            file.write(computed.encode())
    except OSError as error:
        logger.debug("fingerprint not remembered: {}", error)
    return computed


def remembered(checkpoint: Checkpoint, cache: Path) -> str | None:
    """What the memo has; no file of the checkpoint is read."""
    try:
        known = _memo(checkpoint, cache).read_text()
    except OSError:
        return None
    return known if len(known) == 64 else None


def _memo(checkpoint: Checkpoint, cache: Path) -> Path:
    state = [(str(path.resolve()), *_stamp(path)) for path in checkpoint.files]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    return cache / "fingerprints" / key


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
