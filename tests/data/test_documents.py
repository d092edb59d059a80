from __future__ import annotations

import dataclasses

import pytest

from data.documents import Document, DocumentError, Section


def test_a_document_is_a_value_that_cannot_be_changed() -> None:
    document = Document("/a.txt", "a", "text", (Section(0, 4, ("h",), 2),), {"mime": "text/plain"})
    assert document == Document(
        "/a.txt", "a", "text", (Section(0, 4, ("h",), 2),), {"mime": "text/plain"}
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.text = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "sections",
    [
        (Section(0, 3), Section(2, 4)),
        (Section(2, 4), Section(0, 1)),
        (Section(0, 6),),
        (Section(3, 2),),
        (Section(-1, 2),),
    ],
)
def test_sections_that_overlap_or_leave_the_text_are_refused(sections: tuple[Section, ...]) -> None:
    with pytest.raises(ValueError, match=r"^/a\.txt: the section .* sections stand in order$"):
        Document("/a.txt", "a", "text!", sections)


def test_a_document_without_sections_is_allowed() -> None:
    assert Document("/a.txt", "a", "text").sections == ()


def test_document_errors_are_value_errors() -> None:
    assert issubclass(DocumentError, ValueError)
