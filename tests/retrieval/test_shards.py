"""Encoding by shards: n files, from any number of copies, give the index that one process gives."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from retrieval import generations, shard_file
from retrieval.embedding import EncoderMismatchError
from retrieval.knowledge_base import KnowledgeBase
from retrieval.shard_file import DIGEST_BYTES, PART, ShardError
from retrieval.writer_lock import BusyError
from tests.retrieval.documents import document
from tests.retrieval.encoders import BlockingEncoder, FailingEncoder, HashingEncoder

N_DOCUMENTS = 40
N_SHARDS = 3


@pytest.fixture(autouse=True)
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several for each shard."""
    monkeypatch.setattr("retrieval.shards.BATCH", 16)


@pytest.fixture
def texts(base: KnowledgeBase) -> KnowledgeBase:
    """A base without vectors."""
    base.add_documents(document(i) for i in range(N_DOCUMENTS))
    return base


@pytest.fixture
def shards(texts: KnowledgeBase, tmp_path: Path) -> list[Path]:
    """Its shard files, each made from a copy, as other machines would."""
    texts.close()
    paths = []
    for i in range(1, N_SHARDS + 1):
        shutil.copytree(texts.folder, tmp_path / f"machine-{i}" / "base")
        copy = KnowledgeBase.open(tmp_path / f"machine-{i}" / "base")
        paths.append(tmp_path / f"{i}.shard")
        copy.encode_shard(HashingEncoder(), (i, N_SHARDS), paths[-1])
        copy.close()
    return paths


@pytest.fixture
def copy_of(texts: KnowledgeBase, tmp_path: Path) -> Callable[[str], KnowledgeBase]:
    """A copy of the base without vectors."""

    def copy(name: str) -> KnowledgeBase:
        texts.close()
        shutil.copytree(texts.folder, tmp_path / name / "base")
        return KnowledgeBase.open(tmp_path / name / "base")

    return copy


def index_bytes(base: KnowledgeBase) -> dict[str, bytes]:
    """The files of the current generation, without the manifest, which has dates in it."""
    folder = base.folder / str(generations.current(base.folder))
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}
    assert found
    return found


def test_shards_in_any_order_give_the_index_of_one_process(
    shards: list[Path], copy_of: Callable[[str], KnowledgeBase]
) -> None:
    alone = copy_of("alone")
    n_alone = alone.embed(HashingEncoder())
    alone.build()
    wanted = index_bytes(alone)
    assert N_DOCUMENTS < n_alone == alone.show().n_indexed
    for n, order in enumerate(permutations(shards)):
        merged_base = copy_of(f"merged-{n}")
        merged = merged_base.merge(order)
        assert (merged.n_vectors, merged.n_new) == (n_alone, n_alone)
        assert (merged.n_unused, merged.n_pending) == (0, 0)
        assert index_bytes(merged_base) == wanted


def test_every_text_is_in_one_shard(texts: KnowledgeBase, tmp_path: Path) -> None:
    encoders = [HashingEncoder() for _ in range(N_SHARDS)]
    for i, encoder in enumerate(encoders, start=1):
        n = texts.encode_shard(encoder, (i, N_SHARDS), tmp_path / str(i))
        assert n == len(encoder.encoded) > 0.15 * 3 * N_DOCUMENTS
    whole = HashingEncoder()
    texts.embed(whole)
    assert sorted(text for e in encoders for text in e.encoded) == sorted(whole.encoded)


def test_merging_again_changes_nothing(texts: KnowledgeBase, shards: list[Path]) -> None:
    texts.merge(shards[:2])
    assert 0 < texts.show().n_embedded < texts.show().n_chunks
    number = texts.merge(shards) and texts.show().generation
    assert texts.show().n_embedded == texts.show().n_indexed == texts.show().n_chunks
    again = texts.merge(shards)
    assert (again.n_new, again.n_vectors) == (0, texts.show().n_chunks)
    assert texts.show().generation == number


