"""What every vector backend must do. A further backend adds itself to CASES."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.backends import BACKENDS, Ids, Index, IndexFileError, Manifest, Vectors, backend

D = 32
# backend, options of build; exact: its cosines and ids are those of comparing every vector
CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("faiss", {}, True),
    ("faiss", {"kind": "IVF,SQ8", "n_lists": 8}, False),
    ("faiss", {"kind": "OPQ,IVF,PQ", "n_lists": 4}, False),
    ("milvus", {}, True),
    ("milvus", {"kind": "HNSW"}, False),
]
Build = Callable[..., tuple[Index, Manifest]]


def vectors_of(rng: np.random.Generator, n: int) -> tuple[Ids, Vectors]:
    """n vectors around 20 centres, as float16 holds them, with ids that have gaps."""
    centres = rng.standard_normal((20, D))
    rows = centres[rng.integers(20, size=n)] + 0.7 * rng.standard_normal((n, D))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = np.cumsum(rng.integers(1, 5, n))
    return ids.astype(np.int64), rows.astype(np.float16).astype(np.float32)


def batches(ids: Ids, rows: Vectors, size: int = 300) -> Iterator[tuple[Ids, Vectors]]:
    """As the store gives them."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size], rows[start : start + size]


def exact(ids: Ids, rows: Vectors, queries: Vectors, k: int) -> tuple[Ids, Vectors]:
    """The slow twin."""
    cosines = queries @ rows.T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return ids[best], np.take_along_axis(cosines, best, 1)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].get('kind', 'default')}")
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], bool]:
    name, options, is_exact = request.param
    if name == "milvus":
        options = {**options, "url": request.getfixturevalue("milvus_url")}
    return name, options, is_exact


@pytest.fixture
def build(case: tuple[str, dict[str, Any], bool], tmp_path: Path) -> Iterator[Build]:
    """Builds an index of the case's kind in a folder of its own and opens it."""
    opened: list[Index] = []

    def make(ids: Ids, rows: Vectors) -> tuple[Index, Manifest]:
        name, options, _ = case
        folder = tmp_path / f"index-{len(opened)}"
        folder.mkdir()
        manifest = backend(name).build(folder, batches(ids, rows), len(ids), D, **options)
        opened.append(backend(name).open(folder, manifest))
        return opened[-1], manifest

    yield make
    for index in opened:
        index.close()


def test_every_module_is_a_backend_and_others_are_named() -> None:
    assert "faiss" in BACKENDS
    with pytest.raises(ValueError, match=r"no vector backend 'fais'; this build has .*faiss"):
        backend("fais")


def test_nearest_vectors_come_back_best_first(
    build: Build, case: tuple[str, dict[str, Any], bool], rng: np.random.Generator
) -> None:
    ids, rows = vectors_of(rng, 1500)
    index, manifest = build(ids, rows)
    assert (manifest["count"], manifest["dimension"], manifest["metric"]) == (1500, D, "cosine")
    assert manifest["kind"] and manifest["why"]
    queries = rows[:40]
    found, cosines = index.search(queries, 10)
    assert (found.shape, found.dtype) == ((40, 10), np.int64)
    assert (cosines.shape, cosines.dtype) == ((40, 10), np.float32)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    wanted, near = exact(ids, rows, queries, 10)
    recall = np.mean([len(set(f) & set(w)) for f, w in zip(found, wanted, strict=True)]) / 10
    if case[2]:
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(cosines, near, atol=1e-5)
    assert recall > 0.9
    assert (found[:, 0] == ids[:40]).all()
    by_id = dict(zip(ids.tolist(), rows, strict=True))
    own = [
        [float(by_id[i] @ q) for i in line] for line, q in zip(found.tolist(), queries, strict=True)
    ]
    np.testing.assert_allclose(cosines, own, atol=0.02)


