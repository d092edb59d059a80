"""Milvus: vectors on a server, or a cluster, when one machine is outgrown. Needs pymilvus.

    up to            kind       in the server's memory
    50,000           FLAT       every vector is compared: exact
    10,000,000       HNSW       vectors and the graph between them
    beyond           DISKANN    codes; vectors and graph are on the server's disk

A generation is one collection, named by base and generation, that is never changed once it is
published; milvus.json in the generation's folder says where it is. The server is http://host:19530
(with a token in SPARSECHAT_MILVUS_TOKEN) or, for tests, a path ending in .db for milvus-lite, which
one process at a time can open. Every call has an end: a server that does not answer costs seconds.
"""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from data import files
from retrieval import milvus_server as server
from retrieval.backends import Ids, IndexFileError, IndexUnavailableError, Manifest, Vectors
from retrieval.milvus_server import TOKEN, asking, connected

if TYPE_CHECKING:
    from pymilvus import MilvusClient

FILE = "milvus.json"
URL = "SPARSECHAT_MILVUS_URL"

FLAT, HNSW, DISKANN = "FLAT", "HNSW", "DISKANN"
FLAT_LIMIT, HNSW_LIMIT = 50_000, 10_000_000
BUILT: dict[str, dict[str, int]] = {FLAT: {}, HNSW: {"M": 16, "efConstruction": 200}, DISKANN: {}}
# what a search looks at, as a multiple of k and at least: ef of HNSW, search_list of DISKANN
LOOKED_AT = {HNSW: "ef", DISKANN: "search_list"}
LOOKED_AT_TIMES, LOOKED_AT_LEAST = 2, 128

SEARCH_S = 5.0
MOST = 16_384  # results of one search, Milvus's own limit
LISTED = 10_000  # ids in one filter
# so few allowed vectors are fetched and compared here: a graph may not lead to all of them
NARROW = 1_000

OnProgress = Callable[[int, int | None, str], None]  # done, total, what


def address(url: str | None = None) -> str:
    """Where Milvus is: `url`, else the variable SPARSECHAT_MILVUS_URL. ValueError."""
    url = url or os.environ.get(URL)
    if not url:
        raise ValueError(f"where is Milvus? give --backend-url http://HOST:19530, or set {URL}")
    if re.fullmatch(r"(https?|tcp|unix)://[^\s@]+", url):
        return url.rstrip("/")
    if "@" in url and "://" in url:
        raise ValueError(f"an address holds no token, as others may read it: put it into {TOKEN}")
    if "://" in url or not url.endswith(".db") or "\n" in url:
        raise ValueError(
            f"{url!r} is no address of Milvus: http://HOST:19530, or a path that ends in .db"
        )
    return os.path.abspath(os.path.expanduser(url))


def choose(count: int) -> tuple[str, str]:
    """The kind of index for `count` vectors, and why, in a line for people."""
    if count <= FLAT_LIMIT:
        return FLAT, f"up to {FLAT_LIMIT:,} vectors every one is compared: exact, and fast enough"
    if count <= HNSW_LIMIT:
        return HNSW, f"above {FLAT_LIMIT:,} vectors a graph leads to the near ones"
    return DISKANN, f"above {HNSW_LIMIT:,} vectors they stay on the server's disk"


