"""The command line as a process: exit codes, one line per error, light imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bot.__main__ import main

SCRIPT = Path(__file__).with_name("fake_sparsechat.py")
ROOT = SCRIPT.parents[2]
HEAVY = "{'numba', 'torch', 'faiss', 'transformers', 'sentence_transformers', 'llvmlite'}"


def run(*words: str, stdin: str | bytes | None = "", **variables: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a scenario of fake_sparsechat.py; stdin None = closed."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        input=data,
        stdin=None if data is not None else subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **variables},
        timeout=60,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def python(code: str, *words: str) -> str:
    """stdout of a child process that runs `code`."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    ).stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["chat", "--help"],
        ["ask", "--help"],
        ["kb", "--help"],
        ["kb", "list"],
        ["sparsity", "--help"],
        ["train", "--help"],
        ["train", "from-kb", "--help"],
        ["train", "check", "--help"],
        ["train", "plot", "--help"],
        ["train", "list"],
    ],
)
def test_help_imports_nothing_heavy(home: Path, words: list[str]) -> None:
    code = (
        "import sys, bot.__main__ as m\n"
        "code = m.main(sys.argv[1:])\n"
        f"print('heavy:', code, *({HEAVY} & set(sys.modules)))"
    )
    assert python(code, *words).splitlines()[-1] == "heavy: 0"


