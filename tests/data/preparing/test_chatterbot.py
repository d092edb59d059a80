from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from data import wheels
from data.datasets import BadRow
from data.download import DownloadError
from data.preparing import chatterbot, prepare

pytestmark = pytest.mark.usefixtures("home")  # it is the current folder, too

FILES = {
    "english/ai.yml": """
categories: [AI]
conversations:
- ["What is AI?", The science of thinking machines., Clever programs.]
- ["What is AI?", Clever programs.]
- ["Who made you?", I know., "Who made you?", People.]
- just a line
- [alone]
- [2, 3]
""",
    "english/conversations.yml": """
conversations:
- [Hello, Hi, "How are you?", Well., Good.]
""",
    "english/broken.yml": "conversations: [",
    "german/ai.yml": "conversations: [['Was ist KI?', Künstliche Intelligenz.]]",
}


@pytest.fixture
def wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that kind, which the index leads to."""
    path = Path("chatterbot_corpus-1.3.3-py2.py3-none-any.whl").absolute()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(f"chatterbot_corpus/data/{name}", content)
        archive.writestr("chatterbot_corpus/__init__.py", "raise SystemExit('it is not run')")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(chatterbot, "SOURCE", replace(chatterbot.SOURCE, sha256=digest))
    monkeypatch.setattr(wheels, "locate", lambda package, version: (path.as_uri(), None))
    return path


def conversations(*only: str) -> dict[str, str]:
    """Origin → roles and contents of the rows, or why there is none."""
    found = {}
    path = next(Path().glob("*.whl"))
    for number, row in enumerate(chatterbot.rows([path], only)):
        said = row.reason if isinstance(row, BadRow) else " / ".join(t.content for t in row.turns)
        found[f"{number} {row.origin}"] = said
    return found


@pytest.mark.usefixtures("wheel")
def test_entries_become_rows_by_the_kind_of_their_file() -> None:
    assert conversations() == {
        "0 english/ai.yml#1": "What is AI? / The science of thinking machines.",
        "1 english/ai.yml#1": "What is AI? / Clever programs.",
        "2 english/ai.yml#2": "the same row is there before it",
        "3 english/ai.yml#3": "Who made you? / I know. / Who made you? / People.",
        "4 english/ai.yml#4": "it is no list of two lines or more",
        "5 english/ai.yml#5": "it is no list of two lines or more",
        "6 english/ai.yml#6": "it is no list of two lines or more",
        "7 english/broken.yml": "it cannot be read: expected the node content, but found "
        "'<stream end>'",
        "8 english/conversations.yml#1": "Hello / Hi / How are you? / Well.",
    }


@pytest.mark.usefixtures("wheel")
def test_languages_are_chosen_by_name() -> None:
    assert conversations("German") == {"0 german/ai.yml#1": "Was ist KI? / Künstliche Intelligenz."}
    with pytest.raises(ValueError, match="there is no language 'klingon' in it; english, german"):
        conversations("klingon")


def test_the_package_is_fetched_verified_and_written_as_oig(wheel: Path) -> None:
    made = prepare("chatterbot", Path("out.jsonl"))
    assert (made.n_rows, made.n_left_out) == (4, 5)
    assert made.source == "package chatterbot-corpus 1.3.3"
    assert [bad.origin for bad in made.left_out] == [
        "english/ai.yml#2",
        "english/ai.yml#4",
        "english/broken.yml",
    ]
    again = prepare("chatterbot", Path("folder.jsonl"), str(wheel.parent))
    assert again.path.read_bytes() == made.path.read_bytes()


def test_another_file_than_expected_is_refused(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(DownloadError, match=r"package chatterbot-corpus 1.3.3: .* has SHA-256"):
        prepare("chatterbot", Path("out.jsonl"))
    assert not Path("out.jsonl").exists()


def test_what_is_no_wheel_is_said() -> None:
    Path("a.whl").write_text("x")
    with pytest.raises(ValueError, match=r"a\.whl is no wheel"):
        prepare("chatterbot", Path("out.jsonl"), "a.whl")