def test_what_the_base_has_already_is_not_encoded(texts: KnowledgeBase, tmp_path: Path) -> None:
    encoder = HashingEncoder()
    texts.embed(encoder)
    n = len(encoder.encoded)
    texts.add_documents([document(1000)])
    new = sum(texts.encode_shard(encoder, (i, 2), tmp_path / str(i)) for i in (1, 2))
    assert 0 < new <= 3 and len(encoder.encoded) == n + new
    assert texts.merge([tmp_path / "1", tmp_path / "2"]).n_new == new


def test_an_encoder_that_was_killed_goes_on_where_it_was(
    texts: KnowledgeBase, shards: list[Path], tmp_path: Path
) -> None:
    wanted, out = shards[0].read_bytes(), tmp_path / "killed.shard"
    part = out.with_name(out.name + PART)
    with pytest.raises(KeyboardInterrupt):
        texts.encode_shard(FailingEncoder(30, KeyboardInterrupt()), (1, N_SHARDS), out)
    assert part.exists() and not out.exists()
    whole = part.read_bytes()
    header = shard_file._header(part)[0]
    start, size = len(header.line), header.record.itemsize
    n_stored = (len(whole) - start) // size
    assert n_stored == 16
    n_texts = (len(wanted) - start - DIGEST_BYTES) // size
    torn = {  # what a kill or a lost cache may leave -> records that are good
        whole: n_stored,
        whole[:-1]: n_stored - 1,
        whole[: start + 7 * size + 5]: 7,
        whole[: start + 7 * size] + bytes(4 * size): 7,
        whole[:start]: 0,
        whole[: start - 3]: 0,
        b"": 0,
        wanted[:-DIGEST_BYTES]: n_texts,
        wanted[:-3]: n_texts,
        wanted: n_texts,
    }
    for left, n_good in torn.items():
        out.unlink(missing_ok=True)
        part.write_bytes(left)
        encoder = HashingEncoder()
        assert texts.encode_shard(encoder, (1, N_SHARDS), out) == n_texts - n_good
        assert len(encoder.encoded) == n_texts - n_good
        assert out.read_bytes() == wanted and not part.exists()


def test_a_cancel_leaves_what_is_done_for_the_next_call(
    texts: KnowledgeBase, tmp_path: Path
) -> None:
    cancel, heard = threading.Event(), list[tuple[int, int | None, str]]()

    def on_progress(done: int, total: int | None, what: str) -> None:
        heard.append((done, total, what))
        cancel.set()

    encoder, out = HashingEncoder(), tmp_path / "x.shard"
    n = texts.encode_shard(encoder, (1, 1), out, on_progress, cancel)
    assert 0 < n < 3 * N_DOCUMENTS and not out.exists()
    assert heard == [(n, 3 * N_DOCUMENTS, "vectors")]
    texts.encode_shard(encoder, (1, 1), out)
    assert len(encoder.encoded) == 3 * N_DOCUMENTS
    assert texts.merge([out]).n_pending == 0


def test_a_whole_file_is_gone_on_with_when_documents_came(
    texts: KnowledgeBase, tmp_path: Path
) -> None:
    out, encoder = tmp_path / "x.shard", HashingEncoder()
    texts.encode_shard(encoder, (1, 1), out)
    before = out.read_bytes()
    assert texts.encode_shard(encoder, (1, 1), out) == 0
    assert out.read_bytes() == before
    texts.add_documents([document(1000)])
    assert texts.encode_shard(encoder, (1, 1), out) == 3
    assert out.read_bytes()[: len(before) - DIGEST_BYTES] == before[:-DIGEST_BYTES]
    assert texts.merge([out]).n_pending == 0


def test_a_shard_without_texts_is_a_file_too(base: KnowledgeBase, tmp_path: Path) -> None:
    out = tmp_path / "x.shard"
    assert base.encode_shard(HashingEncoder(), (1, 3), out) == 0
    assert base.merge([out]).n_vectors == 0