def test_excluded_ids_never_come_back(build: Build, rng: np.random.Generator) -> None:
    ids, rows = vectors_of(rng, 600)
    index, _ = build(ids, rows)
    best = index.search(rows[:5], 8)[0]
    gone = np.unique(best[:, :4])
    found = index.search(rows[:5], 8, excluded=np.append(gone, [10**9, -5]))[0]
    assert not np.isin(found, gone).any()
    assert (found >= 0).all()


def test_only_allowed_ids_come_back_all_of_them(build: Build, rng: np.random.Generator) -> None:
    ids, rows = vectors_of(rng, 600)
    index, _ = build(ids, rows)
    allowed = np.sort(rng.choice(ids, 12, replace=False))
    found, cosines = index.search(rows[:3], 20, allowed=np.append(allowed, 10**9))
    for line, near in zip(found, cosines, strict=True):
        assert set(line[:12]) == set(allowed)
        assert (line[12:] == -1).all() and np.isneginf(near[12:]).all()
    both = index.search(rows[:3], 20, excluded=allowed[:5], allowed=allowed)[0]
    assert set(both[0]) == {*allowed[5:], -1}


def test_nothing_allowed_is_nothing_found(build: Build, rng: np.random.Generator) -> None:
    ids, rows = vectors_of(rng, 300)
    index, _ = build(ids, rows)
    for barred in ({"allowed": ids[:0]}, {"excluded": ids}, {"allowed": np.array([10**9])}):
        found, cosines = index.search(rows[:2], 3, **barred)
        assert (found == -1).all() and np.isneginf(cosines).all()


def test_more_than_there_is_ends_with_minus_one(build: Build, rng: np.random.Generator) -> None:
    ids, rows = vectors_of(rng, 300)
    index, _ = build(ids, rows)
    found, cosines = index.search(rows[:2], 310)
    n_found = (found >= 0).sum(axis=1)
    assert (n_found <= 300).all()
    assert np.isneginf(cosines[found < 0]).all() and np.isfinite(cosines[found >= 0]).all()


def test_the_same_vectors_give_the_same_answers_twice(
    build: Build, rng: np.random.Generator
) -> None:
    ids, rows = vectors_of(rng, 400)
    answers = [build(ids, rows)[0].search(rows[:20], 5) for _ in range(2)]
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_search_at_once(build: Build, rng: np.random.Generator) -> None:
    ids, rows = vectors_of(rng, 400)
    index, _ = build(ids, rows)
    wanted = index.search(rows[:1], 5, excluded=ids[1:2])[0]
    wrong: list[Ids] = []

    def search() -> None:
        for _ in range(30):
            found = index.search(rows[:1], 5, excluded=ids[1:2])[0]
            if not np.array_equal(found, wanted):
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_index_says_so(build: Build, rng: np.random.Generator) -> None:
    ids, rows = vectors_of(rng, 300)
    index, _ = build(ids, rows)
    index.close()
    with pytest.raises(ValueError, match="closed"):
        index.search(rows[:1], 3)


def test_a_manifest_of_something_else_is_refused(
    case: tuple[str, dict[str, Any], bool], tmp_path: Path, rng: np.random.Generator
) -> None:
    name, options, _ = case
    ids, rows = vectors_of(rng, 300)
    manifest = backend(name).build(tmp_path, batches(ids, rows), 300, D, **options)
    for change in ({"count": 299}, {"dimension": 16}, {"kind": "no such kind"}):
        with pytest.raises(IndexFileError):
            backend(name).open(tmp_path, manifest | change)
    with pytest.raises(IndexFileError):
        backend(name).open(tmp_path, {})


def test_vectors_that_cannot_be_searched_are_refused(
    case: tuple[str, dict[str, Any], bool], tmp_path: Path, rng: np.random.Generator
) -> None:
    name, options, _ = case
    ids, rows = vectors_of(rng, 300)
    with pytest.raises(ValueError, match="grow"):
        backend(name).build(tmp_path, batches(ids[::-1], rows), 300, D, **options)
    rows[7, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        backend(name).build(tmp_path, batches(ids, rows), 300, D, **options)
