"""Articles of a dump as documents: wikitext becomes text in child processes, order is kept."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from loguru import logger

from . import isolation
from .documents import Document, Section
from .download import Progress
from .wikipedia_dump import DumpError, Page, pages
from .wikipedia_leads import address

LICENCE = "CC BY-SA 4.0"
# a batch is worth the way to a child and back, and no more is done twice when one page fails
_BATCH_CHARS = 1 << 18
_BATCHES_AHEAD = 4  # for each process
_MAX_CHARS = 4 << 20
_TARGET = f"{__package__}.wikipedia_text:documents"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one page may cost: a few pages of Wikipedia keep any parser busy for very long."""

    max_seconds: float = 60.0
    max_memory_bytes: int = 2_000_000_000

    @property
    def ceiling(self) -> isolation.Ceiling:
        return isolation.Ceiling(self.max_seconds, self.max_memory_bytes, 64 << 20)


def dump(
    path: Path | str,
    *,
    start: str = "",
    n_processes: int | None = None,
    is_known: Callable[[str, str], bool] | None = None,
    on_progress: Progress | None = None,
    limits: Limits | None = None,
) -> Iterator[Document]:
    """The articles of a MediaWiki dump, in its order, the same ones whatever n_processes.

    start        metadata["position"] of the document to begin with; "" begins at the beginning
    n_processes  that turn wikitext into text; None: one for each core
    is_known     (address, revision) → whether to pass over it: what a base has need not be parsed
    on_progress  hears ("reading the dump", bytes read of the file, bytes in all)

    Redirects, other namespaces and pages that only list pages of a name are left out; so is, with
    a warning in the log, a page beyond `limits`. metadata: "url", "revision", "position",
    "licence". DumpError (one line, with a `position`) after what could be read of a damaged file.
    """
    limits = limits or Limits()
    report = on_progress or (lambda stage, done, total: None)
    read = pages(Path(path), start, lambda done, total: report("reading the dump", done, total))
    wanted = (p for p in read if not (is_known and is_known(_url(p), p.revision)))
    n_threads = n_processes or _cores()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="wikitext")
    try:
        for batch, texts in _in_order(pool, _batches(wanted), limits, n_threads * _BATCHES_AHEAD):
            for page, text in zip(batch, texts, strict=True):
                if document := _document(page, text):
                    yield document
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batches(wanted: Iterator[Page]) -> Iterator[list[Page] | DumpError]:
    """Pages in batches, a large one alone; the error that ends them comes last, as a value."""
    batch: list[Page] = []
    n_chars = 0
    try:
        for page in wanted:
            if batch and n_chars + len(page.wikitext) > _BATCH_CHARS:
                yield batch
                batch, n_chars = [], 0
            batch.append(page)
            n_chars += len(page.wikitext)
    except DumpError as error:
        yield batch
        yield error
    else:
        yield batch


def _in_order(
    pool: ThreadPoolExecutor,
    batches: Iterator[list[Page] | DumpError],
    limits: Limits,
    n_ahead: int,
) -> Iterator[tuple[list[Page], list[Any]]]:
    """Each batch with its texts; at most n_ahead are on their way. Raises the error at the end."""
    waiting: deque[tuple[list[Page], Future[list[Any]]]] = deque()
    failure: DumpError | None = None
    while True:
        for batch in islice(batches, n_ahead - len(waiting)):
            if isinstance(batch, DumpError):
                failure = batch
            elif batch:
                waiting.append((batch, pool.submit(_texts, batch, limits)))
        if not waiting:
            break
        batch, future = waiting.popleft()
        yield batch, future.result()
    if failure:
        raise failure


def _texts(batch: Sequence[Page], limits: Limits) -> list[Any]:
    """What the child makes of each page; None for a page that cannot be read within limits."""
    usable = [page for page in batch if len(page.wikitext) <= _MAX_CHARS]
    try:
        found = _call(usable, limits)
    except isolation.IsolationError as error:
        if error.kind == "lacking":
            raise DumpError(
                f"dumps of Wikipedia need the package {error}; "
                "python -m pip install 'sparsechat[wikipedia]' installs it"
            ) from error
        if len(batch) > 1:  # one of them is to blame
            return [text for page in batch for text in _texts([page], limits)]
        logger.warning("left out {!r}: {}", batch[0].title, error)
        return [None]
    except OSError as error:
        raise DumpError(f"no process can be started to read the dump in ({error})") from error
    texts = iter(found)
    return [next(texts) if len(page.wikitext) <= _MAX_CHARS else None for page in batch]


def _call(batch: Sequence[Page], limits: Limits) -> list[Any]:
    if not batch:
        return []
    content = json.dumps([page.wikitext for page in batch]).encode()
    arguments = {"silent": batch[0].site.silent}
    found = list(isolation.call(_TARGET, content, arguments, limits.ceiling))
    if len(found) != len(batch):
        raise isolation.IsolationError("crash", "its reader sent back nonsense")
    return found


def _document(page: Page, text: Any) -> Document | None:
    """None for a page that is empty without its markup, and for nonsense from the child."""
    try:
        if not isinstance(text, Mapping) or not text["text"]:
            return None
        sections = [Section(int(a), int(b), tuple(map(str, h))) for a, b, h in text["sections"]]
        url = _url(page)
        metadata = {
            "url": url,
            "revision": page.revision,
            "position": page.position,
            "licence": LICENCE,
            "mime": "text/x-wiki",
        }
        return Document(url, page.title, str(text["text"]), tuple(sections), metadata)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("left out {!r}: its reader sent back nonsense ({})", page.title, error)
        return None


def _url(page: Page) -> str:
    return address(page.title, page.site.url)
