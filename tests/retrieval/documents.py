"""Documents whose words say which they are, as many as a test wants."""

from __future__ import annotations

from collections.abc import Sequence

from data.documents import Document, Section

WORDS = "apple river stone cloud music train paper glass horse light winter garden".split()


def sentence(i: int) -> str:
    """A sentence that no other number gives, of the length of usual ones; "item<i>" is in it."""
    n = len(WORDS)
    first, second = WORDS[i % n], WORDS[i // n % n]
    return (
        f"Number {i} of the collection, which is about the {first}, tells its readers more than "
        f"once how the {second} came to be, and item{i} is what it ends with, as all of them do."
    )


def text_of(number: int, n_paragraphs: int = 3) -> str:
    """Paragraphs of three sentences: one chunk each."""
    first = number * n_paragraphs * 3
    paragraphs = [
        " ".join(sentence(first + 3 * p + s) for s in range(3)) for p in range(n_paragraphs)
    ]
    return "\n\n".join(paragraphs)


def document(number: int, n_paragraphs: int = 3) -> Document:
    """Document `number`."""
    uri, text = f"/library/{number}.txt", text_of(number, n_paragraphs)
    return Document(
        uri, f"Book {number}", text, metadata={"lines": "yes", "shelf": f"{number % 3}"}
    )


def in_sections(uri: str, title: str, paragraphs: Sequence[str]) -> Document:
    """A document whose paragraphs are sections, so that no chunk has text of two."""
    text, sections = "", []
    for paragraph in paragraphs:
        sections.append(Section(len(text), len(text) + len(paragraph)))
        text += paragraph + "\n\n"
    return Document(uri, title, text, tuple(sections))
