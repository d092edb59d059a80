from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from data import isolation, wikipedia
from data.documents import Document
from data.wikipedia import DumpError, Limits, dump
from tests.data.dump_maker import article, multistream, page, single_stream

pytest.importorskip("mwxml")
pytest.importorskip("mwparserfromhell")

# two seconds and more for mwparserfromhell 0.7
SLOW = "[http://" * 20_000


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "enwiki-20260801-pages-articles.xml.bz2"
    isolation.close()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(number)


def test_articles_become_documents_with_address_revision_and_sections(path: Path) -> None:
    wikitext = "'''Zürich''' is a [[city]].\n\n== History ==\nIt is {{nowrap|very old}}."
    path.write_bytes(
        single_stream(
            [
                page("Old", "#REDIRECT [[Zürich]]", redirect="Zürich"),
                page("Talk:Zürich", "Is it?", namespace=1),
                page("Zürich (city)", wikitext, revision=12345),
                page("Empty", "{{stub}}", revision=2),
            ]
        )
    )
    (found,) = dump(path, n_processes=1)
    assert found.uri == "https://en.wikipedia.org/wiki/Z%C3%BCrich_(city)"
    assert found.title == "Zürich (city)"
    assert found.text == "Zürich is a city.\n\nIt is very old."
    assert [(s.headings, found.text[s.start : s.end]) for s in found.sections] == [
        ((), "Zürich is a city."),
        (("History",), "It is very old."),
    ]
    assert found.metadata == {
        "url": found.uri,
        "revision": "12345",
        "position": "0:2",
        "licence": "CC BY-SA 4.0",
        "mime": "text/x-wiki",
    }


def test_documents_are_the_same_and_in_order_whatever_the_number_of_processes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.wikipedia_articles._BATCH_CHARS", 300)
    path.write_bytes(multistream([[article(10 * g + n) for n in range(10)] for g in range(5)]))
    one, three = (list(dump(path, n_processes=n)) for n in (1, 3))
    assert one == three
    assert [document.title for document in one] == [f"Place {n}" for n in range(50)]


def test_a_reading_goes_on_at_the_position_of_a_document(path: Path) -> None:
    path.write_bytes(multistream([[article(10 * g + n) for n in range(10)] for g in range(3)]))
    whole = list(dump(path, n_processes=1))
    for number in (0, 7, 10, 29):
        assert (
            list(dump(path, n_processes=1, start=whole[number].metadata["position"]))
            == whole[number:]
        )


def test_pages_that_are_known_in_this_revision_are_not_parsed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(single_stream([article(1), article(2), page("Place 3", "New.", revision=33)]))
    known = {("https://en.wikipedia.org/wiki/Place_1", "1"),
             ("https://en.wikipedia.org/wiki/Place_3", "3")}  # fmt: skip
    sent: list[bytes] = []

    def remembered(target: str, content: bytes, *more: Any) -> Iterator[Any]:
        sent.append(content)
        return call(target, content, *more)

    call = isolation.call
    monkeypatch.setattr(isolation, "call", remembered)
    found = dump(path, n_processes=1, is_known=lambda url, revision: (url, revision) in known)
    assert [document.title for document in found] == ["Place 2", "Place 3"]
    assert b"Place 1" not in b"".join(sent)


def test_articles_before_the_damage_come_before_its_line(path: Path) -> None:
    content = multistream([[article(10 * g + n) for n in range(10)] for g in range(20)])
    path.write_bytes(content[: len(content) // 2])
    found: list[Document] = []
    with pytest.raises(DumpError, match="cut short or damaged") as caught:
        found.extend(dump(path, n_processes=2))
    assert 80 <= len(found) <= 120
    path.write_bytes(content)
    rest = list(dump(path, n_processes=2, start=caught.value.position))
    assert [d.title for d in found + rest] == [f"Place {n}" for n in range(200)]


def test_a_page_that_takes_too_long_is_left_out_and_its_neighbours_stay(
    path: Path, warnings: list[str]
) -> None:
    path.write_bytes(single_stream([article(1), page("Slow", SLOW), article(2)]))
    found = list(dump(path, n_processes=1, limits=Limits(max_seconds=0.5)))
    assert [document.title for document in found] == ["Place 1", "Place 2"]
    assert len(warnings) == 1 and "'Slow'" in warnings[0] and "longer than 0.5 s" in warnings[0]


def test_a_page_beyond_the_size_of_any_is_left_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.wikipedia_articles._MAX_CHARS", 1000)
    path.write_bytes(single_stream([article(1), page("Huge", "word " * 500), article(2)]))
    assert [d.title for d in dump(path, n_processes=1)] == ["Place 1", "Place 2"]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"text": 5},
        {"text": "A", "sections": [[0, 99, []]]},
        {"text": "A", "sections": [["x", 1, []]]},
        {"text": "A", "sections": 3},
        {"sections": []},
    ],
)
def test_nonsense_from_a_child_costs_the_page_only(
    path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    path.write_bytes(single_stream([article(1), article(2)]))
    good = {"text": "Good.", "sections": [[0, 5, []]]}
    monkeypatch.setattr(isolation, "call", lambda *args: iter([answer, good]))
    assert [d.text for d in dump(path, n_processes=1)] == ["Good."]


def test_a_missing_package_is_named_with_the_command(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*args: Any) -> Iterator[Any]:
        raise isolation.IsolationError("lacking", "mwparserfromhell")

    path.write_bytes(single_stream([article(1)]))
    monkeypatch.setattr(isolation, "call", lacking)
    with pytest.raises(DumpError, match=r"mwparserfromhell; .*pip install") as caught:
        list(dump(path, n_processes=1))
    assert "\n" not in str(caught.value)


def test_a_reading_that_is_given_up_ends_at_once(path: Path) -> None:
    path.write_bytes(single_stream([article(n) for n in range(50)]))
    reading = dump(path, n_processes=2)
    assert next(reading).title == "Place 0"
    reading.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(reading)


def test_progress_is_heard_in_bytes_of_the_file(path: Path) -> None:
    path.write_bytes(multistream([[article(n)] for n in range(20)]))
    heard: list[tuple[str, int, int | None]] = []
    list(dump(path, n_processes=1, on_progress=lambda *told: heard.append(told)))
    size = path.stat().st_size
    assert heard[-1] == ("reading the dump", size, size)


def test_limits_become_the_child_s(path: Path) -> None:
    ceiling = dataclasses.replace(Limits(), max_seconds=3, max_memory_bytes=10**8).ceiling
    assert (ceiling.max_seconds, ceiling.max_memory_bytes) == (3, 10**8)


def test_the_module_of_names_has_them_all() -> None:
    assert all(hasattr(wikipedia, name) for name in wikipedia.__all__)
