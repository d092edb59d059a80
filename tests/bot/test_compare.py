"""/compare: two answers, and everything else stays as it was."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bot.conftest import Talk, ctrl_c_before_token
from tests.fakes import FakeModel, Reply, make_adapter

FACTS = "3 tokens, 10.0 tok/s"


@pytest.fixture
def adapters(home: Path) -> Path:
    folder = home / "data" / "adapters"
    for name in ("polite", "terse"):
        make_adapter(folder / name)
    return folder


def test_the_last_question_is_answered_without_and_with(talk: Talk, adapters: Path) -> None:
    keys = "/adapter polite\rHello\r/compare\rAnd?\r"
    session = talk(keys, "Hi.", "No.", "Yes, please.", "So.")
    at = session.lines.index(">>> /compare")
    assert session.lines[at + 1 :] == [
        "--- without adapter",
        "No.",
        "--- with polite",
        "Yes, please.",
        f"[without adapter: {FACTS}]",
        "[with polite: 12 tokens, 10.0 tok/s]",
        ">>> And?",
        "So.",
        ">>> ^D",
    ]
    prompts = session.model.prompts
    assert prompts[0] == prompts[1] == prompts[2]
    assert [e.answer for e in session.state.chat.exchanges] == ["Hi.", "So."]
    # the one in use comes last, so that nothing has to be put back
    assert session.model.adapters == ["polite", None, "polite"]


def test_a_text_is_asked_after_the_conversation(talk: Talk, adapters: Path) -> None:
    session = talk("/adapter polite\rHello\r/compare Where is Bern?\r", "Hi.", "A.", "B.")
    assert session.model.prompt_text(1) == session.model.prompt_text(2)
    assert "Where is Bern?" in session.model.prompt_text(1)
    assert "Hi." in session.model.prompt_text(1)
    assert [e.question for e in session.state.chat.exchanges] == ["Hello"]


def test_two_names_are_two_adapters_whatever_is_in_use(talk: Talk, adapters: Path) -> None:
    session = talk("Hello\r/compare polite terse\r", "Hi.", "P.", "T.")
    assert "--- with polite" in session.lines and "--- with terse" in session.lines
    assert session.model.adapters == ["polite", "terse", None]
    assert session.state.chat.settings.adapter is None


def test_one_name_is_compared_with_none(talk: Talk, adapters: Path) -> None:
    session = talk("Hello\r/compare terse\r", "Hi.", "T.", "N.")
    at = session.lines.index(">>> /compare terse")
    # none is in use, so that it comes last
    assert session.lines[at + 1 : at + 5] == ["--- with terse", "T.", "--- without adapter", "N."]


def test_an_adapter_by_its_path_is_called_by_its_last_name(talk: Talk, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "deep" / "mine")
    session = talk(f"/adapter {folder}\rHello\r/compare\r", "Hi.", "A.", "B.")
    assert "--- with mine" in session.lines


def test_both_sides_draw_with_the_same_seed(talk: Talk, adapters: Path) -> None:
    talk.flags = {}
    session = talk("/adapter polite\rHello\r/compare\r", "Hi.", "A.", "B.")
    seeds = [params.seed for params in session.model.params]
    assert seeds[1] == seeds[2] is not None
    assert session.state.chat.settings.seed is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "Hello\r/compare\r",
            "no adapter is in use, so there is nothing to compare with; /compare",
        ),
        ("/adapter polite\r/compare\r", "there is nothing to compare: no question was asked yet"),
        ("Hello\r/compare terse terse\r", "both sides would be terse"),
    ],
)
def test_where_there_are_no_two_sides_it_says_so(
    talk: Talk, adapters: Path, keys: str, said: str
) -> None:
    session = talk(keys, "Hi.")
    assert session.lines[-2].startswith(f"sparsechat: {said}")


def test_an_adapter_that_does_not_fit_leaves_the_one_in_use(talk: Talk, adapters: Path) -> None:
    model = FakeModel(misfits={"terse"})
    session = talk("/adapter polite\rHello\r/compare polite terse\r", "Hi.", model=model)
    assert session.lines[-2] == "sparsechat: the adapter terse was trained on another model"
    assert model.adapter is not None and model.adapter.name == "polite"


def test_ctrl_c_ends_it_and_the_adapter_in_use_is_back(talk: Talk, adapters: Path) -> None:
    stopped = Reply("Never said", during=ctrl_c_before_token(3))
    session = talk("/adapter polite\rHello\r/compare\rAnd?\r", "Hi.", stopped, "So.")
    assert "[without adapter: 3 tokens, 10.0 tok/s, stopped]" in session.lines
    assert "--- with polite" not in session.lines
    assert session.model.adapter is not None and session.model.adapter.name == "polite"
    assert [e.answer for e in session.state.chat.exchanges] == ["Hi.", "So."]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("width", "beside"), [(80, True), (50, False)])
def test_on_a_wide_terminal_they_stand_side_by_side(
    talk: Talk, adapters: Path, monkeypatch: pytest.MonkeyPatch, width: int, beside: bool
) -> None:
    from bot import comparing

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(comparing.terminal, "is_terminal", lambda stream: stream is sys.stdout)
    long = "A long answer that does not fit into one line of half a terminal's width."
    session = talk("/adapter polite\rHello\r/compare\r", "Hi.", "Short.", long)
    text = session.text
    if not beside:
        assert "--- without adapter\nShort.\n--- with polite\n" in text
        return
    at = session.lines.index(next(line for line in session.lines if "without adapter   " in line))
    assert session.lines[at : at + 4] == [
        f"{'without adapter':38} | with polite",
        f"{'-' * 15:38} | -----------",
        f"{'Short.':38} | A long answer that does not fit into",
        f"{'':38} | one line of half a terminal's width.",
    ]


def test_passages_are_shown_to_both_sides(talk: Talk, adapters: Path) -> None:
    from tests.fakes import FakeBase, passage

    talk.library.bases["town"] = FakeBase({"Bern": [passage("Bern is on the Aare.")]})
    talk.flags["kb"] = "town"
    talk.waits = True
    session = talk("/adapter polite\rWhere is Bern?\r/compare\r", "Aare.", "A.", "B.")
    prompts: Any = [session.model.prompt_text(i) for i in range(3)]
    assert prompts[0] == prompts[1] == prompts[2]
    assert "Bern is on the Aare." in prompts[0]
