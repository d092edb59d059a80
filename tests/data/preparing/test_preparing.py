from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import hub, paths
from data.catalogue import HubSource
from data.datasets import Row
from data.download import DownloadError
from data.hub import HubFile, Listing
from data.preparing import RECIPES, oig, prepare, recipe
from data.training_rows import open_rows
from tests.data.file_server import FileServer

pytestmark = pytest.mark.usefixtures("home")  # it is the current folder, too

ROWS = [
    {"text": "<human>: a\n<bot>: b", "metadata": {"source": "x"}},
    {"text": "<human>: c\n<bot>:"},
    {"text": "<human>: d\n<bot>: e\nf"},
]
CONTENT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TARGET = Path("out.jsonl")


def written() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TARGET.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    chosen = recipe(name)
    assert chosen.TITLE and chosen.LICENCE and chosen.SOURCE.label


def test_a_recipe_is_found_with_hyphens_and_a_wrong_name_is_answered() -> None:
    assert recipe("oig-chip2") is recipe("oig_chip2")
    with pytest.raises(ValueError, match="no training data is called 'oigg'; did you mean 'oig'"):
        recipe("oigg")


def test_rows_of_a_file_are_written_as_oig_and_can_be_trained_on() -> None:
    Path("mine.jsonl.gz").write_bytes(gzip.compress(CONTENT))
    made = prepare("oig", TARGET, "mine.jsonl.gz")
    assert (made.path, made.n_rows, made.n_left_out) == (TARGET, 2, 1)
    assert made.source == "mine.jsonl.gz"
    assert [bad[:2] for bad in made.left_out] == [
        ("mine.jsonl.gz:2", "turn 2: the answer is empty")
    ]
    assert written() == [
        {"text": "<human>: a\n<bot>: b", "metadata": {"source": "mine.jsonl.gz:1"}},
        {"text": "<human>: d\n<bot>: e\nf", "metadata": {"source": "mine.jsonl.gz:3"}},
    ]
    answers = [r.turns[1].content for r in open_rows("out.jsonl").each() if isinstance(r, Row)]
    assert answers == ["b", "e\nf"]


def test_of_a_folder_the_files_of_that_name_are_taken() -> None:
    for name in ("unified_a.jsonl", "x/unified_b.jsonl", "unified_chip2.jsonl", "other.jsonl"):
        Path("d", name).parent.mkdir(exist_ok=True, parents=True)
        Path("d", name).write_bytes(CONTENT)
    counts = {
        case: prepare(name, Path(f"{case}.jsonl"), "d", only=only).n_rows
        for case, name, only in [
            ("all", "oig", ()),
            ("some", "oig", ("*_b.jsonl",)),
            ("chip2", "oig-chip2", ()),
        ]
    }
    assert counts == {"all": 6, "some": 2, "chip2": 2}
    with pytest.raises(ValueError, match=r"d has no file that matches z\*"):
        prepare("oig", Path("z.jsonl"), "d", only=("z*",))


def test_an_address_is_fetched_and_resumed(server: FileServer) -> None:
    rows = [{"text": f"<human>: {n}\n<bot>: {'x' * 1000}"} for n in range(2000)]
    server.content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    server.breaks_after = [1_200_000]
    url = server.url.replace("model.whl", "unified_chip2.jsonl") + "?secret=1"
    assert prepare("oig-chip2", TARGET, url).n_rows == 2000
    assert server.requests[0] is None and str(server.requests[1]).startswith("bytes=")
    assert written()[0]["metadata"] == {"source": "unified_chip2.jsonl:1"}
    assert list((paths.cache_dir() / "preparing").iterdir()) == []


def test_an_address_that_fails_is_named_without_its_secret(server: FileServer) -> None:
    server.statuses = [404]
    with pytest.raises(
        DownloadError, match=r"http://127.0.0.1/model.whl: .*404.*name the folder"
    ) as e:
        prepare("oig", TARGET, server.url + "?secret=1")
    assert "secret" not in str(e.value)
    assert not TARGET.exists()


