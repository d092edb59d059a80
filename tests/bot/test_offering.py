from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.offering import ensure_base
from data.documents import Document
from retrieval import KnowledgeBase, KnowledgeBaseNotFoundError


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> None:
    def two() -> Iterator[Document]:
        for title in ("Zurich", "Bern"):
            yield Document(f"https://e.org/{title}", title, f"{title} is a city.")

    monkeypatch.setattr("data.wikipedia_leads.leads", two)
    monkeypatch.setattr("data.wikipedia_leads.fetch", lambda on_progress: Path("leads.json"))


def asked(monkeypatch: pytest.MonkeyPatch, reply: str | None) -> None:
    """Somebody types `reply`; None: nobody is there."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(reply or ""))
    monkeypatch.setattr("bot.terminal.is_terminal", lambda stream: reply is not None)


@pytest.mark.parametrize("reply", ["\n", "y\n", "YES\n"])
def test_who_agrees_gets_a_base_that_can_be_searched(
    home: Path, leads: None, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    asked(monkeypatch, reply)
    ensure_base("wikipedia")
    info = KnowledgeBase.open("wikipedia").show()
    assert (info.n_documents, info.n_embedded) == (2, 0)
    asked(monkeypatch, None)
    ensure_base("wikipedia")  # it is there now


@pytest.mark.parametrize("reply", [None, "n\n", "no\n"])
def test_who_does_not_or_cannot_gets_the_command(
    home: Path, leads: None, monkeypatch: pytest.MonkeyPatch, reply: str | None
) -> None:
    asked(monkeypatch, reply)
    with pytest.raises(KnowledgeBaseNotFoundError, match="`sparsechat kb create wikipedia`"):
        ensure_base("wikipedia")
    assert KnowledgeBase.names() == []


def test_other_names_are_not_offered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, "y\n")
    with pytest.raises(KnowledgeBaseNotFoundError, match="'docs'"):
        ensure_base("docs")
    assert KnowledgeBase.names() == []
