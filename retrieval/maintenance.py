"""Looking after a base: what is wrong with it, repairing, making it compact, describing it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from . import embedding, generations, manifest, salvage, sources
from .damage import MARK, DamagedError
from .manifest import Manifest
from .reports import Info, Problem
from .store import Store


def database_problem(folder: Path, repair: bool) -> Problem | None:
    """What is wrong with the database, every page and every row of it read."""
    try:
        with Store.open(folder) as store:
            store.db.verify(always=True)
        return None
    except DamagedError as error:
        damage = error
    if not repair:
        way_out = (
            "`--repair` sets the file aside, takes over every document that is whole and has the "
            "files of the others read again by the next `sparsechat kb sync`"
        )
        return Problem(damage.path.name, damage.what, way_out)
    done = salvage.salvage(folder)
    lost = "an unknown number" if done.n_lost is None else f"{done.n_lost:,}"
    kept = ", ".join(path.name for path in done.set_aside)
    way_out = (
        f"{done.n_documents:,} documents were taken over, {lost} lost; run `sparsechat kb sync "
        f"{folder.name}`; documents that came from no file have to be added again; {kept} "
        "may then be deleted"
    )
    return Problem(damage.path.name, damage.what, way_out, repaired=True)


def repaired(problem: Problem) -> Problem:
    """The same, after the index was made anew."""
    if problem.repaired:
        return problem
    return replace(problem, way_out="it was set aside and made anew", repaired=True)


def index_problem(folder: Path) -> Problem | None:
    """What is wrong with the current generation, every file of it hashed."""
    try:
        generation = generations.open_current(folder)
        if generation is None:
            return None
        try:
            generations.verify(generation.folder, generation.manifest, always=True)
        finally:
            generation.close()
        return None
    except DamagedError as error:
        way_out = "`--repair` or `sparsechat kb build` sets it aside and makes it anew"
        return Problem(error.path.name, error.what, way_out)


def compact(store: Store) -> None:
    """Drop vectors that no chunk needs, merge the full-text index and give back free pages."""
    db = store.db
    with db.transaction():
        db.execute(
            """DELETE FROM embeddings WHERE NOT EXISTS (
                SELECT 1 FROM chunks c WHERE c.text_sha = embeddings.text_sha)
            OR encoder NOT IN (SELECT n.id FROM encoders n, settings s
                WHERE n.encoder_id = s.encoder_id)"""
        )
        db.execute("INSERT INTO fts (fts) VALUES ('optimize')")
    try:
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        raise OSError(f"{db.path} cannot be compacted: {error}") from error
    generations.sweep(db.path.parent)


def info(store: Store) -> Info:
    """What `kb show` prints."""
    folder = store.db.path.parent
    with store.snapshot() as state:
        settings = store.settings()
        counts = sources.documents_by_file(store.db)
        listed = _sources(store, dict(counts))
    current = _current(folder)
    if current and not embedding.fits(current[1], settings):
        current = None
    index_files = folder / current[0] if current else None
    return Info(
        name=folder.name,
        folder=folder,
        created=settings.created,
        n_documents=state.n_documents,
        n_chunks=state.n_chunks,
        n_embedded=state.n_chunks - state.n_pending,
        commit=state.commit,
        encoder=settings.encoder,
        encoder_id=settings.encoder_id,
        dimension=settings.dimension,
        chunker=settings.chunker,
        n_sentences=settings.n_sentences,
        backend=settings.backend,
        generation=int(current[0].rpartition("-")[2]) if current else None,
        n_indexed=current[1].count if current else 0,
        kind=str(current[1].index.get("kind", "")) if current else None,
        why=str(current[1].index.get("why", "")) if current else None,
        n_bytes=_size(folder) if folder.is_dir() else 0,
        n_index_bytes=_size(index_files) if index_files else 0,
        sources=listed,
    )


def _sources(store: Store, counts: dict[int | None, int]) -> tuple[tuple[str, int], ...]:
    by_root: dict[int, int] = {}
    for file in sources.known_files(store.db).values():
        by_root[file.root_id] = by_root.get(file.root_id, 0) + counts.get(file.file_id, 0)
    listed = [
        (
            " ".join([str(root.path), *root.globs, *(f"without {e}" for e in root.exclude)]),
            by_root.get(root.root_id, 0),
        )
        for root in sources.roots(store.db)
    ]
    if None in counts:
        listed.append(("added directly", counts[None]))
    return tuple(listed)


def _current(folder: Path) -> tuple[str, Manifest] | None:
    try:
        name = generations.current(folder)
        return (name, manifest.read(folder / name)) if name else None
    except (DamagedError, manifest.ManifestError, FileNotFoundError):
        return None


def _size(folder: Path) -> int:
    return sum(
        p.stat().st_size for p in folder.rglob("*") if p.is_file() and MARK not in p.as_posix()
    )