def test_the_banner_comes_before_anything_heavy(home: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    code = (
        "import sys, bot.__main__ as m, bot.terminal, bot.opening\n"
        "bot.terminal.is_terminal = lambda stream: True\n"
        f"show = lambda *_: print('heavy:', *({HEAVY} & set(sys.modules)))\n"
        "bot.opening.open_shell = show\n"
        "m.main(['--model', sys.argv[1]])"
    )
    lines = python(code, str(tmp_path / "tiny.gguf")).splitlines()
    assert lines[0].endswith(" · tiny · /help lists the commands, Ctrl-D leaves")
    assert lines[1:] == ["heavy:"]


def test_importing_the_entry_point_imports_nothing_heavy() -> None:
    code = f"import sys, bot.__main__; print('heavy:', *({HEAVY} & set(sys.modules)))"
    assert python(code).strip() == "heavy:"


def test_help_lists_every_verb(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for line in (
        "  ask       Ask one question; the answer goes to stdout, everything else to stderr.",
        "  chat      Talk with a model (this is what `sparsechat` alone does).",
    ):
        assert line in out.splitlines()


def test_help_shows_each_setting_with_its_built_in_value(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "--temperature X 0 takes the likeliest token, above 1 gets wild (0.6)",
        "--sample, --no-sample off = greedy: always the likeliest token (on)",
        "--model TEXT name of a model, GGUF file or model folder (smollm2-135m)",
    ):
        assert text in out
    assert "--plain" not in out


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sparsechat ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["why is the sky blue?"],
            "sparsechat: there is no verb 'why is the sky blue?'; "
            'to ask a question: sparsechat ask "…"',
        ),
        (
            ["modles"],
            "sparsechat: there is no verb 'modles'; did you mean 'models'?; "
            'to ask a question: sparsechat ask "…"',
        ),
        (
            ["chat", "--temprature", "1"],
            "sparsechat chat: unrecognized arguments: --temprature 1; did you mean --temperature?; "
            "see sparsechat chat --help",
        ),
        (
            ["--top-p", "1.5"],
            "sparsechat chat: argument --top-p: top_p takes a number above 0 up to 1, got '1.5'; "
            "see sparsechat chat --help",
        ),
        (
            ["ask", "--max-tokens", "none", "hi"],
            "sparsechat ask: argument --max-tokens: max_tokens takes a whole number from 1, "
            "got 'none'; see sparsechat ask --help",
        ),
        (
            ["ask", "--template", "chatmll", "hi"],
            "sparsechat ask: argument --template: template takes one of chatml, completion, "
            "human_bot, jinja, llama2, llama2_32k, mpt, plain, got 'chatmll'; see sparsechat ask "
            "--help",
        ),
        (
            ["ask", ""],
            'sparsechat ask: a question is missing: sparsechat ask "…", or text on standard input; '
            "see sparsechat ask --help",
        ),
        (
            ["ask", "--raw", "--system", "x", "hi"],
            "sparsechat ask: --raw sends the text as it is, so --system and --template do nothing; "
            "see sparsechat ask --help",
        ),
        (["chat", "--retrival"], None),
        (["chat", "--k", "0"], None),
        (["ask", "--temp", "1", "hi"], None),  # no abbreviations
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str | None,
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert line is None or captured.err == line + "\n"


@pytest.mark.parametrize("verb", ["chat", "ask"])
def test_a_model_that_is_nowhere_exits_3_with_the_way_out(home: Path, verb: str) -> None:
    code, out, err = run("talks", verb, "--model", "huge", stdin="Hello")
    assert (code, out) == (3, "")
    assert err == "sparsechat: no model 'huge'; `sparsechat models pull NAME` fetches one\n"


@pytest.mark.parametrize("words", [["chat"], ["ask", "hi"]])
def test_a_model_that_does_not_load_exits_1_when_nobody_can_choose_another(
    home: Path, words: list[str]
) -> None:
    code, out, err = run("fails_to_load", *words, "--model", "tiny", stdin="Hello\nHello\n")
    assert (code, out, err) == (1, "", "sparsechat: tiny.gguf: bad magic\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"temprature = 1\n", "there is no setting 'temprature'; did you mean 'temperature'?"),
        (b"top_k = 'many'\n", "top_k takes a whole number from 0, got 'many'"),
        (b"seed = true\n", "seed takes a whole number from 0, got True"),
        (b"= 1\n", "is not TOML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
    ],
)
def test_a_bad_config_file_is_one_line_that_names_it(
    home: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert main(["chat"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"sparsechat: {file}") and says in err
    assert err.count("\n") == 1


def test_a_bug_is_one_line_with_the_traceback_in_the_log(home: Path) -> None:
    code, out, err = run("has_a_bug", "ask", "hi", "--model", "tiny")
    log = home / "state" / "logs" / "sparsechat.log"
    assert (code, out) == (1, "")
    assert err == f"sparsechat: internal error: KeyError: 'oops'; details in {log}\n"
    assert "Traceback (most recent call last)" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_verbose_logs_to_stderr_too(home: Path) -> None:
    code, _, err = run("has_a_bug", "-v", "ask", "hi", "--model", "tiny")
    assert code == 1
    assert "Traceback (most recent call last)" in err


def test_without_a_place_for_the_log_a_bug_points_to_verbose(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("has_a_bug", "ask", "hi", "--model", "tiny")
    _, _, err = run(*words, SPARSECHAT_HOME=str(tmp_path / "file" / "home"))
    assert err == (
        "sparsechat: internal error: KeyError: 'oops'; run it with -v to see the details\n"
    )


def test_piped_lines_are_turns_and_only_answers_go_to_stdout(home: Path) -> None:
    code, out, err = run("cuts", "--model", "tiny", "--max-tokens", "3", stdin="Count\r\n\n")
    assert (code, out) == (0, "One\n")
    assert err.splitlines()[0] == "[length: 3 tokens; /continue goes on]"
    assert "\x1b" not in out + err


def test_a_last_line_without_an_end_is_a_turn_and_the_end_of_input_is_none(home: Path) -> None:
    code, out, _ = run("talks", "--model", "tiny", stdin="Hello")
    assert (code, out) == (0, "Hi there.\n")


@pytest.mark.parametrize("stdin", ["", None])
def test_no_input_at_all_leaves_quietly(home: Path, stdin: str | None) -> None:
    assert run("talks", "--model", "tiny", stdin=stdin) == (0, "", "")


def test_a_line_that_is_no_utf8_is_asked_with_its_bad_bytes_replaced(home: Path) -> None:
    lines = b"Hello \xff\xfe\n/history\n"
    code, out, _ = run("talks", "--model", "tiny", "--no-stream", stdin=lines)
    assert (code, out) == (0, "Hi there.\n1> Hello \ufffd\ufffd\nHi there.\n")


def test_output_is_utf8_in_every_locale(home: Path) -> None:
    code, out, _ = run(
        "talks", "--model", "tiny", stdin="é\n/history\n", LC_ALL="C", PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert (code, out) == (0, "Hi there.\n1> é\nHi there.\n")


def test_a_reader_that_goes_away_ends_it_quietly(home: Path) -> None:
    words = [sys.executable, str(SCRIPT), "never_stops", "ask", "--model", "tiny", "hi"]
    with subprocess.Popen(
        [*words, "--max-tokens", "500000"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"blah\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.parametrize("words", [["ask", "Count"], ["chat"]])
def test_ctrl_c_without_a_terminal_prints_what_there_is_and_exits_130(
    home: Path, words: list[str]
) -> None:
    command = [sys.executable, str(SCRIPT), "cuts", *words, "--model", "tiny"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"1 2 3\nnever asked\n")
        process.stdin.close()
        assert process.stdout.read(7) == b"One two"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"\n"
        assert process.wait(60) == 130


def test_settings_come_from_variables_too_and_typos_in_them_are_told(home: Path) -> None:
    code, out, err = run(
        "talks", "--temperature", "0", stdin="/show\n", SPARSECHAT_MODEL="tiny",
        SPARSECHAT_TOP_K="7", SPARSECHAT_TEMPRATURE="1", SPARSECHAT_SEED="",
    )  # fmt: skip
    assert code == 0
    assert err == (
        "warning: SPARSECHAT_TEMPRATURE is not a setting; did you mean SPARSECHAT_TEMPERATURE?\n"
    )
    rows = [line.split() for line in out.splitlines()]
    assert ["temperature", "0.0", "--temperature"] in rows
    assert ["top_k", "7", "SPARSECHAT_TOP_K"] in rows
    assert ["max_tokens", "512", "built-in"] in rows


def test_a_bad_variable_is_one_line(home: Path) -> None:
    code, out, err = run("talks", "--model", "tiny", SPARSECHAT_TOP_P="0")
    assert (code, out) == (1, "")
    assert err == "sparsechat: SPARSECHAT_TOP_P: top_p takes a number above 0 up to 1, got '0'\n"
