"""KV caches on disk: a conversation that is taken up again is read back, not computed again.

A file a name (engine/packed.py): the token ids with what else decides keys and values, the arrays
of KVCache.export, and last a SHA-256 of all that, which leaves no damage unseen. It takes 0.55 ms a
megabyte, more than half of reading back; a CRC-32 would take 0.25, computing takes 70.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from engine import packed

if TYPE_CHECKING:
    from engine.model import Model

SUFFIX = ".kv"
_VERSION = 1  # of the file's own structure
_ABANDONED_S = 600  # a temporary file that nobody wrote to for so long: its writer was killed
_IDS, _DIGEST = "token_ids", "sha256"
_DENSE = "n_dense"


class SavedCaches:
    """A folder of caches that only its owner can read.

    Nothing here raises for what a disk can do: a cache that cannot be kept or used costs a line in
    the log and is computed again. Other processes may write and remove files at any time.
    """

    MIN_TOKENS = 64  # worth a file: SmolLM2-135M reads them back in 5 ms, computes them in 55 ms

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """What is kept, by whichever model."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self._paths())

    def keep(self, name: str, model: Model, token_ids: Sequence[int], limit_bytes: int) -> bool:
        """Keep what the model's cache holds of the beginning of token_ids; whether it was written.

        It is not where that spares fewer than MIN_TOKENS more than what is kept already. What is
        kept of other tokens, or for another model, is replaced or removed.
        """
        found = self._find(name, model)
        kept = [] if found is None else found.token_ids
        shared, held = common_prefix(kept, token_ids), model.cache.common_prefix(token_ids)
        usable = 0 if found is None else _usable(found, model, token_ids)
        if held - usable >= self.MIN_TOKENS and self.save(name, model, held, limit_bytes):
            return True
        if found is None or len(kept) > shared:
            self.remove(name)
        return False

    def save(self, name: str, model: Model, n_tokens: int, limit_bytes: int) -> bool:
        """Keep the first n_tokens of the model's cache in place of what was kept as `name`.

        The least recently used others go until all fit into limit_bytes. False when it is too large
        for that, or cannot be written.
        """
        path = self._path(name)
        try:
            entries = list(_entries(model, n_tokens))
            n_bytes = sum(entry.n_bytes for entry in entries)
            if n_bytes > limit_bytes:
                logger.info("{}: {:,} bytes are above the limit, not kept", path.name, n_bytes)
                return False
            self._folder.mkdir(parents=True, exist_ok=True)
            if os.name == "posix":
                self._folder.chmod(0o700)
            self.prune(limit_bytes - n_bytes, besides=name)
            # not synced: what a power cut leaves of it is found out by its digest
            packed.write(path, entries, durable=False)
        except (OSError, MemoryError) as error:
            logger.warning("cannot keep {}: {}", path, error)
            return False
        logger.info("kept {} ({:,} tokens, {:,} bytes)", path.name, n_tokens, n_bytes)
        return True

    def restore(self, name: str, model: Model, token_ids: Sequence[int]) -> int:
        """Bring back into the model's cache what is kept of the beginning of token_ids.

        Returns how many leading ids the cache then shares; 0, and nothing is changed, when the file
        is not there, not usable, or does not have MIN_TOKENS more of them than the cache.
        """
        enough = model.cache.common_prefix(token_ids) + self.MIN_TOKENS
        if len(token_ids) < enough:
            return 0
        path, found = self._path(name), self._find(name, model)
        if found is None:
            return 0
        shared = _usable(found, model, token_ids)
        if shared < enough:
            return 0
        if _digest(found.parts) != found.digest:
            _discard(path, "its checksum does not fit its content")
            return 0
        try:
            model.cache.restore(found.token_ids, found.arrays())
        except (ValueError, MemoryError) as error:
            logger.warning("{} is not used: {}", path, error)
            model.cache.truncate(0)
            return 0
        if found.n_dense < len(found.token_ids):
            model.cache.skipped_from(found.n_dense)
        model.cache.truncate(shared)
        with suppress(OSError):
            os.utime(path)
        return shared

    def remove(self, name: str) -> None:
        """Keep nothing as `name`."""
        with suppress(OSError):
            self._path(name).unlink()

    def prune(self, limit_bytes: int, besides: str | None = None) -> None:
        """Remove the least recently used until the rest, `besides` left out, fits."""
        files = []
        for path in self._paths():
            with suppress(OSError):  # another process was quicker
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        if besides is not None:
            files = [file for file in files if file[2] != self._path(besides)]
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= limit_bytes:
                break
            total -= size
            with suppress(OSError):
                path.unlink()
        self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob(f".*{SUFFIX}.*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def _paths(self) -> list[Path]:
        try:
            return [p for p in self._folder.glob(f"*{SUFFIX}") if not p.name.startswith(".")]
        except OSError:
            return []

    def _path(self, name: str) -> Path:
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r} cannot name a kept cache: it must be a plain file name")
        return self._folder / f"{name}{SUFFIX}"

    def _find(self, name: str, model: Model) -> _Kept | None:
        path = self._path(name)
        try:
            found = _read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("cannot read {}: {}", path, error)
            return None
        except ValueError as error:
            _discard(path, str(error))
            return None
        if found.about != _about(model):
            logger.info("{} is of another model or build and not used", path.name)
            return None
        return found


