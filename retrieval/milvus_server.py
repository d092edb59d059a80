"""What is asked of a Milvus server. Every call has an end, and failing is one line of text."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .backends import Ids, IndexFileError, IndexUnavailableError, Vectors
from .spool import check

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "SPARSECHAT_MILVUS_TOKEN"

CONNECT_S, WRITE_S = 3.0, 60.0
STALLED_S = 600.0  # what gets no further for so long on the server is given up
POLL_S = 0.02, 2.0  # at first, and at most
# a server that took so long to fail is not asked again for so long
SLOW_S, RETRY_S = 0.1, 5.0
INSERTED_BYTES = 4 << 20  # far below what one message may hold

_down: dict[str, tuple[float, str]] = {}  # url -> until when, what is said


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Whatever goes wrong inside, other than what a collection holds, is told as
    IndexUnavailableError; after a failure that took long, at once for some seconds."""
    began, (until, said) = time.monotonic(), _down.get(url, (0.0, ""))
    if began < until:
        raise IndexUnavailableError(said)
    try:
        yield
    except (IndexFileError, IndexUnavailableError):
        raise
    except ImportError as error:
        raise IndexUnavailableError(
            f"the index is on Milvus, and {error.name or 'pymilvus'} is not installed; "
            "`pip install 'sparsechat[milvus]'` brings it"
        ) from error
    except Exception as error:  # pymilvus and gRPC have many kinds
        lines = str(getattr(error, "message", "") or error).strip().splitlines()
        said = f"Milvus at {url} cannot be used: {lines[0] if lines else type(error).__name__}"
        if (now := time.monotonic()) - began > SLOW_S:
            _down[url] = now + RETRY_S, said
        raise IndexUnavailableError(said) from error
    _down.pop(url, None)


@contextmanager
def connected(url: str) -> Iterator[MilvusClient]:
    """A client for the block; what is asked of it there stands in `asking`, too."""
    with asking(url):
        opened = client(url)
    try:
        yield opened
    finally:
        opened.close()


def client(url: str) -> MilvusClient:
    """A connection; the token is SPARSECHAT_MILVUS_TOKEN. Call it inside `asking`."""
    from pymilvus import MilvusClient

    # they would print tracebacks of what `asking` says in a line
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL + 1)
    connect = partial(MilvusClient, url, token=os.environ.get(TOKEN, ""), timeout=CONNECT_S)
    began = time.monotonic()
    try:
        return connect()
    except Exception:
        # a busy server gives a connection up that asked too often; the next one is answered
        if time.monotonic() - began > CONNECT_S / 2:
            raise
        return connect()


def create(client: MilvusClient, collection: str, dimension: int) -> None:
    """An empty collection of `id` and `vector`."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    client.create_collection(collection, schema=schema, timeout=WRITE_S)


def inserted(
    client: MilvusClient,
    url: str,
    collection: str,
    vectors: Iterable[tuple[Ids, Vectors]],
    dimension: int,
) -> Iterator[int]:
    """Send all vectors; yields how many have been. ValueError for what no index takes. Not to be
    called inside `asking`: what `vectors` raises is not the server's."""
    n, last, step = 0, -1, max(1, INSERTED_BYTES // (4 * dimension + 8))
    for ids, rows in vectors:
        check(ids, rows, last, dimension)
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            pairs = zip(ids[part].tolist(), np.asarray(rows[part], np.float32), strict=True)
            data = [{"id": chunk_id, "vector": row} for chunk_id, row in pairs]
            with asking(url):
                client.insert(collection, data, timeout=WRITE_S)
            n += len(data)
        if len(ids):
            last = int(ids[-1])
            yield n


def finish(
    client: MilvusClient,
    collection: str,
    kind: str,
    params: Mapping[str, int],
    on_count: Callable[[int], None],
) -> None:
    """Index what has been sent, and load it. on_count hears how many vectors are indexed."""
    client.flush(collection, timeout=STALLED_S)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=kind, metric_type="IP", params=dict(params))
    client.create_index(collection, index, sync=False, timeout=WRITE_S)

    def step() -> int | None:
        about = client.describe_index(collection, "vector", timeout=WRITE_S) or {}
        if about.get("state") == "Failed":
            raise IndexUnavailableError(
                f"Milvus could not index {collection}: {about.get('index_state_fail_reason', '')}"
            )
        on_count(int(about.get("indexed_rows", 0)))
        return None if about.get("state") == "Finished" else int(about.get("indexed_rows", 0))

    _wait(step, STALLED_S, f"indexing {collection}")
    load(client, collection, STALLED_S)


def load(client: MilvusClient, collection: str, stalled_s: float) -> None:
    """Have the server hold the collection ready; nothing when it does."""

    def step() -> int | None:
        state = client.get_load_state(collection, timeout=CONNECT_S)
        return None if state["state"].name == "Loaded" else int(state.get("progress") or 0)

    if step() is not None:
        client.load_collection(collection, _async=True, timeout=CONNECT_S)
        _wait(step, stalled_s, f"loading {collection}")


def count(client: MilvusClient, collection: str) -> int:
    """How many vectors a loaded collection holds, counted by the server."""
    found = client.query(
        collection,
        filter="",
        output_fields=["count(*)"],
        consistency_level="Strong",
        timeout=WRITE_S,
    )
    return int(found[0]["count(*)"])


def _wait(step: Callable[[], int | None], stalled_s: float, what: str) -> None:
    """Until step() is None; TimeoutError when it has given the same number for too long."""
    pause, before, since = POLL_S[0], -1, time.monotonic()
    while (now := step()) is not None:
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > stalled_s:
            raise TimeoutError(f"{what} has not got further than {now:,} for {stalled_s:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, POLL_S[1])
