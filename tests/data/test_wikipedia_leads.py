from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import catalogue, paths, wheels, wikipedia_leads
from data.catalogue import WheelSource
from data.download import DownloadError
from data.wikipedia_leads import address, fetch, leads
from tests.data.wheel_maker import MEMBER, make_wheel, sha256, wheel_source

LEADS = {
    "Ada Lovelace": {
        "title": "Ada Lovelace",
        "extract": " Ada was a mathematician. She wrote a program.\n",
        "description": "English mathematician",
        "topic": "People",
    },
    "AC/DC": {"title": "AC/DC", "extract": "A band.", "description": "", "topic": None},
    "Nothing": {"title": "Nothing", "extract": " ", "description": "", "topic": ""},
}
CONTENT = json.dumps(LEADS).encode()


@pytest.fixture
def wheel(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalogue's entry is a tiny package on this disk; the path of its wheel."""
    path = make_wheel(tmp_path / "wheels", CONTENT)
    entry = replace(
        catalogue.data_file(wikipedia_leads.NAME),
        file=MEMBER.rpartition("/")[2],
        size_bytes=len(CONTENT),
        sha256=sha256(CONTENT),
        sources=(wheel_source(path),),
    )
    monkeypatch.setattr(catalogue, "data_file", lambda name: entry)
    monkeypatch.setattr(wheels, "locate", lambda package, version: (path.as_uri(), None))
    return path


def test_the_catalogue_names_the_package_the_file_and_the_licence() -> None:
    entry = catalogue.data_file(wikipedia_leads.NAME)
    (source,) = entry.sources
    assert isinstance(source, WheelSource) and entry.file
    assert source.member.endswith("/" + entry.file)
    assert entry.licence == "CC BY-SA 4.0" and entry.size_bytes == 6_541_774
    assert len(entry.sha256 or "") == len(source.sha256) == 64
    assert wikipedia_leads.PACKAGED in entry.title
    assert entry.name not in [model.name for model in catalogue.models()]


def test_leads_become_documents_with_what_is_known_of_them(wheel: Path) -> None:
    ada, band = leads()
    assert (ada.title, ada.text) == (
        "Ada Lovelace",
        "Ada was a mathematician. She wrote a program.",
    )
    assert ada.uri == ada.metadata["url"] == "https://en.wikipedia.org/wiki/Ada_Lovelace"
    assert ada.metadata["licence"] == "CC BY-SA 4.0"
    assert ada.metadata["snapshot"] == wikipedia_leads.PACKAGED
    assert (ada.metadata["description"], ada.metadata["topic"]) == (
        "English mathematician",
        "People",
    )
    assert not {"description", "topic"} & set(band.metadata)


def test_the_file_is_fetched_once_with_progress(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, int, int | None]] = []
    path = fetch(lambda *told: heard.append(told))
    assert path.read_bytes() == CONTENT and path.is_relative_to(paths.cache_dir())
    assert ("unpacking", len(CONTENT), len(CONTENT)) in heard
    monkeypatch.setattr(wheels, "locate", None)  # whoever asks now fails
    assert fetch() == path


def test_a_damaged_file_is_fetched_again(wheel: Path) -> None:
    path = fetch()
    path.write_bytes(CONTENT.replace(b"Ada", b"Eda"))
    assert fetch().read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])
    assert len(list(leads())) == 2


def test_another_package_than_the_expected_one_is_refused(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"more")
    with pytest.raises(DownloadError, match="SHA-256") as caught:
        fetch()
    assert "PIP_FIND_LINKS" in str(caught.value) and "\n" not in str(caught.value)


def test_no_package_index_is_one_line_with_the_way_out(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(package: str, version: str) -> Any:
        raise DownloadError("pip finds no address: the package index cannot be reached")

    monkeypatch.setattr(wheels, "locate", unreachable)
    with pytest.raises(DownloadError, match="cannot be reached; connect to a package index"):
        list(leads())


@pytest.mark.parametrize(
    ("title", "url"),
    [
        ("Ada Lovelace", "https://en.wikipedia.org/wiki/Ada_Lovelace"),
        ("2001: A Space Odyssey", "https://en.wikipedia.org/wiki/2001:_A_Space_Odyssey"),
        ("AC/DC", "https://en.wikipedia.org/wiki/AC/DC"),
        ("Zürich", "https://en.wikipedia.org/wiki/Z%C3%BCrich"),
        ("What? 100% #1", "https://en.wikipedia.org/wiki/What%3F_100%25_%231"),
        ("Mercury (planet)", "https://en.wikipedia.org/wiki/Mercury_(planet)"),
    ],
)
def test_addresses_are_written_as_wikipedia_writes_them(title: str, url: str) -> None:
    assert address(title) == url
