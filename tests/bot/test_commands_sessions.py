"""/save and /load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bot.conftest import Talk
from tests.fakes import FakeModel


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "no model 'nosuch'; `sparsechat models pull NAME` fetches one"),
        ("bad", "bad.gguf: bad magic"),
        ("mute", "mute.gguf has no tokenizer, so it gives numbers and no text; "
                 "choose another model"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_leaves_the_one_in_use(
    talk: Talk, name: str, message: str
) -> None:
    talk.engine.models |= {
        "bad": ValueError("bad.gguf: bad magic"),
        "mute": FakeModel(tokenizer=None),
    }
    session = talk(f"Hello\r/model {name}\rAnd?\r", "Hi.", "Still here.")
    assert session.lines[3:] == [f"sparsechat: {message}", ">>> And?", "Still here.", ">>> ^D"]
    assert not session.model.is_closed
    assert session.state.config.settings().model == "tiny"


def test_save_and_load_bring_the_conversation_back(talk: Talk, home: Path) -> None:
    session = talk(
        "/set top_k=3 system=Brief.\rHello\r/save first-one\r/new\r/load first-one\rAnd?\r",
        "Hi.", "So.",
    )  # fmt: skip
    path = home / "data" / "sessions" / "first-one.json"
    assert f"saved as first-one ({path})" in session.lines
    assert "loaded first-one: 1 turn" in session.lines
    assert [e.question for e in session.state.chat.exchanges] == ["Hello", "And?"]
    assert "Hi." in session.model.prompt_text()
    assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) in [(0, 0), (0o44, 0)]


def test_a_loaded_session_brings_its_settings_below_flags(talk: Talk) -> None:
    talk("/set top_k=3 top_p=0.5 system=Brief.\rHello\r/save s\r", "Hi.")
    talk.flags["top_k"] = 9
    session = talk("/load s\r/set top_p=\r")
    assert session.lines[1:] == [
        "loaded s: 1 turn",
        "top_k = 3 (but --top-k decides)",
        "top_p = 0.5",
        "system = Brief.",
        ">>> /set top_p=",
        "top_p = 1.0 (built-in)",
        ">>> ^D",
    ]


def test_loading_with_another_model_warns(talk: Talk) -> None:
    talk("Hello\r/save s\r", "Hi.")
    talk.engine.models["tiny"] = FakeModel(fingerprint="e" * 64)
    session = talk("/model\r/load s\r")
    assert session.lines[-2] == (
        "warning: this conversation was held with tiny, the model now is tiny; "
        "its answers may differ in kind"
    )


def test_another_session_is_replaced_only_by_force(talk: Talk) -> None:
    talk("Hello\r/save s\r", "Hi.")
    session = talk("Yo\r/save s\r/save s --force\rAnd?\r/save\r", "Yo.", "So.")
    saved = [line for line in session.lines if line.startswith(("saved", "sparsechat"))]
    assert saved[0] == ("sparsechat: another session is called 's'; /save s --force replaces it")
    assert [line.split(" (")[0] for line in saved[1:]] == ["saved as s", "saved as s"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/save", "nothing was said yet, so there is nothing to save"),
        ("/save a b", "a session's name is one word, got 'a b'"),
        ("/load", "/load needs a name; saved: none yet"),
        ("/load nosuch", "there is no saved session 'nosuch'"),
        ("/load ../../etc/passwd", "'../../etc/passwd' cannot name a session: letters, digits, "
                                   "'-', '_' and '.', not '.' first, at most 100 bytes"),
    ],
)  # fmt: skip
def test_save_and_load_refuse_in_one_line(talk: Talk, line: str, message: str) -> None:
    session = talk(f"{line}\r")
    assert session.lines[1] == f"sparsechat: {message}"


def test_a_save_that_cannot_be_written_is_one_line(talk: Talk, home: Path) -> None:
    (home / "data").parent.mkdir(parents=True, exist_ok=True)
    (home / "data").write_text("in the way")
    session = talk("Hello\r/save s\rAnd?\r", "Hi.", "Still here.")
    assert session.lines[3].startswith("sparsechat: cannot ")
    assert session.lines[5] == "Still here."
