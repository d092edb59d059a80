"""Encoding by several processes or machines at once, and taking what they made into one base."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data import files, locks

from . import shard_file
from .embedding import BATCH, require_same
from .ingest import Cancel, OnProgress
from .shard_file import PART, Header, Records, ShardError
from .store import Store
from .texts import id_list
from .vectors import BLOCK, encoded_text
from .writer_lock import BusyError

if TYPE_CHECKING:
    from .encoder import Encoder

ASKED = 500  # hashes in one query


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did: vectors in the files, those that the base had not, those whose text is
    not in the base (any more), and chunks of the base that still have none."""

    n_vectors: int = 0
    n_new: int = 0
    n_unused: int = 0
    n_pending: int = 0


def encode(
    store: Store,
    encoder: Encoder,
    shard: tuple[int, int],
    out: Path,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> int:
    """Write the vectors of shard (i, n), i from 1 to n, to the file `out`; how many texts were
    encoded now. The store is only read, by any number of these at once.

    A text belongs to a shard by its hash; those that have a vector in the store are left out. What
    is in `out` or `<out>.part` already is not encoded again, so a call after a kill or a cancel
    goes on. EncoderMismatchError, ShardError (`out` is another shard), BusyError, DiskFullError.
    """
    settings = store.settings()
    require_same(store.db.path.parent.name, settings, encoder)
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"there is no shard {shard[0]}/{shard[1]}: of three, the first is 1/3")
    header = Header(encoder.encoder_id, encoder.dimension, *shard, settings.encoder)
    part = out.with_name(out.name + PART)
    n_done = 0
    with _alone(out):
        wanted = _wanted(store, header, shard_file.resume(out, part, header))
        if out.exists() and not part.exists():
            if not len(wanted):
                return 0
            shard_file.reopen(out, part)
        missing = len(wanted) * header.record.itemsize
        with files.room(part.parent, lambda: missing - n_done * header.record.itemsize):
            for n_done in _append(store, encoder, header, part, wanted):
                if on_progress and n_done:
                    on_progress(n_done, len(wanted), "vectors")
                if cancel and cancel.is_set():
                    return n_done
            shard_file.finish(part, out)
    return n_done


def merge(
    store: Store,
    paths: Sequence[Path],
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> Merged:
    """Take the vectors of whole shard files into the store, in any order; commits as it goes, and
    may be repeated. Nothing is taken unless every file is whole and of the base's encoder:
    ShardError, FileNotFoundError name the first that is not."""
    found = [(path, shard_file.verified(path)) for path in paths]
    if found:
        _require_one_encoder(store, found)
        first = found[0][1]
        store.use_encoder(first.encoder_id, first.dimension, first.name)
    total = sum(shard_file.n_records(path, header) for path, header in found)
    n_vectors = n_new = n_unused = 0
    for block in (block for path, header in found for block in shard_file.records(path, header)):
        if cancel and cancel.is_set():
            break
        new, unused = _take(store, block)
        n_vectors, n_new, n_unused = n_vectors + len(block), n_new + new, n_unused + unused
        if on_progress:
            on_progress(n_vectors, total, "vectors")
    return Merged(n_vectors, n_new, n_unused, store.state().n_pending)


def _require_one_encoder(store: Store, found: Sequence[tuple[Path, Header]]) -> None:
    settings, first = store.settings(), found[0][1]
    encoder_id = settings.encoder_id or first.encoder_id
    dimension = settings.dimension or first.dimension
    whose = "the base's" if settings.encoder_id else f"{found[0][0].name}'s"
    for path, header in found:
        if (header.encoder_id, header.dimension) != (encoder_id, dimension):
            raise ShardError(
                f"{path} was encoded with {header.encoder_id} ({header.dimension} numbers), "
                f"{whose} encoder is {encoder_id} ({dimension}): encode this shard with that one"
            )


def _alone(out: Path) -> AbstractContextManager[None]:
    def refuse(text: str) -> None:
        raise BusyError(f"{out} is being written: {text}")

    return locks.hold(out.with_name(f"{out.name}.lock"), refuse)


def _wanted(store: Store, header: Header, known: set[bytes]) -> NDArray[np.int64]:
    """Ids of the first chunks with the texts that are still to be encoded, in order."""
    wanted: list[int] = []
    seen, last = set(known), 0
    encoders = store.db.checked("encoders", "WHERE encoder_id = ?", [header.encoder_id])
    number = encoders[0][0] if encoders else 0
    with store.snapshot():
        while rows := store.db.rows(
            """SELECT c.id, c.text_sha, EXISTS (SELECT 1 FROM embeddings e
                WHERE e.text_sha = c.text_sha AND e.encoder = ?)
            FROM chunks c WHERE c.id > ? ORDER BY c.id LIMIT ?""",
            [number, last, BLOCK],
        ):
            last = rows[-1][0]
            for chunk_id, sha, is_encoded in rows:
                if not is_encoded and _is_in(sha, header) and sha not in seen:
                    seen.add(sha)
                    wanted.append(chunk_id)
    return np.array(wanted, np.int64)


def _is_in(sha: bytes, header: Header) -> bool:
    return int.from_bytes(sha[:8], "little") % header.n_shards == header.shard - 1


def _append(
    store: Store, encoder: Encoder, header: Header, part: Path, wanted: NDArray[np.int64]
) -> Iterator[int]:
    """Encode, batch by batch, behind what is in `part`; yields how many texts have been."""
    n_done = 0
    with part.open("ab") as file:
        if not os.fstat(file.fileno()).st_size:
            file.write(header.line)
            file.flush()
        for start in range(0, len(wanted), BATCH):
            ids = id_list(wanted[start : start + BATCH])
            where = "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
            rows = store.db.checked("chunks", where, [ids])  # those that are gone are left out
            texts = [encoded_text(row[8], row[9]) for row in rows]
            matrix = np.asarray(encoder.encode(texts), np.float32) if texts else None
            if matrix is not None:
                shard_file.append(file, header, [row[6] for row in rows], matrix)
            n_done += len(rows)
            yield n_done


def _take(store: Store, block: Records) -> tuple[int, int]:
    """Store what is new of a block: (how many were, how many no chunk needs)."""
    shas = [sha.tobytes() for sha in block["sha"]]
    is_there: dict[bytes, bool] = {}
    (number,) = store.db.rows(
        "SELECT n.id FROM encoders n JOIN settings s ON s.encoder_id = n.encoder_id"
    )[0]
    for start in range(0, len(shas), ASKED):
        some = shas[start : start + ASKED]
        marks = ", ".join("?" * len(some))
        rows = store.db.rows(
            f"""SELECT DISTINCT c.text_sha, EXISTS (SELECT 1 FROM embeddings e
                WHERE e.text_sha = c.text_sha AND e.encoder = ?)
            FROM chunks c WHERE c.text_sha IN ({marks})""",
            [number, *some],
        )
        is_there |= {sha: bool(is_encoded) for sha, is_encoded in rows}
    new = [i for i, sha in enumerate(shas) if is_there.get(sha) is False]
    if new:
        store.put_vectors([shas[i] for i in new], block["vector"][new].astype(np.float32))
    return len(new), sum(sha not in is_there for sha in shas)
