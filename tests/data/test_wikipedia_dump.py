from __future__ import annotations

import bz2
import gzip
import os
from pathlib import Path

import pytest

from data import wikipedia_dump
from data.wikipedia_dump import DumpError, Page, pages
from tests.data.dump_maker import FOOT, HEAD, article, multistream, page, single_stream

pytest.importorskip("mwxml")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / "enwiki-20260801-pages-articles.xml.bz2"


def titles(path: Path, position: str = "") -> list[str]:
    return [found.title for found in pages(path, position)]


def read_until_error(path: Path, position: str = "") -> tuple[list[Page], DumpError]:
    found = []
    with pytest.raises(DumpError) as caught:
        for each in pages(path, position):
            found.append(each)
    assert "\n" not in str(caught.value)
    return found, caught.value


def test_an_article_has_its_title_revision_wikitext_and_site(dump: Path) -> None:
    wikitext = "'''A''' < B & C\n\n== D ==\n<page>"
    dump.write_bytes(single_stream([page("Zürich & more", wikitext, revision=12)]))
    (found,) = pages(dump)
    assert (found.title, found.revision, found.wikitext) == ("Zürich & more", "12", wikitext)
    assert found.site.url == "https://en.wikipedia.org/wiki/"
    assert {"bild", "kategorie", "file", "category"} <= set(found.site.silent)


def test_redirects_other_namespaces_and_other_models_are_left_out(dump: Path) -> None:
    dump.write_bytes(
        single_stream(
            [
                page("Old name", "#REDIRECT [[New name]]", redirect="New name"),
                page("Talk:New name", "I disagree.", namespace=1),
                page("Sheet", "body {}").replace("<model>wikitext", "<model>css"),
                page("Empty", ""),
                page("New name", "It is new."),
            ]
        )
    )
    assert titles(dump) == ["New name"]


def test_the_newest_revision_of_a_history_is_read(dump: Path) -> None:
    both = page("A", "First.", revision=1)
    second = page("A", "Second.", revision=2).partition("<revision>")[2]
    dump.write_bytes(
        single_stream(
            [both.replace("</page>", "<revision>" + second.partition("</page>")[0]) + "</page>"]
        )
    )
    assert [(p.revision, p.wikitext) for p in pages(dump)] == [("2", "Second.")]


@pytest.mark.parametrize("suffix", [".xml", ".xml.gz", ".xml.bz2"])
def test_plain_and_compressed_files_are_told_by_their_first_bytes(
    tmp_path: Path, suffix: str
) -> None:
    content = (HEAD + article(1) + FOOT).encode()
    pack = {".xml": bytes, ".xml.gz": gzip.compress, ".xml.bz2": bz2.compress}[suffix]
    path = tmp_path / "without-suffix"
    path.write_bytes(pack(content))
    assert titles(path) == ["Place 1"]


def test_a_dump_without_site_information_is_read_as_wikipedia(dump: Path) -> None:
    head = HEAD.partition("<siteinfo>")[0]
    dump.write_bytes(bz2.compress((head + article(1) + FOOT).encode()))
    (found,) = pages(dump)
    assert found.site.url == "https://en.wikipedia.org/wiki/"


def test_a_page_that_is_not_as_pages_are_does_not_end_the_reading(dump: Path) -> None:
    odd = article(2).replace("<id>", "<surprise/><id>", 1)
    untitled = article(3).replace("<title>Place 3</title>", "<title></title>")
    dump.write_bytes(single_stream([article(1), odd, untitled, article(4)]))
    assert titles(dump) == ["Place 1", "Place 4"]


def test_a_reading_goes_on_at_the_position_of_any_page(dump: Path) -> None:
    numbers = range(12)
    redirect = page("R", "#REDIRECT [[A]]", redirect="A")
    dump.write_bytes(single_stream([article(n) + redirect for n in numbers]))
    whole = list(pages(dump))
    assert [p.position for p in whole] == [f"0:{2 * n}" for n in numbers]
    for number, found in enumerate(whole):
        assert list(pages(dump, found.position)) == whole[number:]


def test_a_dump_of_many_streams_is_entered_at_the_stream_of_the_page(dump: Path) -> None:
    groups = [[article(100 * g + n) for n in range(5)] for g in range(6)]
    dump.write_bytes(multistream(groups))
    whole = list(pages(dump))
    offsets = [int(p.position.partition(":")[0]) for p in whole]
    assert len(set(offsets)) == len(groups) and offsets == sorted(offsets)
    for number, found in enumerate(whole):
        assert list(pages(dump, found.position)) == whole[number:]
    # the streams between the head and that byte are not even looked at
    content = bytearray(dump.read_bytes())
    content[offsets[5] : offsets[25]] = os.urandom(offsets[25] - offsets[5])
    dump.write_bytes(content)
    assert list(pages(dump, whole[27].position)) == whole[27:]


