from __future__ import annotations

import itertools
import random

import pytest

from data.chunks import MAX_BYTES, Chunk, chunks_of
from data.documents import Document, Section
from data.sentences import sentences

# of a usual length, so that three make a chunk
SENTENCE = "This is sentence number {} of a text that was written for a test of windows."


def prose(*sizes: int) -> str:
    """Paragraphs of so many sentences each."""
    numbers = iter(range(10_000))
    return "\n\n".join(
        " ".join(SENTENCE.format(next(numbers)) for _ in range(size)) for size in sizes
    )


def document(text: str, sections: tuple[Section, ...] = (), **metadata: str) -> Document:
    return Document("/test.txt", "A title", text, sections, metadata)


def n_sentences_of(chunks: list[Chunk]) -> list[int]:
    return [len(sentences(chunk.text)) for chunk in chunks]


@pytest.mark.parametrize(
    ("n_sentences", "wanted"), [(1, [1] * 8), (2, [2] * 4), (3, [3, 3, 2]), (8, [8])]
)
def test_a_chunk_is_a_window_of_sentences(n_sentences: int, wanted: list[int]) -> None:
    assert n_sentences_of(chunks_of(document(prose(8)), n_sentences)) == wanted


def test_the_default_is_three_sentences() -> None:
    assert chunks_of(document(prose(9))) == chunks_of(document(prose(9)), 3)


@pytest.mark.parametrize("n_sentences", [0, -1])
def test_a_chunk_without_sentences_is_refused(n_sentences: int) -> None:
    with pytest.raises(ValueError, match=f"n_sentences is {n_sentences}"):
        chunks_of(document("Text."), n_sentences)


def test_the_last_sentence_of_a_paragraph_does_not_stand_alone() -> None:
    assert n_sentences_of(chunks_of(document(prose(4, 7)))) == [4, 3, 4]


def test_short_paragraphs_are_taken_together_and_with_the_long_one_below() -> None:
    assert n_sentences_of(chunks_of(document(prose(1, 1, 1, 1, 2)))) == [3, 3]
    assert n_sentences_of(chunks_of(document(prose(1, 5)))) == [3, 3]
    assert n_sentences_of(chunks_of(document(prose(3, 1)))) == [4]


def test_items_of_a_list_are_so_short_that_many_make_a_chunk() -> None:
    text = "\n".join(f"- item {n}" for n in range(40))
    chunks = chunks_of(document(text))
    assert all(len(chunk.text) >= 180 for chunk in chunks[:-1])
    assert len(chunks) == 2


def test_a_heading_goes_with_its_text_and_does_not_count() -> None:
    text = f"## Colours\n\n{prose(3)}"
    (chunk,) = chunks_of(document(text, (Section(0, len(text), ("Colours",)),)))
    assert chunk.text == text
    assert chunk.headings == ("Colours",)


def test_an_edited_paragraph_changes_its_own_chunks_only() -> None:
    paragraphs = prose(5, 4, 6, 3, 7).split("\n\n")
    before = {chunk.text for chunk in chunks_of(document("\n\n".join(paragraphs)))}
    paragraphs[2] = paragraphs[2].replace("sentence number 11", "a longer sentence, number eleven,")
    after = {chunk.text for chunk in chunks_of(document("\n\n".join(paragraphs)))}
    assert len(after - before) == 1
    paragraphs[2] = (
        f"A new first sentence, which moves all the others along by one. {paragraphs[2]}"
    )
    after = {chunk.text for chunk in chunks_of(document("\n\n".join(paragraphs)))}
    assert len(after - before) <= 3


def test_chunks_never_leave_a_section_and_carry_its_headings_and_page() -> None:
    text = prose(2, 2)
    middle = text.index("\n\n")
    sections = (Section(0, middle, ("A", "B"), 1), Section(middle, len(text), ("A",), 2))
    chunks = chunks_of(document(text, sections))
    assert [(chunk.headings, chunk.page) for chunk in chunks] == [(("A", "B"), 1), (("A",), 2)]
    assert [chunk.text for chunk in chunks] == text.split("\n\n")


