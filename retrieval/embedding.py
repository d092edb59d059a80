"""From texts to vectors, and from vectors to a published index. Both resume where they ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import generations
from .damage import DamagedError
from .ingest import Cancel, OnProgress
from .manifest import Manifest
from .rows import Settings, State
from .store import Store
from .texts import Ids
from .vectors import Matrix

if TYPE_CHECKING:
    from .encoder import Encoder

# texts of one commit: about a second of work, after which whoever waits for the cores can have
# them, and enough for an encoder to sort them by length
BATCH = 128


class EncoderMismatchError(ValueError):
    """Vectors of this encoder cannot be compared with the base's; the message has the command."""


class _Cancelled(Exception):
    """The build was asked to end."""


def is_same(settings: Settings, encoder: Encoder | None) -> bool:
    """Whether `encoder` made the base's vectors, or there are none yet."""
    return encoder is None or settings.encoder_id in (None, encoder.encoder_id)


def require_same(name: str, settings: Settings, encoder: Encoder) -> None:
    """EncoderMismatchError unless `encoder` made the base's vectors, or there are none yet."""
    if is_same(settings, encoder):
        return
    raise EncoderMismatchError(
        f"the vectors of {name} were made with {settings.encoder_id}, not {encoder.encoder_id}; "
        f"`sparsechat kb embed {name} --encoder NAME_OR_PATH` makes them anew"
    )


def embed(
    store: Store,
    encoder: Encoder,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
    name: str | None = None,
) -> int:
    """Vectors for all chunks that have none; how many texts were encoded. After a cancel, what is
    done is stored."""
    store.use_encoder(encoder.encoder_id, encoder.dimension, name)
    n_encoded = 0
    while not (cancel and cancel.is_set()) and (batch := store.unembedded(BATCH)):
        matrix = np.asarray(encoder.encode([text for _, text in batch]), np.float32)
        store.put_vectors([sha for sha, _ in batch], matrix)
        n_encoded += len(batch)
        state = store.state()
        if on_progress:
            on_progress(state.n_chunks - state.n_pending, state.n_chunks, "vectors")
    return n_encoded


def fits(manifest: Manifest, settings: Settings) -> bool:
    """Whether the index belongs to this database and its encoder."""
    wanted = settings.base_id, settings.encoder_id
    return (manifest.base_id, manifest.encoder_id) == wanted


def build(store: Store, on_progress: OnProgress | None = None, cancel: Cancel | None = None) -> int:
    """Publish a generation over all chunks below the first one without a vector. The number of
    the current generation afterwards, 0 when there is none."""
    folder, settings, state = store.db.path.parent, store.settings(), store.state()
    present = _current(folder)
    if settings.encoder_id is None or not state.n_chunks:
        return 0
    if (
        present
        and fits(present[1], settings)
        and not _is_behind(store, settings, state, present[1])
    ):
        return present[0]
    n = store.db.rows("SELECT count(*) FROM chunks WHERE id <= ?", [state.complete_to])[0][0]
    if n == 0:
        return present[0] if present else 0
    from .backends import backend, options_of

    def write(draft: Path) -> dict[str, Any]:
        vectors = _told(store.vectors_after(0, state.complete_to), n, on_progress, cancel)
        options = options_of(settings.backend)
        return backend(settings.backend).build(
            draft, vectors, n, settings.dimension or 0, **options
        )

    facts = {
        "base_id": settings.base_id,
        "encoder_id": settings.encoder_id,
        "backend": settings.backend,
        "last_chunk_id": state.complete_to,
        "commit": state.commit,
        "chunker": settings.chunker,
    }
    try:
        generations.publish(folder, write, facts)
    except _Cancelled:
        return present[0] if present else 0
    with store.db.transaction():  # the new one holds none of the deleted chunks
        store.db.execute("DELETE FROM tombstones")
    return (_current(folder) or (0, None))[0]


def _current(folder: Path) -> tuple[int, Manifest] | None:
    """The current generation, verified; a damaged one is set aside."""
    try:
        generation = generations.open_current(folder)
    except DamagedError:
        generations.set_current_aside(folder)
        return None
    if generation is None:
        return None
    try:
        return generation.number, generation.manifest
    finally:
        generation.close()


def _is_behind(store: Store, settings: Settings, state: State, manifest: Manifest) -> bool:
    built = manifest.backend, manifest.last_chunk_id
    return built != (settings.backend, state.complete_to) or len(store.deleted()) > 0


def _told(
    blocks: Iterator[tuple[Ids, Matrix]],
    total: int,
    on_progress: OnProgress | None,
    cancel: Cancel | None,
) -> Iterator[tuple[Ids, Matrix]]:
    done = 0
    for ids, matrix in blocks:
        if cancel and cancel.is_set():
            raise _Cancelled
        if on_progress:
            on_progress(done, total, "index")
        yield ids, matrix
        done += len(ids)
