"""What is Faiss's own: the kind by size, its files, and files that are not what they were."""

from __future__ import annotations

from pathlib import Path

import faiss as library
import numpy as np
import pytest

from retrieval import inverted_lists
from retrieval.backends import IndexFileError, backend, faiss
from retrieval.spool import spool

D = 16


def rows_of(rng: np.random.Generator, n: int) -> np.ndarray:
    """n unit vectors."""
    rows = rng.standard_normal((n, D), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def built(folder: Path, rng: np.random.Generator, n: int = 500, **options: object) -> dict:
    """An index of n vectors in `folder`."""
    folder.mkdir(exist_ok=True)
    rows = rows_of(rng, n)
    return faiss.build(folder, [(np.arange(1, n + 1), rows)], n, D, **options)


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (0, "Flat"),
        (50_000, "Flat"),
        (50_001, "IVF,SQ8"),
        (1_500_000, "IVF,SQ8"),
        (1_500_001, "OPQ,IVF,PQ"),
        (100_000_000, "OPQ,IVF,PQ"),
    ],
)
def test_the_kind_follows_the_number_of_vectors(count: int, kind: str) -> None:
    chosen, why = faiss.choose(count, 384)
    assert chosen == kind
    assert "vectors" in why and "\n" not in why


@pytest.mark.parametrize("count", [1, 100, 50_001, 10**6, 10**9])
def test_training_is_bounded_and_every_list_gets_its_share(count: int) -> None:
    n_lists = inverted_lists.n_lists_of(count, 384)
    assert 1 <= n_lists <= max(1, count // inverted_lists.PER_LIST)
    assert n_lists * inverted_lists.PER_LIST * 384 * 4 <= inverted_lists.TRAINING_BYTES


def test_a_million_vectors_get_four_thousand_lists() -> None:
    assert inverted_lists.n_lists_of(10**6, 384) == 4000


def test_an_empty_base_has_an_index_that_finds_nothing(tmp_path: Path) -> None:
    manifest = faiss.build(tmp_path, [], 0, D)
    index = faiss.open(tmp_path, manifest)
    found, _ = index.search(np.ones((1, D), np.float32), 3)
    assert manifest["count"] == 0 and (found == -1).all()


def test_the_count_is_what_was_written_not_what_was_announced(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = rows_of(rng, 5)
    manifest = faiss.build(tmp_path, [(np.arange(5), rows)], 9, D)
    assert manifest["count"] == 5
    assert faiss.open(tmp_path, manifest).search(rows[:1], 9)[0].tolist()[0][5:] == [-1] * 4


def test_only_the_files_of_the_index_stay(tmp_path: Path, rng: np.random.Generator) -> None:
    for kind, names in {
        "Flat": {"index.faiss", "ids.npy"},
        "IVF,SQ8": {"index.faiss", "ids.npy"},
        "OPQ,IVF,PQ": {"index.faiss", "ids.npy", "vectors.f16"},
    }.items():
        built(tmp_path / kind, rng, kind=kind, n_lists=4)
        assert {path.name for path in (tmp_path / kind).iterdir()} == names


@pytest.mark.parametrize("kind", ["Flat", "IVF,SQ8", "OPQ,IVF,PQ"])
def test_the_same_vectors_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    for name in ("one", "two"):
        built(tmp_path / name, np.random.default_rng(3), kind=kind, n_lists=4)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_lists_say_how_many_are_looked_into_and_the_recall_that_gives(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = built(tmp_path, rng, 2000, kind="IVF,SQ8")
    assert manifest["n_lists"] == 50
    assert 1 <= manifest["n_probe"] <= 50
    assert manifest["recall_at_10"] >= 0.9


def test_an_unknown_kind_is_refused_with_the_known_ones(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=r"no index of kind 'HNSW'; one of Flat, IVF,SQ8"):
        built(tmp_path, rng, kind="HNSW")


def test_progress_is_told(tmp_path: Path, rng: np.random.Generator) -> None:
    told: list[tuple[int, int | None, str]] = []
    built(tmp_path, rng, kind="IVF,SQ8", n_lists=4, on_progress=lambda *a: told.append(a))
    assert told[0] == (500, 500, "reading vectors")
    assert {what for _, _, what in told} >= {"training 4 lists", "indexing", "measuring recall"}


def test_another_index_type_under_the_name_is_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = built(tmp_path, rng)
    other = library.IndexFlatIP(D)
    other.add(rows_of(rng, 500))
    library.write_index(other, str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFileError, match=r"index\.faiss begins with b'IxFI'"):
        faiss.open(tmp_path, manifest)


def test_another_metric_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = built(tmp_path, rng)
    other = library.IndexScalarQuantizer(D, library.ScalarQuantizer.QT_fp16, library.METRIC_L2)
    other.add(rows_of(rng, 500))
    library.write_index(other, str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFileError, match="metric"):
        faiss.open(tmp_path, manifest)


@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "vectors.f16"])
def test_a_file_cut_short_is_one_line(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    manifest = built(tmp_path, rng, kind="OPQ,IVF,PQ", n_lists=4)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IndexFileError, match=name.replace(".", r"\.")) as error:
        faiss.open(tmp_path, manifest)
    assert "\n" not in str(error.value)


def test_pickled_ids_are_not_read(tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = built(tmp_path, rng)
    np.save(tmp_path / "ids.npy", np.array([object()] * 500), allow_pickle=True)
    with pytest.raises(IndexFileError, match=r"ids\.npy"):
        faiss.open(tmp_path, manifest)


def test_faiss_is_the_default_backend() -> None:
    assert backend("faiss") is faiss


def test_a_spool_gives_back_what_streamed_by(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rows_of(rng, 10).astype(np.float16).astype(np.float32)
    ids, matrix = spool(
        [(np.arange(4), rows[:4]), (np.empty(0, np.int64), rows[:0]), (np.arange(4, 10), rows[4:])],
        tmp_path / "v",
        D,
    )
    np.testing.assert_array_equal(ids, np.arange(10))
    np.testing.assert_array_equal(matrix.astype(np.float32), rows)


def test_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) where \(2, 16\) is expected"):
        spool([(np.arange(2), np.zeros((2, 3), np.float32))], tmp_path / "v", D)