def test_streams_that_cut_a_page_in_two_are_no_places_to_enter(dump: Path) -> None:
    text = (HEAD + "".join(article(n) for n in range(9)) + FOOT).encode()
    dump.write_bytes(b"".join(bz2.compress(text[i : i + 500]) for i in range(0, len(text), 500)))
    whole = list(pages(dump))
    assert [p.title for p in whole] == [f"Place {n}" for n in range(9)]
    for number, found in enumerate(whole):
        assert list(pages(dump, found.position)) == whole[number:]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_dump_gives_what_comes_before_and_then_one_line(
    dump: Path, share: float
) -> None:
    groups = [[article(10 * g + n) for n in range(10)] for g in range(30)]
    content = multistream(groups)
    dump.write_bytes(content)
    whole = list(pages(dump))
    dump.write_bytes(content[: int(len(content) * share)])
    found, error = read_until_error(dump)
    assert found == whole[: len(found)] and len(found) >= int(300 * share) - 25
    assert "cut short or damaged" in str(error) and error.position in str(error)
    dump.write_bytes(content)  # fetched again
    assert found + list(pages(dump, error.position)) == whole


def test_a_damaged_dump_gives_what_comes_before_and_then_one_line(dump: Path) -> None:
    content = bytearray(multistream([[article(10 * g + n) for n in range(10)] for g in range(30)]))
    content[len(content) // 2 + 10] ^= 0xFF
    dump.write_bytes(content)
    found, error = read_until_error(dump)
    assert 100 < len(found) < 200
    assert "damaged" in str(error) and str(dump) in str(error)


def test_xml_that_ends_too_early_is_said_in_one_line(dump: Path) -> None:
    dump.write_bytes(bz2.compress((HEAD + article(1) + article(2)[:200]).encode()))
    found, error = read_until_error(dump)
    assert [p.title for p in found] == ["Place 1"]
    assert "damaged at 0:1" in str(error)


def test_a_page_larger_than_any_ends_the_reading(
    dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia_dump, "_MAX_PAGE_BYTES", 3 << 20)
    dump.write_bytes(single_stream([article(1), page("Bomb", "x" * (8 << 20))]))
    found, error = read_until_error(dump)
    assert "larger than 3 MiB" in str(error)
    assert len(found) <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no dump of MediaWiki"),
        (b"BZh9 and then nothing of the kind", "no dump of MediaWiki"),
        (b"<html><body/></html>", "begins with <html>"),
        (b"\x1f\x8bnot gzip", "no dump of MediaWiki"),
        (b"plain words", "no dump of MediaWiki"),
    ],
)
def test_what_is_no_dump_is_said_in_one_line(dump: Path, content: bytes, said: str) -> None:
    dump.write_bytes(content)
    found, error = read_until_error(dump)
    assert not found and said in str(error) and str(dump) in str(error)


def test_a_missing_file_and_a_wrong_position_are_said_in_one_line(dump: Path) -> None:
    assert "No such file" in str(read_until_error(dump)[1])
    dump.write_bytes(multistream([[article(1)], [article(2)]]))
    assert "no position" in str(read_until_error(dump, "here")[1])
    assert "damaged" in str(read_until_error(dump, "11:0")[1])
    assert "damaged" in str(read_until_error(dump, f"{10**9}:0")[1])


def test_progress_is_told_in_bytes_of_the_file(dump: Path) -> None:
    dump.write_bytes(multistream([[article(n)] for n in range(50)]))
    heard: list[tuple[int, int]] = []
    list(pages(dump, on_bytes=lambda *told: heard.append(told)))
    size = dump.stat().st_size
    assert heard[-1] == (size, size) and heard == sorted(heard)


def test_elements_of_pages_that_were_read_are_freed(dump: Path) -> None:
    from mwxml.element_iterator import ElementIterator

    dump.write_bytes(single_stream([article(n) for n in range(200)]))
    roots = []
    original = ElementIterator.from_file

    def remembered(file: object) -> object:
        roots.append(original(file))
        return roots[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ElementIterator, "from_file", remembered)
        assert max(len(roots[0].element) for _ in pages(dump)) <= 2
