"""Finds: passages from Wikipedia or from the user's own documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bases import KnowledgeBaseNotFoundError
    from .damage import DamagedError
    from .embedding import EncoderMismatchError
    from .encoder import EncoderMissingError, load_encoder
    from .knowledge_base import KnowledgeBase
    from .passages import Passage
    from .reports import Info, Problem, Report
    from .search import Search
    from .writer_lock import BusyError

__all__ = [
    "BusyError",
    "DamagedError",
    "EncoderMismatchError",
    "EncoderMissingError",
    "Info",
    "KnowledgeBase",
    "KnowledgeBaseNotFoundError",
    "Passage",
    "Problem",
    "Report",
    "Search",
    "load_encoder",
]

_HOMES = {
    "BusyError": "writer_lock",
    "DamagedError": "damage",
    "EncoderMismatchError": "embedding",
    "EncoderMissingError": "encoder",
    "Info": "reports",
    "KnowledgeBase": "knowledge_base",
    "KnowledgeBaseNotFoundError": "bases",
    "Passage": "passages",
    "Problem": "reports",
    "Report": "reports",
    "Search": "search",
    "load_encoder": "encoder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
