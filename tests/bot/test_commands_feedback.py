"""/good, /bad and /fix, and that training reads what they write."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from bot import editing, feedback
from data.datasets import BadRow, Row
from data.training_rows import open_rows
from tests.bot.conftest import Talk
from tests.fakes import FakeBase, make_adapter, passage


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in feedback.path().read_text().splitlines()]


def learned() -> list[Row | BadRow]:
    return list(open_rows(str(feedback.path())).each())


def test_a_good_answer_becomes_a_row_with_the_prompt_that_it_had(talk: Talk, home: Path) -> None:
    make_adapter(home / "data" / "adapters" / "polite")
    session = talk("/system Be brief.\r/adapter polite\rHello\rAnd?\r/good\r", "Hi.", "So.")
    assert session.lines[-2] == f"kept as good in {home}/data/feedback/answers.jsonl"
    (row,) = rows()
    assert row["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi.", "weight": 0},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "So."},
    ]
    assert row["rating"] == "good"
    assert row["prompt"]["token_ids"] == session.model.prompts[-1]
    assert row["prompt"]["text"] == session.model.prompt_text()
    assert row["model"] == {"name": "tiny", "fingerprint": "f" * 64, "weight_format": "q8"}
    assert row["adapter"]["name"] == "polite"
    (trained,) = learned()
    assert isinstance(trained, Row)
    assert [(t.role, t.content, t.trained) for t in trained.turns] == [
        ("system", "Be brief.", False),
        ("user", "Hello", False),
        ("assistant", "Hi.", False),
        ("user", "And?", False),
        ("assistant", "So.", True),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are Unix's")
def test_only_their_owner_can_read_them(talk: Talk) -> None:
    before = os.umask(0)
    try:
        talk("Hello\r/good\r/bad\r", "Hi.")
    finally:
        os.umask(before)
    assert stat.S_IMODE(feedback.path().stat().st_mode) == 0o600
    assert stat.S_IMODE(feedback.path().parent.stat().st_mode) == 0o700


def test_a_bad_answer_is_kept_and_not_learned(talk: Talk) -> None:
    talk("Hello\r/bad\rAnd?\r/good\r", "Hi.", "So.")
    assert [row["rating"] for row in rows()] == ["bad", "good"]
    bad, good = learned()
    assert isinstance(bad, BadRow) and bad.reason == "it was rated bad, so it is not learned"
    assert isinstance(good, Row)


def test_a_later_rating_takes_the_place_of_an_earlier_one(talk: Talk) -> None:
    session = talk("Hello\r/good\rAnd?\r/good\r/bad\r", "Hi.", "So.")
    assert session.lines[-2].endswith("answers.jsonl, in place of the earlier rating")
    assert [(row["rating"], row["messages"][-1]["content"]) for row in rows()] == [
        ("good", "Hi."),
        ("bad", "So."),
    ]


def test_rows_of_other_shells_are_appended_to(talk: Talk) -> None:
    talk("Hello\r/good\r", "Hi.")
    with feedback.path().open("ab") as file:
        file.write(b'{"cut')
    talk("Other\r/good\r")
    lines = feedback.path().read_text().splitlines()
    assert lines[1] == '{"cut'
    assert [json.loads(lines[i])["messages"][0]["content"] for i in (0, 2)] == ["Hello", "Other"]


def test_a_correction_is_learned_and_the_conversation_goes_on_from_it(talk: Talk) -> None:
    session = talk("Capital?\r/fix Bern.\rSure?\r", "Zurich.", "Yes.")
    assert "; the conversation goes on from it" in session.text
    (row,) = rows()
    assert (row["rating"], row["rejected"]) == ("fixed", "Zurich.")
    assert row["messages"][-1] == {"role": "assistant", "content": "Bern."}
    assert "Bern." in session.model.prompt_text() and "Zurich" not in session.model.prompt_text()
    assert [e.answer for e in session.state.chat.exchanges] == ["Bern.", "Yes."]
    assert isinstance(learned()[0], Row)


def test_a_correction_of_a_correction_replaces_it(talk: Talk) -> None:
    session = talk("Capital?\r/fix Basel.\r/fix Bern.\r/good\r", "Zurich.")
    (row,) = rows()
    assert (row["rejected"], row["messages"][-1]["content"]) == ("Zurich.", "Bern.")
    assert session.lines[-2] == "sparsechat: the answer is your own, and is kept already"
    talk("Capital?\r/fix Bern.\r/bad\r")
    assert [row["rating"] for row in rows()] == ["bad"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("/good\r", "there is nothing to rate: no question was asked yet"),
        ("/fix x\r", "there is nothing to fix: no question was asked yet"),
        ("Hello\r/good yes\r", "/good is about the last answer and takes nothing, got 'yes'"),
        ("Hello\r/fix Hi.\r", "nothing was changed; /good keeps the answer as it is"),
    ],
)
def test_what_cannot_be_rated_is_said(talk: Talk, keys: str, said: str) -> None:
    session = talk(keys, "Hi.")
    assert session.lines[-2] == f"sparsechat: {said}"
    assert not feedback.path().exists()


def test_passages_are_part_of_the_row(talk: Talk) -> None:
    talk.library.bases["town"] = FakeBase({"Bern": [passage("Bern is on the Aare.")]})
    talk.flags["kb"] = "town"
    talk.waits = True
    session = talk("Where is Bern?\r/good\r", "On the Aare.")
    (row,) = rows()
    assert "Bern is on the Aare." in row["prompt"]["text"]
    assert row["prompt"]["token_ids"] == session.model.prompts[-1]


def test_an_answer_that_was_cut_teaches_no_end(talk: Talk) -> None:
    session = talk("Hello\r/set max_tokens=2\rAnd?\r/good\r/bad\r", "Hi.", "So it is.")
    assert "sparsechat: the last answer was cut short, which is nothing to learn; " in session.text
    assert [row["rating"] for row in rows()] == ["bad"]


# ---- the editor ---------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing.terminal, "is_terminal", lambda stream: True)
    monkeypatch.delenv("VISUAL", raising=False)


def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """An EDITOR of Python code that has `path`."""
    script = tmp_path / "editor.py"
    script.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n{code}\n")
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")


def test_the_editor_gets_the_answer_and_gives_the_corrected_one(
    terminal: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    editor(monkeypatch, tmp_path, "path.write_text(path.read_text().replace('Zürich', 'Bern'))")
    assert editing.edited("It is Zürich.\nYes.") == "It is Bern.\nYes."


def test_an_editor_that_fails_changes_nothing(
    terminal: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    editor(monkeypatch, tmp_path, "sys.exit(3)")
    with pytest.raises(ValueError, match="ended with code 3; the answer stays as it is"):
        editing.edited("text")
    monkeypatch.setenv("EDITOR", "no-such-editor-anywhere")
    with pytest.raises(ValueError, match="no-such-editor-anywhere could not be started"):
        editing.edited("text")
    monkeypatch.setenv("EDITOR", "'open")
    with pytest.raises(ValueError, match="a quotation mark has no partner"):
        editing.edited("text")


def test_without_a_terminal_the_text_has_to_be_given(talk: Talk) -> None:
    session = talk("Hello\r/fix\r", "Hi.")
    said = "there is no terminal for an editor; put the text behind the command"
    assert session.lines[-2] == f"sparsechat: {said}"
