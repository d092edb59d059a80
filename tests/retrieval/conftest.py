"""Fixtures for retrieval: bases of a size that tests in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrieval.encoder import find_encoder
from retrieval.knowledge_base import KnowledgeBase
from retrieval.store import Store
from tests.retrieval.documents import document, text_of
from tests.retrieval.encoders import HashingEncoder


def _find_minilm() -> Path | None:
    try:
        return find_encoder()
    except (FileNotFoundError, ValueError):
        return None


_MINILM = _find_minilm()  # in the user's own home, before tests get homes of their own


@pytest.fixture
def encoder() -> HashingEncoder:
    """An encoder that costs nothing and counts."""
    return HashingEncoder()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, open for writing."""
    with Store.create(tmp_path / "base") as empty:
        yield empty


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    """An empty base in a folder of its own."""
    empty = KnowledgeBase.create(tmp_path / "base")
    yield empty
    empty.close()


@pytest.fixture
def full(base: KnowledgeBase, encoder: HashingEncoder) -> KnowledgeBase:
    """Ten documents of three chunks with vectors and an index."""
    base.add_documents(document(i) for i in range(10))
    base.embed(encoder)
    base.build()
    return base


@pytest.fixture(scope="session")
def milvus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Milvus on this machine, for the whole run: starting it takes a second."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (extra `milvus`)")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (extra `milvus`)")
    from milvus_lite.server_manager import server_manager_instance

    path = str(tmp_path_factory.mktemp("milvus") / "tests.db")
    yield path
    server_manager_instance.release_server(path)


@pytest.fixture
def library(tmp_path: Path) -> Callable[[int], Path]:
    """Writes a folder of n text files and gives it."""

    def write(n: int) -> Path:
        folder = tmp_path / "library"
        folder.mkdir(exist_ok=True)
        for i in range(n):
            (folder / f"{i}.txt").write_text(text_of(i), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The default encoder's folder; `make test` fetches it."""
    if _MINILM is None:
        pytest.skip("the encoder is not there: sparsechat models pull minilm")
    return _MINILM