def build(
    folder: Path,
    vectors: Iterable[tuple[Ids, Vectors]],
    count: int,
    dimension: int,
    *,
    url: str | None = None,
    kind: str | None = None,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """See retrieval.backends.Backend. IndexUnavailableError.

    url          see `address`
    kind         instead of the choice by `count`
    on_progress  hears (vectors done, vectors in all, what is being done)
    """
    url, report = address(url), on_progress or (lambda done, total, what: None)
    chosen, why = choose(count) if kind is None else (kind, "asked for")
    if chosen not in BUILT:
        raise ValueError(f"no index of kind {kind!r}; one of {', '.join(BUILT)}")
    collection = _name_for(folder)
    files.write_json(folder / FILE, {"url": url, "collection": collection})
    with connected(url) as client:
        with asking(url):
            server.create(client, collection, dimension)
        n = 0
        for n in server.inserted(client, url, collection, vectors, dimension):
            report(n, count, "sending vectors")
        with asking(url):
            server.finish(
                client, collection, chosen, BUILT[chosen], lambda done: report(done, n, "indexing")
            )
            arrived = server.count(client, collection)
        if arrived != n:
            raise IndexUnavailableError(
                f"Milvus at {url} holds {arrived:,} of {n:,} vectors; `sparsechat kb build` again"
            )
    return {
        "kind": chosen, "why": why, "count": n, "dimension": dimension, "metric": "cosine",
        "url": url, "collection": collection,
    }  # fmt: skip


def open(folder: Path, manifest: Mapping[str, Any]) -> MilvusIndex:
    """See retrieval.backends.Backend. A server that does not answer now is asked by searches."""
    try:
        count, dimension = int(manifest["count"]), int(manifest["dimension"])
        url, collection, kind = (str(manifest[key]) for key in ("url", "collection", "kind"))
        if kind not in BUILT:
            raise ValueError(f"no index of kind {kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise IndexFileError(f"{folder}: the manifest is not Milvus's ({error!r})") from error
    index = MilvusIndex(url, collection, kind, count, dimension)
    try:
        index.connect()
    except IndexUnavailableError as error:
        logger.warning("{}", error)
    return index


def discard(folder: Path) -> None:
    """Drop the collection that milvus.json in `folder` names, if there is one."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        url, collection = str(found["url"]), str(found["collection"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / FILE} names no collection") from error
    with connected(url) as client, asking(url):
        client.drop_collection(collection, timeout=server.WRITE_S)


class MilvusIndex:
    """An opened index; see retrieval.backends.Index. Results are at most MOST a query."""

    def __init__(self, url: str, collection: str, kind: str, count: int, dimension: int) -> None:
        self._url, self._collection, self._kind = url, collection, kind
        self._count, self._dimension = count, dimension
        self._client: MilvusClient | None = None
        self._is_closed = False
        self._guard = threading.Lock()

    def connect(self) -> MilvusClient:
        """Connect unless that is done, compare the collection with the manifest and have it
        loaded. IndexUnavailableError, IndexFileError."""
        with self._guard:
            if self._client is not None:
                return self._client
            with asking(self._url):
                client = server.client(self._url)
                try:
                    self._compare(client)
                    server.load(client, self._collection, server.CONNECT_S)
                except BaseException:
                    client.close()
                    raise
            self._client = client
            return client

    def _compare(self, client: MilvusClient) -> None:
        where = f"{self._collection} on {self._url}"
        if not client.has_collection(self._collection, timeout=server.CONNECT_S):
            raise IndexFileError(f"there is no collection {where}")
        stats = client.get_collection_stats(self._collection, timeout=server.CONNECT_S)
        fields = client.describe_collection(self._collection, timeout=server.CONNECT_S)["fields"]
        dimensions = [int(field["params"]["dim"]) for field in fields if "dim" in field["params"]]
        found = int(stats["row_count"]), dimensions
        if found != (self._count, [self._dimension]):
            raise IndexFileError(
                f"{where} has {found[0]:,} vectors of {dimensions} numbers, the manifest says "
                f"{self._count:,} of {self._dimension}"
            )

    def search(
        self, queries: Vectors, k: int, excluded: Ids | None = None, allowed: Ids | None = None
    ) -> tuple[Ids, Vectors]:
        """See retrieval.backends.Index."""
        if self._is_closed:
            raise ValueError("the index has been closed")
        if queries.ndim != 2 or queries.shape[1] != self._dimension:
            raise ValueError(f"queries {queries.shape} for vectors of {self._dimension} numbers")
        gone = np.empty(0, np.int64) if excluded is None else excluded
        if allowed is not None and len(allowed) <= NARROW and self._kind != FLAT:
            return self._compared(queries, k, np.setdiff1d(allowed, gone))
        filters, limit = _filters(gone, allowed), k
        if allowed is None and len(gone) > LISTED:  # too many to name: more is asked for
            filters, limit = [""], k + len(gone)
        found = [
            self._ask(queries, max(1, min(limit, MOST)), filter)
            for filter in filters
            if k > 0 and len(queries) and self._count
        ]
        return _best(found, (len(queries), k), gone)

    def _ask(self, queries: Vectors, limit: int, filter: str) -> list[list[tuple[int, float]]]:
        """For each query (id, cosine), best first."""
        params = {}
        if name := LOOKED_AT.get(self._kind):
            params[name] = min(MOST, max(LOOKED_AT_TIMES * limit, LOOKED_AT_LEAST))
        with self._connected() as client:
            answer = client.search(
                self._collection,
                list(np.ascontiguousarray(queries, np.float32)),
                filter=filter,
                limit=limit,
                search_params={"metric_type": "IP", "params": params},
                timeout=SEARCH_S,
            )
        return [[(hit["id"], hit["distance"]) for hit in hits] for hits in answer]

    def _compared(self, queries: Vectors, k: int, allowed: Ids) -> tuple[Ids, Vectors]:
        """The k nearest of few vectors, exactly."""
        rows: list[dict[str, Any]] = []
        if k > 0 and len(queries) and len(allowed):
            with self._connected() as client:
                found = client.query(
                    self._collection,
                    filter=_filters(allowed[:0], allowed)[0],
                    output_fields=["id", "vector"],
                    timeout=SEARCH_S,
                )
                rows = list(found)
        matrix = np.array([row["vector"] for row in rows], np.float32)
        cosines = queries @ matrix.reshape(len(rows), self._dimension).T
        ids = [row["id"] for row in rows]
        hits = [list(zip(ids, line, strict=True)) for line in cosines.tolist()]
        return _best([hits], (len(queries), k), allowed[:0])

    @contextmanager
    def _connected(self) -> Iterator[MilvusClient]:
        try:
            client = self.connect()
            with asking(self._url):
                yield client
        except IndexFileError as error:
            raise IndexUnavailableError(f"{error}; `sparsechat kb build` makes it anew") from error
        except IndexUnavailableError:
            self._disconnect()  # after a restart of the server it has to be loaded again
            raise

    def _disconnect(self) -> None:
        with self._guard:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def close(self) -> None:
        """See retrieval.backends.Index."""
        self._is_closed = True
        self._disconnect()


def _name_for(folder: Path) -> str:
    """A copy of a base may build the same generation: the end tells the two apart."""
    base = re.sub(r"\W", "_", folder.parent.name, flags=re.ASCII)[:100]
    number = re.sub(r"\D", "", folder.name)
    return f"sparsechat_{base}_{number}_{uuid.uuid4().hex[:12]}"


def _filters(excluded: Ids, allowed: Ids | None) -> list[str]:
    """The filters of searches whose results together are what is asked for."""
    if allowed is None:
        return [f"id not in {excluded.tolist()}" if len(excluded) else ""]
    allowed = np.setdiff1d(allowed, excluded)
    starts = range(0, len(allowed), LISTED)
    return [f"id in {allowed[start : start + LISTED].tolist()}" for start in starts]


def _best(
    found: list[list[list[tuple[int, float]]]], shape: tuple[int, int], gone: Ids
) -> tuple[Ids, Vectors]:
    """The k best of all searches for each query, as Index.search gives them."""
    ids, cosines = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    barred = set(gone.tolist())
    for row in range(shape[0] if found else 0):
        hits = [hit for answer in found for hit in answer[row] if hit[0] not in barred]
        hits = sorted(hits, key=lambda hit: (-hit[1], hit[0]))[: shape[1]]
        for column, (chunk_id, cosine) in enumerate(hits):
            ids[row, column], cosines[row, column] = chunk_id, cosine
    return ids, cosines
