from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot import sessions
from bot.prompt import Exchange, View
from bot.sessions import Session

EXCHANGES = [Exchange("Hä?\x1b", "Ja.\n", "stop"), Exchange("And?", "", "cancelled")]
MODEL = {"name": "tiny", "fingerprint": "f" * 64, "weight_format": "q8"}


@pytest.fixture
def folder(home: Path) -> Path:
    path = home / "data" / "sessions"
    path.mkdir(parents=True)
    return path


def test_what_is_loaded_equals_what_was_saved(home: Path) -> None:
    session = Session(EXCHANGES, {"system": "Sei kurz.", "stop": ("\n",), "seed": 1}, MODEL)
    path = sessions.save("s", session)
    assert sessions.load("s") == session
    assert sessions.names() == ["s"]
    assert [p.name for p in path.parent.iterdir()] == ["s.json"]


def test_the_view_of_a_long_conversation_is_saved_with_it(home: Path) -> None:
    session = Session(EXCHANGES, {}, MODEL, View(1, "0123456789abcdef"))
    path = sessions.save("s", session)
    assert sessions.load("s") == session
    assert json.loads(path.read_text())["view"] == {"n_dropped": 1, "key": "0123456789abcdef"}


def test_the_file_has_the_promised_fields(home: Path) -> None:
    record = json.loads(sessions.save("s", Session(EXCHANGES, {"seed": 1}, MODEL)).read_text())
    assert {"version", "saved", "model", "system", "settings", "messages"} == record.keys()
    assert (record["version"], record["system"], record["settings"]) == (1, None, {"seed": 1})
    assert record["messages"][2:] == [
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "", "finish_reason": "cancelled"},
    ]


@pytest.mark.parametrize("name", ["a", "2026-11-22", "zürich_1.b", "x" * 100])
def test_good_names_stay_in_the_folder(folder: Path, name: str) -> None:
    assert sessions.path_of(name) == folder / f"{name}.json"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "../x", "a b", "a\x00", "x" * 101, "ü" * 51,
             "CON", "nul.txt", "C:x", "~"],
)  # fmt: skip
def test_names_that_could_leave_the_folder_or_trouble_a_system_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a session"):
        sessions.path_of(name)


def record(**changes: Any) -> bytes:
    whole = {
        "version": 1,
        "model": {},
        "system": None,
        "settings": {},
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "finish_reason": "stop"},
        ],
    }
    return json.dumps(whole | changes).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (record()[:-20], "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is no saved session"),
        (b"{}", "'version' is missing"),
        (record(version=2), "version 2, this build reads 1"),
        (record(settings={"topp": 1}), "did you mean 'top_p'"),
        (record(settings={"top_k": "many"}), "top_k takes a whole number from 0"),
        (record(settings=[]), "is no saved session"),
        (record(system=3), "text expected, found int"),
        (record(model={"name": 1}), "text expected, found int"),
        (record(messages=[{"role": "user", "content": "q"}]), "not pairs of question and answer"),
        (record(messages={"a": 1, "b": 2}), "not pairs of question and answer"),
        (record(messages=[1, 2]), "is no saved session"),
        (record(view=3), "is no saved session"),
        (record(view={"n_dropped": 0}), "'key' is missing"),
        (record(view={"n_dropped": 1, "key": "k"}), "its view begins after turn 1 of 1"),
        (record(view={"n_dropped": -1, "key": "k"}), "its view begins after turn -1 of 1"),
        (record(view={"n_dropped": True, "key": "k"}), "its view begins after turn True of 1"),
        (record(view={"n_dropped": 0, "key": 1}), "text expected, found int"),
        (record(messages=[{"role": "user", "content": "q"}] * 2), "do not alternate"),
        (
            record(messages=[{"role": "user", "content": None}, {"role": "assistant"}]),
            "text expected, found NoneType",
        ),
        (
            record(messages=[{"role": "user", "content": "q"}, {"role": "assistant"}]),
            "'content' is missing",
        ),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(folder: Path, content: bytes, says: str) -> None:
    (folder / "bad.json").write_bytes(content)
    with pytest.raises(ValueError) as error:
        sessions.load("bad")
    message = str(error.value)
    assert message.startswith(str(folder / "bad.json")) and says in message
    assert "\n" not in message


def test_lone_surrogates_in_a_file_become_replacement_characters(folder: Path) -> None:
    content = record().replace(b'"content": "q"', b'"content": "\\ud800q"')
    (folder / "odd.json").write_bytes(content)
    assert sessions.load("odd").exchanges[0].question == "\ufffdq"


def test_an_enormous_file_is_not_read(folder: Path) -> None:
    with (folder / "huge.json").open("wb") as file:
        file.truncate(sessions.MAX_BYTES + 1)
    with pytest.raises(ValueError, match="it is no saved session"):
        sessions.load("huge")


def test_a_missing_session_names_the_nearest(folder: Path) -> None:
    (folder / "zurich.json").write_bytes(record())
    with pytest.raises(FileNotFoundError, match="no saved session 'zurih'; did you mean 'zurich'"):
        sessions.load("zurih")


def test_a_session_without_answers_reasons_loads(folder: Path) -> None:
    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (folder / "s.json").write_bytes(record(messages=plain))
    assert sessions.load("s").exchanges == [Exchange("q", "a", "stop")]
