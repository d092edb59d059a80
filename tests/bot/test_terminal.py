"""The shell on a real pseudo-terminal, in a process of its own, with a fake engine."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")

SCRIPT = Path(__file__).with_name("fake_sparsechat.py")
CTRL_C, CTRL_D = "\x03", "\x04"
PROMPT = ">>>"  # the line editor moves the cursor over the blank behind it
Start = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def start(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """start(scenario, *arguments) → the process on its terminal."""
    started = []
    monkeypatch.setenv("TERM", "xterm")
    # pexpect's terminal does not tell where its cursor is
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")

    def spawn(scenario: str, *arguments: str) -> pexpect.spawn[str]:
        words = [str(SCRIPT), scenario, "--model", "tiny", *arguments]
        child = pexpect.spawn(
            sys.executable, words, cwd=str(SCRIPT.parents[2]), encoding="utf-8", timeout=30
        )
        child.delaybeforesend = None
        started.append(child)
        return child

    yield spawn
    for child in started:
        child.close(force=True)


def ended(child: pexpect.spawn[str]) -> int | None:
    """Wait for the end; the exit code."""
    child.expect(pexpect.EOF)
    child.close()
    status: int | None = child.exitstatus
    return status


def test_a_whole_session(start: Start) -> None:
    child = start("talks")
    child.expect("sparsechat .* · tiny · /help lists the commands, Ctrl-D leaves")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect("Hi there.")
    child.expect(r"\[prompt \d+ \(0 cached, \d+ new\) .* stop · seed \d+\]")

    child.expect(PROMPT)
    child.send("Long one\r")
    child.expect(r"\(reading\)")
    child.send(CTRL_C)
    child.expect(r"\[stopped before the first word; /retry asks again\]")

    child.expect(PROMPT)
    child.send("Count\r")
    child.expect("One two")
    child.send(CTRL_C)
    child.expect(r"\[stopped; /continue goes on\]")
    assert "^C" not in child.before

    child.expect(PROMPT)
    child.send("/nosuch\r")
    child.expect("there is no /nosuch; /help lists the commands")

    child.expect(PROMPT)
    child.send("\x1b[200~first line\r\nsecond line\x1b[201~")
    child.expect("second line")
    child.send("\r")
    child.expect("Dà. 😀")
    child.expect(PROMPT)
    child.send("/history\r")
    child.expect(r"4> first line\r\nsecond line\r\nDà. 😀\r\n")
    child.expect(PROMPT)
    child.send(CTRL_D)
    assert ended(child) == 0


def test_ctrl_c_twice_leaves(start: Start) -> None:
    child = start("talks")
    child.expect(PROMPT)
    child.send(CTRL_C)
    child.expect("Ctrl-C again, or Ctrl-D, leaves")
    child.expect(PROMPT)
    child.send(CTRL_C)
    assert ended(child) == 0


def test_what_is_typed_during_an_answer_waits_for_the_prompt(start: Start) -> None:
    child = start("waits_for_keys")
    child.expect(PROMPT)
    child.send("Count\r")
    child.expect("One two")
    child.send("/bye\r" + CTRL_D)
    child.expect(" three\r\n")
    child.expect(PROMPT)
    child.expect("/bye")
    assert ended(child) == 0


def test_leaving_does_not_wait_for_a_model_that_is_loading(start: Start) -> None:
    child = start("loads_forever")
    child.expect(PROMPT)
    child.send(CTRL_D)
    assert ended(child) == 0


def test_ctrl_c_stops_waiting_for_the_model(start: Start) -> None:
    child = start("loads_forever")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect(r"compiling kernels \(first start\) …")
    child.send(CTRL_C)
    child.expect("stopped; the model goes on loading")
    child.expect(PROMPT)
    child.send(CTRL_D)
    assert ended(child) == 0


def test_an_engine_that_never_stops_is_left_after_the_third_ctrl_c(start: Start) -> None:
    child = start("deaf")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect(r"\(reading\)")
    for _ in range(3):
        child.send(CTRL_C)
        time.sleep(0.2)  # presses that come together are one signal
    assert ended(child) == 130


def test_a_model_that_does_not_load_is_told_above_the_waiting_prompt(start: Start) -> None:
    child = start("fails_to_load")
    child.expect("sparsechat: tiny.gguf: bad magic; /model NAME loads another")
    child.send("/model good\r")
    child.expect("good: good.gguf")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect("Hi there.")
    child.send(CTRL_D)
    assert ended(child) == 0


def test_escape_sequences_of_the_model_do_not_reach_the_terminal(start: Start) -> None:
    child = start("speaks_in_escapes")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect_exact("a␛]0;owned␇b\ufffd2Jc\td\r\ne")
    child.send(CTRL_D)
    assert ended(child) == 0


@pytest.mark.parametrize(("variable", "arguments"), [("TERM", []), (None, ["--plain"])])
def test_a_dumb_terminal_and_plain_see_no_escape_codes(
    start: Start, monkeypatch: pytest.MonkeyPatch, variable: str | None, arguments: list[str]
) -> None:
    if variable:
        monkeypatch.setenv(variable, "dumb")
    child = start("talks", *arguments)
    child.expect_exact(">>> ")
    child.send("Hello\r")
    child.expect("Hi there.")
    child.expect_exact("\r\n>>> ")
    assert "\x1b" not in child.before
    child.send(CTRL_C)
    child.expect_exact("leaves]\r\n>>> ")
    child.send(CTRL_D)
    assert ended(child) == 0
    assert "\x1b" not in child.before


def test_no_color_is_honoured(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    child = start("talks")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect(r"seed \d+\]")
    colours = re.findall(r"\x1b\[([0-9;]*)m", child.before + child.after)
    assert set(colours) <= {"", "0"}
    child.send(CTRL_D)
    assert ended(child) == 0


def test_history_is_kept_for_the_next_session_and_private(start: Start, home: Path) -> None:
    child = start("talks")
    child.expect(PROMPT)
    child.send("Hello\r")
    child.expect(r"seed \d+\]")
    child.send(CTRL_D)
    assert ended(child) == 0
    file = home / "state" / "history"
    assert file.stat().st_mode & 0o777 == 0o600
    child = start("talks")
    child.expect(PROMPT)
    child.send("\x1b[A\r")  # the arrow up
    child.expect("Hi there.")
    child.send(CTRL_D)
    assert ended(child) == 0


def test_ctrl_r_finds_an_earlier_line(start: Start) -> None:
    child = start("talks")
    child.expect(PROMPT)
    child.send("Hello world\r")
    child.expect(r"seed \d+\]")
    child.expect(PROMPT)
    child.send("\x12")
    child.expect("search")
    child.send("wor")
    child.expect("Hello .*wor.*ld")
    child.send("\r\r")
    child.expect(r"\(reading\)")
    child.send(CTRL_C)
    child.expect("stopped before the first word")
    child.expect(PROMPT)
    child.send("/history\r")
    child.expect("2> Hello world")
    child.send(CTRL_D)
    assert ended(child) == 0


def test_the_editor_writes_a_message(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text("#!/bin/sh\nprintf 'from the\\neditor' > \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    child = start("talks")
    child.expect(PROMPT)
    child.send("\x18\x05")
    child.expect("editor")
    child.send("\r")
    child.expect("Hi there.")
    child.expect(PROMPT)
    child.send("/history\r")
    child.expect("1> from the\r\neditor\r\n")
    child.send(CTRL_D)
    assert ended(child) == 0


def test_a_home_that_cannot_be_written_costs_one_warning_line(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSECHAT_HOME", str(tmp_path / "file" / "home"))
    child = start("talks")
    child.expect("warning: what you type is kept in memory only, and nothing is logged: .*\r\n")
    child.expect(PROMPT)
    assert "warning" not in child.before
    child.send("Hello\r")
    child.expect("Hi there.")
    child.send(CTRL_D)
    assert ended(child) == 0


def test_a_conversation_with_a_base_whose_vectors_come_meanwhile(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\necho "opened $*"\nread line\necho "read $line"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setenv("FAKE_ENCODER", str(tmp_path / "encoder"))
    child = start("knows", "--kb", "docs")
    child.expect(PROMPT)
    child.send("Where is Zurich?")
    child.expect(r"Zurich\?")
    (tmp_path / "encoder").touch()
    child.expect(r"\[the vectors of docs are ready: hybrid search from now on\]")
    child.expect(r"Zurich\?")  # drawn again: Enter is a line's end until then
    child.send("\r")
    child.expect("On a lake.\r\n.*fake_sparsechat.py:3 · score 0.90 · used")
    child.expect(PROMPT)
    child.send("/open 1\r")
    child.expect("Zurich lies on a lake.")
    child.expect(r"opened .*fake_sparsechat.py")
    child.send("a line\r")  # Enter is a line's end again while the editor has the terminal
    child.expect("read a line")
    child.expect(PROMPT)
    child.send("/kb off\r")
    child.expect("the model alone")
    child.expect(PROMPT)
    child.send(CTRL_D)
    assert ended(child) == 0


def test_leaving_does_not_wait_for_an_encoder_that_is_loading(start: Start) -> None:
    child = start("knows", "--kb", "docs")
    child.expect(PROMPT)
    child.send(CTRL_D)
    assert ended(child) == 0


def test_a_base_that_is_not_there_ends_before_the_shell(start: Start) -> None:
    child = start("knows", "--kb", "dox")
    child.expect("there is no knowledge base 'dox'")
    assert ended(child) == 3
