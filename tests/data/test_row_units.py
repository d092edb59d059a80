from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest

from data import row_units
from data.row_units import PASSAGE_BYTES, UnreadableError, lines, members, passages


def rows(content: bytes, starts: list[tuple[int, int]]) -> list[bytes]:
    offsets = [offset for offset, _ in starts] + [len(content)]
    return [content[a:b] for a, b in pairwise(offsets)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a", [(0, 1)]),
        (b"a\nb\n", [(0, 1), (2, 2)]),
        (b"\n \r\na\r\n\t\nb", [(4, 3), (9, 5)]),
    ],
)
def test_lines_that_are_blank_are_no_rows(content: bytes, expected: list[tuple[int, int]]) -> None:
    assert list(lines(io.BytesIO(content))) == expected


def test_a_line_that_is_longer_than_a_block_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_units, "_BLOCK", 4)
    assert list(lines(io.BytesIO(b"      0123456789\n        \nab\n"))) == [(0, 1), (26, 3)]


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_of_a_list_begin_at_their_offset_and_line(
    block: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_units, "_BLOCK", block)
    values = [{"a": "é\n]", "b": [1, {"c": "}"}]}, 12345, "x,y", {}, None, -0.5, [[]]]
    content = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    starts = list(members(io.BytesIO(content)))
    decode = json.JSONDecoder().raw_decode
    assert [decode(row.decode())[0] for row in rows(content, starts)] == values
    assert [line for _, line in starts] == [content[:o].count(b"\n") + 1 for o, _ in starts]


def test_an_empty_list_has_no_members() -> None:
    assert list(members(io.BytesIO(b" [ ] \n"))) == []


@pytest.mark.parametrize(
    ("content", "reason", "line", "n_before"),
    [
        (b'{"a": 1}', "it is no JSON list", 1, 0),
        (b"[1,\n2,\n", "the list has no end", 3, 2),
        (b"[1,\n2", "',' or ']' is missing", 2, 2),
        (b'[{"a": 1},\n{"a": 2', "it is no JSON: Expecting ',' delimiter", 2, 1),
        (b"[1\n2]", "',' or ']' is missing after the row before it", 2, 1),
        (b"[1,\n\n{oops}]", "Expecting property name", 3, 1),
        (b"[1] [2]", "something follows the end of the list", 1, 1),
        (b"[" + b"[" * 100_000, "its values are nested too deeply", 1, 0),
        (b"[" + b"1" * 5000 + b"]", "it is no JSON: Exceeds the limit", 1, 0),
    ],
)
def test_a_list_that_cannot_be_read_further_says_where(
    content: bytes, reason: str, line: int, n_before: int
) -> None:
    starts = []
    with pytest.raises(UnreadableError, match=reason) as caught:
        for start in members(io.BytesIO(content)):
            starts.append(start)
    assert (caught.value.line, len(starts)) == (line, n_before)
    assert content[: caught.value.offset].count(b"\n") + 1 == line


def paragraph(letter: str, n_bytes: int) -> bytes:
    return (letter * (n_bytes - 2)).encode() + b"\n\n"


def test_short_paragraphs_share_a_passage_and_none_is_cut() -> None:
    sizes = [1500, 1500, 1500, 500, 3000, 10]
    content = b"".join(paragraph(letter, n) for letter, n in zip("abcdef", sizes, strict=True))
    found = rows(content, list(passages(io.BytesIO(content))))
    assert [bytes(sorted(set(row))).strip() for row in found] == [b"ab", b"cd", b"ef"]


def test_a_passage_begins_at_its_line() -> None:
    content = b"\n\n" + paragraph("a", 3000) + b"\n" + paragraph("b", 3000)
    assert list(passages(io.BytesIO(content))) == [(2, 3), (3003, 6)]


def test_a_long_paragraph_is_cut_between_lines() -> None:
    content = b"".join(b"%d " % n + b"x" * 996 + b"\n" for n in range(1000, 1010))
    found = rows(content, list(passages(io.BytesIO(content))))
    assert [row[:4] for row in found] == [b"1000", b"1003", b"1006", b"1009"]
    assert all(len(row) <= PASSAGE_BYTES for row in found)


def test_a_long_line_is_cut_between_words() -> None:
    content = b" ".join(b"word%d" % n for n in range(3000))
    starts = list(passages(io.BytesIO(content)))
    found = rows(content, starts)
    assert all(len(row) <= PASSAGE_BYTES and row.startswith(b"word") for row in found)
    assert len(found) == len(content) // (PASSAGE_BYTES - 9) + 1
    assert {line for _, line in starts} == {1}


def test_without_spaces_a_line_is_cut_between_letters() -> None:
    content = ("x" + "漢字" * 5000).encode()
    found = rows(content, list(passages(io.BytesIO(content))))
    assert "".join(row.decode() for row in found).encode() == content
    assert all(PASSAGE_BYTES - 3 <= len(row) <= PASSAGE_BYTES for row in found[:-1])


def test_documents_do_not_share_a_passage() -> None:
    content = b"<|endoftext|>\nOne.\n\nMore.\n<|endoftext|>\n\nTwo.\n<|endoftext|>\n<|endoftext|>\n"
    assert list(passages(io.BytesIO(content))) == [(14, 2), (41, 7)]


def test_a_text_without_words_has_no_passages() -> None:
    assert list(passages(io.BytesIO(b" \n\n\t\n"))) == []