def test_vectors_of_deleted_texts_are_not_taken(texts: KnowledgeBase, shards: list[Path]) -> None:
    texts.delete(["/library/7.txt"])
    merged = texts.merge(shards)
    assert (merged.n_unused, merged.n_pending) == (3, 0)
    assert merged.n_new == merged.n_vectors - 3 == texts.show().n_chunks


@pytest.mark.parametrize("place", ["header", "record", "digest", "end", "start"])
def test_a_damaged_file_is_refused_and_nothing_is_taken(
    texts: KnowledgeBase, shards: list[Path], place: str
) -> None:
    raw = bytearray(shards[1].read_bytes())
    at = {"header": 30, "record": 2000, "digest": len(raw) - 5}.get(place)
    if at is not None:
        raw[at] ^= 1
    damaged = raw[:-100] if place == "end" else raw[100:] if place == "start" else raw
    shards[1].write_bytes(damaged)
    with pytest.raises(ShardError, match=r"2\.shard .*(damaged|not whole|no shard file)") as error:
        texts.merge(shards)
    assert "\n" not in str(error.value)
    assert texts.show().n_embedded == 0


def test_a_missing_file_is_named(texts: KnowledgeBase, shards: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match=r"no shard file .*4\.shard"):
        texts.merge([*shards, shards[0].with_name("4.shard")])
    assert texts.show().n_embedded == 0


def test_a_shard_of_another_encoder_is_refused(
    texts: KnowledgeBase, shards: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.shard"
    texts.encode_shard(HashingEncoder(32), (1, 3), other)
    with pytest.raises(ShardError, match=r"other\.shard was encoded with hashing-32 \(32 numbers"):
        texts.merge([*shards, other])
    assert texts.show().n_embedded == 0
    texts.merge(shards)
    with pytest.raises(ShardError, match=r"the base's encoder is hashing-64 \(64\)"):
        texts.merge([other])
    with pytest.raises(EncoderMismatchError):
        texts.encode_shard(HashingEncoder(32), (1, 3), tmp_path / "new.shard")


def test_a_name_that_another_shard_has_is_refused(texts: KnowledgeBase, shards: list[Path]) -> None:
    before = shards[0].read_bytes()
    with pytest.raises(ShardError, match="is shard 1/3 of hashing-64, not shard 2/3"):
        texts.encode_shard(HashingEncoder(), (2, 3), shards[0])
    assert shards[0].read_bytes() == before


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0), (-1, -1)])
def test_a_shard_that_there_cannot_be_is_refused(
    texts: KnowledgeBase, tmp_path: Path, shard: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"of three, the first is 1/3"):
        texts.encode_shard(HashingEncoder(), shard, tmp_path / "x")


def test_two_encoders_do_not_write_one_file(texts: KnowledgeBase, tmp_path: Path) -> None:
    slow, out = BlockingEncoder(), tmp_path / "x.shard"
    thread = threading.Thread(target=texts.encode_shard, args=(slow, (1, 2), out))
    thread.start()
    assert slow.waiting.wait(30)
    try:
        with pytest.raises(BusyError, match=r"x\.shard is being written"):
            texts.encode_shard(HashingEncoder(), (1, 2), out)
        texts.encode_shard(HashingEncoder(), (2, 2), tmp_path / "y.shard")  # another may
        texts.add_documents([document(2000)])  # and the base is not locked
    finally:
        slow.release.set()
        thread.join()
    assert shard_file.verified(out).shard == 1


def test_numbers_that_are_not_finite_are_not_written(texts: KnowledgeBase, tmp_path: Path) -> None:
    class Broken(HashingEncoder):
        def encode(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return super().encode(texts) * np.float32("nan")

    with pytest.raises(ValueError, match="finite"):
        texts.encode_shard(Broken(), (1, 1), tmp_path / "x")
    assert not (tmp_path / "x").exists()