@pytest.fixture
def pretended_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A repository of two files; returns the names of those that were downloaded."""
    asked: list[str] = []
    digest = hashlib.sha256(CONTENT).hexdigest()
    held = tuple(HubFile(f"unified_{n}.jsonl", len(CONTENT), digest) for n in "ab")
    monkeypatch.setattr(hub, "look_up", lambda source: Listing("c0ffee", held, "apache-2.0"))

    def download(source: HubSource, name: str, commit: str, folder: Path) -> None:
        asked.append(f"{source.repository}/{name}@{commit}")
        (folder / name).write_bytes(CONTENT)

    monkeypatch.setattr(hub, "_download", download)
    return asked


def test_without_an_origin_the_hub_is_asked(pretended_hub: list[str]) -> None:
    stages: list[str] = []
    made = prepare("oig", TARGET, on_progress=lambda stage, done, total: stages.append(stage))
    assert pretended_hub == [f"laion/OIG/unified_{n}.jsonl@c0ffee" for n in "ab"]
    assert (made.n_rows, made.source) == (4, "hub repository laion/OIG@c0ffee")
    assert stages[0] == "asking the hub for laion/OIG"
    assert list((paths.cache_dir() / "preparing").iterdir()) == []


def test_some_files_of_the_hub(pretended_hub: list[str]) -> None:
    assert prepare("oig", TARGET, only=["*_b.jsonl"]).n_rows == 2
    assert pretended_hub == ["laion/OIG/unified_b.jsonl@c0ffee"]
    with pytest.raises(ValueError, match=r"laion/OIG has no file that matches z\*"):
        prepare("oig", Path("z.jsonl"), only=["z*"])


def test_what_was_fetched_stays_when_the_rest_fails(
    pretended_hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hub.look_up(oig.SOURCE)
    monkeypatch.setattr(
        hub, "look_up", lambda source: replace(held, files=(*held.files, HubFile("c", 1, None)))
    )
    with pytest.raises(DownloadError, match="hub repository laion/OIG: c has 129 bytes where"):
        prepare("oig", TARGET)
    staging = paths.cache_dir() / "preparing" / "oig"
    assert sorted(path.name for path in staging.iterdir()) == [
        "unified_a.jsonl",
        "unified_b.jsonl",
    ]


def test_a_file_that_is_there_is_not_overwritten_by_itself() -> None:
    Path("mine.jsonl").write_bytes(CONTENT)
    TARGET.write_text("precious")
    with pytest.raises(FileExistsError, match=r"out.jsonl is there already; name another file"):
        prepare("oig", TARGET, "mine.jsonl")
    assert TARGET.read_text() == "precious"
    assert prepare("oig", TARGET, "mine.jsonl", overwrite=True).n_rows == 2


def test_without_rows_nothing_is_written() -> None:
    Path("mine.jsonl").write_text('{"text": "<human>: a"}\n{"text": "<human>: b"}\n{"q": 1}\n')
    with pytest.raises(
        ValueError, match=r"no rows to write; mine.jsonl:1: there is no answer in it; "
    ):
        prepare("oig", TARGET, "mine.jsonl")
    assert sorted(path.name for path in Path().iterdir()) == ["mine.jsonl"]


def test_a_text_that_would_forge_a_turn_is_left_out() -> None:
    said = {"text": "Hi\n<bot>: casual", "label": "needs caution"}
    Path("mine.jsonl").write_text(json.dumps(said) + "\n" + json.dumps({**said, "text": "Hi"}))
    made = prepare("oig-moderation", TARGET, "mine.jsonl")
    assert (made.n_rows, made.n_left_out) == (1, 1)
    assert made.left_out[0].reason == "<human>: or <bot>: begins a line of its own text"


def test_an_origin_that_is_not_there_is_said() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder mine.jsonl"):
        prepare("oig", TARGET, "mine.jsonl")
