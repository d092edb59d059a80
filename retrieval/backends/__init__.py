"""Vector indexes: one module each, named in the manifest of what it built.

A backend is a module of this package with the functions of `Backend`. Its files are derived from
the vectors in the store and are never changed once they are published (retrieval/generations.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Manifest = dict[str, Any]

BACKENDS = sorted(module.name for module in iter_modules(__path__))
DEFAULT = "faiss"


class IndexFileError(ValueError):
    """A file of an index is not what its manifest says; one line that names the file."""


class IndexUnavailableError(ConnectionError):
    """The index is on a server that cannot be used now; one line that names it. Nothing is wrong
    with the base: searches go on with words."""


class Index(Protocol):
    """An opened index. Safe for searches from several threads at once."""

    def search(
        self,
        queries: Vectors,
        k: int,
        excluded: Ids | None = None,
        allowed: Ids | None = None,
    ) -> tuple[Ids, Vectors]:
        """The k nearest vectors of each query, best first.

        queries   (q, d) float32, normalised
        excluded  ids that must not come back (deleted since the index was built)
        allowed   the only ids that may come back; None = all, empty = none
        Returns ids (q, k) int64 and cosines (q, k) float32; id -1 and cosine -inf where there are
        fewer than k. Approximate indexes give the cosines of the coded vectors.
        IndexUnavailableError, after seconds at most, when a server does not answer.
        """
        ...

    def close(self) -> None:
        """Give back memory and files; searching afterwards is a ValueError."""
        ...


class Backend(Protocol):
    """What a module in this folder offers. One whose vectors are on a server has two functions
    more: `address(url)`, which checks where that is and fills in the default, and
    `discard(folder)`, which deletes what was built there; it writes `<its name>.json` into the
    folder before it makes anything, and its `build` takes the option "url"."""

    def build(
        self,
        folder: Path,
        vectors: Iterable[tuple[Ids, Vectors]],
        count: int,
        dimension: int,
        **options: Any,
    ) -> Manifest:
        """Write an index of `vectors` into the existing, empty `folder`.

        vectors  batches of (ids (n,), float32 (n, dimension) normalised), ids unique; read ONCE
                 and never all in memory; their total may differ from `count`, which is a hint
        options  "kind" overrides the choice by size; what else there is, the backend documents
        Returns what the manifest keeps and `open` needs: "kind", "why" (one line for people),
        "count" (vectors written), "dimension", "metric" and what the backend adds.
        """
        ...

    def open(self, folder: Path, manifest: Mapping[str, Any]) -> Index:
        """The index in `folder`, whose files have been verified against the manifest's hashes.

        IndexFileError when it is not the index that the manifest describes.
        """
        ...


def backend(spec: str) -> Backend:
    """retrieval/backends/<first word of spec>.py; ValueError when there is none."""
    name = spec.partition(" ")[0]
    if name not in BACKENDS:
        raise ValueError(f"no vector backend {name!r}; this build has {', '.join(BACKENDS)}")
    return cast(Backend, import_module(f"{__name__}.{name}"))


def spec_of(name: str, url: str | None = None) -> str:
    """What settings and manifests keep: the name and, where there is a server, its address after
    a space. ValueError for an address that is none, lacks or is not needed."""
    address = getattr(backend(name), "address", None)
    if address is not None:
        return f"{name} {address(url)}"
    if url:
        raise ValueError(f"the vector backend {name} has no server: leave out the address {url!r}")
    return name


def options_of(spec: str) -> dict[str, Any]:
    """What `build` of backend(spec) is given besides the vectors."""
    url = spec.partition(" ")[2]
    return {"url": url} if url else {}


def discard(folder: Path) -> None:
    """Delete what was built elsewhere for an index in `folder`, finished or not.
    IndexUnavailableError: not now."""
    for name in BACKENDS:
        if (folder / f"{name}.json").is_file():
            import_module(f"{__name__}.{name}").discard(folder)
