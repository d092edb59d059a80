from __future__ import annotations

import io
import sys

import pytest

from bot import render
from bot.render import AnswerWriter, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[2J\x1b]52;c;AAAA\x07", "␛[2J␛]52;c;AAAA␇"),
        ("\x9b31m", "\ufffd31m"),  # an escape sequence's beginning in one byte
        ("a\rb\x08\x7f\x00", "a␍b␈␡␀"),
        ("one\r\ntwo", "one\ntwo"),
        ("é 😀 漢", "é 😀 漢"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown


def written(pieces: list[str], streaming: bool = True) -> str:
    writer = AnswerWriter(streaming)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    stdout = sys.stdout
    assert isinstance(stdout, io.StringIO)
    return stdout.getvalue()


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([" Hello", " you", "\n"], "Hello you\n"),
        (["\n", "\n", " ", "Hi", " \n", "\n", "there", "\n\n"], "Hi \n\nthere\n"),
        (["    return 1"], "    return 1\n"),  # indentation stays
        ([" ", "\n"], ""),
        ([], ""),
        (["a\r", "\nb"], "a\nb\n"),
    ],
)
def test_an_answer_is_written_without_blank_edges(
    monkeypatch: pytest.MonkeyPatch, pieces: list[str], text: str, streaming: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert written(pieces, streaming) == text


def test_an_error_is_one_line_whatever_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    render.complain(ValueError("first\n  second\x1b[31m"))
    render.complain(KeyboardInterrupt())
    assert capsys.readouterr().err == (
        "sparsechat: first second␛[31m\nsparsechat: KeyboardInterrupt\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"TERM": "xterm"}, "\x1b[2m[hint]\x1b[0m\n"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "[hint]\n"),
        ({"TERM": "xterm", "NO_COLOR": ""}, "\x1b[2m[hint]\x1b[0m\n"),
        ({"TERM": "dumb"}, "[hint]\n"),
    ],
)
def test_notes_are_dimmed_only_where_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal())
    render.note("hint")
    assert sys.stderr.getvalue() == line  # type: ignore[attr-defined]


def test_plain_means_no_colour_and_no_moving_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(render, "_plain", False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    render.use_plain()
    render.note("hint")
    status = render.Status()
    status.show("50 %")
    status.clear()
    assert sys.stderr.getvalue() == "[hint]\n"  # type: ignore[attr-defined]


def test_a_status_line_is_taken_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    status = render.Status()
    status.clear()
    status.show("50 %")
    status.clear()
    status.clear()
    assert sys.stderr.getvalue() == "\r\x1b[K50 %\r\x1b[K"  # type: ignore[attr-defined]


def test_nothing_is_printed_where_there_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    render.err("lost")
    monkeypatch.setattr(sys, "stdout", None)
    render.ask_for_line("lost")
