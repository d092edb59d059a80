from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from bot import commands, sessions
from bot.interrupts import Interrupts
from bot.prompt import Exchange
from bot.reader import CommandCompleter, PlainReader
from bot.sessions import Session
from tests.bot.conftest import Talk


@pytest.fixture
def completer(talk: Talk) -> CommandCompleter:
    state = talk("").state
    return CommandCompleter(lambda text: commands.complete(state, text))


def every_name() -> list[str]:
    return [name for entry in commands.table().values() for name in (entry.name, *entry.aliases)]


def completed(completer: CommandCompleter, text: str) -> list[str]:
    """The line after each candidate was taken."""
    found = completer.get_completions(Document(text), CompleteEvent())
    return [text[: len(text) + c.start_position] + c.text for c in found]


def test_commands_and_their_aliases_are_completed(completer: CommandCompleter) -> None:
    assert completed(completer, "/sa") == ["/save", "/say"]
    assert completed(completer, "/raw-") == ["/raw_prompt", "/raw_say"]
    assert completed(completer, "/") == sorted(f"/{name}" for name in every_name())


@pytest.mark.parametrize("text", ["", "hello /sa", "//sa", "/nosuch x", "/quit ", "/say\n/sa"])
def test_text_and_finished_words_are_left_alone(completer: CommandCompleter, text: str) -> None:
    assert completed(completer, text) == []


def test_names_of_settings_are_completed_for_each_word(completer: CommandCompleter) -> None:
    assert completed(completer, "/set temp") == ["/set temperature=", "/set template="]
    assert completed(completer, "/set top_k=1 min") == ["/set top_k=1 min_p="]
    assert "/set model=" not in completed(completer, "/set ")
    assert completed(completer, "/retry thr") == []


def test_saved_sessions_and_commands_are_completed(completer: CommandCompleter, home: Path) -> None:
    sessions.save("zurich", Session([Exchange("q", "a")], {}, {}))
    assert completed(completer, "/load z") == ["/load zurich"]
    assert completed(completer, "/help hyp") == ["/help hyperparameters"]


def test_models_are_completed_and_none_is_no_error(completer: CommandCompleter) -> None:
    assert completed(completer, "/model ") == []


def test_a_completer_that_fails_gives_no_candidates() -> None:
    def fail(text: str) -> list[tuple[str, int, str]]:
        raise OSError("the disk is gone")

    assert completed(CommandCompleter(fail), "/load x") == []


def lines_of(data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace")
    monkeypatch.setattr(sys, "stdin", stream)
    reader, lines = PlainReader(Interrupts()), []
    while True:
        try:
            lines.append(reader.read())
        except EOFError:
            return lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\n\r\ntwo", ["one", "", "two"]),
        (b"  /help \n", ["  /help "]),
        (b"a\x00b\x1b\n", ["a\x00b\x1b"]),
        (b"\xff\n", ["\ufffd"]),
        (b"x" * 1_000_000 + b"\n", ["x" * 1_000_000]),
    ],
)
def test_plain_lines_are_read_to_the_end(
    monkeypatch: pytest.MonkeyPatch, data: bytes, lines: list[str]
) -> None:
    assert lines_of(data, monkeypatch) == lines


def test_a_closed_standard_input_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    reader = PlainReader(Interrupts())
    for _ in range(2):
        with pytest.raises(EOFError):
            reader.read()
