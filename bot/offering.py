"""The default base when it is not there yet: offered to whoever can be asked, named to others."""

from __future__ import annotations

import sys

from bot import render, terminal
from bot.knowledge import DEFAULT_BASE, base_names, open_base

_OFFER = (
    f"There is no knowledge base {DEFAULT_BASE} yet. Make it now: the beginnings of 10,033 "
    "articles, 5 MB to fetch, searchable within a minute? [Y/n] "
)


def ensure_base(name: str) -> None:
    """Make the default base if it is missing and its user agrees; KeyboardInterrupt on Ctrl-C.

    KnowledgeBaseNotFoundError when the base is not there afterwards.
    """
    if name != DEFAULT_BASE or name in base_names():
        open_base(name).close()
        return
    from retrieval import KnowledgeBaseNotFoundError

    asks = terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stderr)
    if not asks or not _agreed():
        raise KnowledgeBaseNotFoundError(
            f"there is no knowledge base {name} yet; `sparsechat kb create {name}` makes it"
        )
    from bot.kb.filling import fill, say_report, wikipedia_leads
    from bot.kb.progress import Progress
    from bot.kb.work import working
    from retrieval import KnowledgeBase

    given, progress = wikipedia_leads(), Progress(name)
    assert given.fetch is not None
    try:
        given.fetch(progress)
    finally:
        progress.close()
    base = KnowledgeBase.create(name)
    try:
        with working(name) as work:
            say_report(work, fill(base, given, work))
    finally:
        base.close()
    if work.is_cancelled:
        render.err(f"interrupted; `sparsechat kb create {name}` goes on from there")
        raise KeyboardInterrupt


def _agreed() -> bool:
    render.ask_for_line(_OFFER)
    return sys.stdin.readline().strip().casefold() in ("", "y", "yes")