Part = tuple[str, dict[str, Any], NDArray[np.uint8]]  # name, attributes, bytes


class _Kept(NamedTuple):
    """A file that was opened: mapped, its digest not yet checked."""

    about: dict[str, Any]
    token_ids: list[int]
    n_dense: int  # see KVCache
    parts: list[Part]  # all but the digest
    digest: bytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What KVCache.restore takes; only for checked files."""
        return {
            name: data.view(np.dtype(attributes["dtype"])).reshape(attributes["shape"])
            for name, attributes, data in self.parts[1:]
        }


def common_prefix(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many leading ids are the same."""
    n = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        n += 1
    return n


def _usable(found: _Kept, model: Model, token_ids: Sequence[int]) -> int:
    """How many leading ids need not be computed: without sparsity, none from where it skipped."""
    shared = common_prefix(found.token_ids, token_ids)
    return shared if model.sparsity.coarseness else min(shared, found.n_dense)


def _entries(model: Model, n_tokens: int) -> Iterator[packed.Entry]:
    ids = np.array(model.cache.token_ids[:n_tokens], "<i4")
    about = _about(model) | {_DENSE: min(n_tokens, model.cache.n_dense)}
    parts: list[Part] = [(_IDS, about, ids.view(np.uint8))]
    for name, array in model.cache.export(n_tokens).items():
        attributes = {"dtype": array.dtype.str, "shape": list(array.shape)}
        parts.append((name, attributes, array.reshape(-1).view(np.uint8)))
    digest = np.frombuffer(_digest(parts), np.uint8)
    for name, attributes, data in [*parts, (_DIGEST, {}, digest)]:
        yield packed.Entry(name, data.nbytes, attributes, partial(_whole, data))


def _whole(data: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [data]


def _read(path: Path) -> _Kept:
    """Map a file; ValueError, beginning with its name, for one that is damaged."""
    entries = packed.open_packed(path)
    parts = [(name, attributes, data) for name, (data, attributes) in entries.items()]
    names = [name for name, _, _ in parts]
    if names[:1] != [_IDS] or names[-1:] != [_DIGEST] or parts[0][2].size % 4:
        raise ValueError(f"{path.name} is damaged: it holds {', '.join(names)[:80]!r}")
    _, about, ids = parts[0]
    others = {name: value for name, value in about.items() if name != _DENSE}
    n_dense, token_ids = about.get(_DENSE), ids.view("<i4").tolist()
    if not isinstance(n_dense, int):
        raise ValueError(f"{path.name} is damaged: it holds {n_dense!r} dense tokens")
    return _Kept(others, token_ids, n_dense, parts[:-1], parts[-1][2].tobytes())


def _digest(parts: Iterable[Part]) -> bytes:
    """SHA-256 of the values and of all that says what they mean."""
    digest = hashlib.sha256()
    for name, attributes, data in parts:
        digest.update(json.dumps([name, attributes], sort_keys=True).encode())
        digest.update(data.data)
    return digest.digest()


def _discard(path: Path, reason: str) -> None:
    logger.warning("{}; {} is removed", reason, path)
    with suppress(OSError):
        path.unlink()


def _about(model: Model) -> dict[str, Any]:
    """What decides a token's keys and values besides the tokens, and how they lie in the file.

    The same tokens have other keys and values in weights of another format, at other rotary
    frequencies (both are the config's), with an adapter, and perhaps in another build.
    """
    formats = {name: weight.format for name, weight in model.weights.matrices.items()}
    weights = [model.fingerprint, sorted(formats.items()), model.adapter_digest]
    decides = [*weights, repr(model.config), _build()]
    return {
        "version": _VERSION,
        "layout": model.cache.layout,
        "model": hashlib.sha256(json.dumps(decides).encode()).hexdigest(),
    }


@cache
def _build() -> str:
    """SHA-256 of the engine's sources: a corrected rope must not meet keys of the old one."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