@pytest.mark.parametrize(
    "text",
    [
        "word " * 1_000,
        "line of words\n" * 300,
        "x" * 5_000,
        "слово " * 1_000,
        "漢字，" * 1_500,
        "e\u0301" * 3_000,
        "\U0001f600" * 2_000,
    ],
)
def test_long_sentences_are_split_into_even_pieces(text: str) -> None:
    chunks = chunks_of(document(text))
    sizes = [len(chunk.text.encode()) for chunk in chunks]
    assert max(sizes) <= MAX_BYTES
    assert min(sizes) >= MAX_BYTES // 3
    assert "".join(chunk.text for chunk in chunks).split() == text.split() or len(text.split()) > 1


def test_long_sentences_are_split_at_white_space() -> None:
    chunks = chunks_of(document("seventeen letters " * 200))
    assert all(chunk.text.split()[0] == "seventeen" for chunk in chunks if chunk.text[0] == "s")
    assert {word for chunk in chunks for word in chunk.text.split()} == {"seventeen", "letters"}


def test_no_letter_is_parted_from_its_accent() -> None:
    chunks = chunks_of(document("e\u0301" * 3_000))
    assert all(chunk.text[0] == "e" for chunk in chunks)


def test_chunks_of_code_are_whole_lines_cut_at_blank_ones() -> None:
    blocks = ["\n".join(f"    x{n}_{m} = {m}  # a comment" for m in range(15)) for n in range(6)]
    text = "\n\n".join(blocks)
    chunks = chunks_of(document(text, unit="lines"))
    assert [chunk.text for chunk in chunks] == [
        "\n\n".join(pair).strip() for pair in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def check(given: Document, chunks: list[Chunk]) -> None:
    """What holds for all chunks of all documents."""
    covered = 0
    for chunk in chunks:
        assert chunk.text == given.text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert covered <= chunk.start
        assert not given.text[covered : chunk.start].strip()
        assert len(chunk.text.encode()) <= MAX_BYTES
        covered = chunk.end
        (section,) = (
            section
            for section in given.sections or (Section(0, len(given.text)),)
            if section.start <= chunk.start and chunk.end <= section.end
        )
        assert (chunk.headings, chunk.page) == (section.headings, section.page)
    assert not given.text[covered:].strip()


PIECES = (
    'word longer-word Word. word? Mr. 中文。 文！ слово. é e\u0301 \U0001f600 - * # === 12 1. " ) '
    "def \n \n \n\n \n\n\n \t \u3000 \x85 ```"
).split(" ")
PIECES += ["x" * 1_300, "y, " * 500, "中" * 700]


@pytest.mark.parametrize("unit", ["sentences", "lines"])
@pytest.mark.parametrize("seed", range(60))
def test_random_documents_are_covered_in_order_and_exactly(seed: int, unit: str) -> None:
    chance = random.Random(seed)
    weights = [1.0] * (len(PIECES) - 3) + [0.1] * 3
    text = "".join(
        piece + chance.choice(("", " ", " "))
        for piece in chance.choices(PIECES, weights, k=chance.randrange(600))
    )
    cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(6)))
    bounds = [0, *cuts, len(text)]
    sections = tuple(
        Section(a, b, ("word",) if n % 2 else (), n)
        for n, (a, b) in enumerate(itertools.pairwise(bounds))
        if a < b
    )
    given = document(text, sections, unit=unit)
    for n_sentences in (1, 3, 10):
        check(given, chunks_of(given, n_sentences))


def test_the_same_document_always_gives_the_same_chunks() -> None:
    assert chunks_of(document(prose(7, 2, 9))) == chunks_of(document(prose(7, 2, 9)))


def test_an_empty_document_has_no_chunks() -> None:
    assert chunks_of(document("")) == []
    assert chunks_of(document(" \n ")) == []
