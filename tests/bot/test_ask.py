"""`sparsechat ask`, in this process."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from bot.__main__ import main
from tests.bot.conftest import press_ctrl_c
from tests.fakes import FakeEngine, FakeModel, Reply, replies


class Asked:
    """Asks a fake model called tiny."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.model = FakeModel()

    def __call__(
        self, *words: str, stdin: str | None = None, reply: str | Reply = "Bern."
    ) -> tuple[int, str, str]:
        self.model.replies.extend(replies(reply))
        FakeEngine({"tiny": self.model}).install_in(self._monkeypatch.setitem)
        self._monkeypatch.setattr(sys, "stdin", None if stdin is None else io.StringIO(stdin))
        code = main(["ask", "--model", "tiny", *words])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked(monkeypatch, capsys)


def question(asked: Asked) -> str:
    text = asked.model.prompt_text()
    return text.removeprefix("<|im_start|>user\n").removesuffix(
        "<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("words", [("What", "is", "it?"), ("What is it?",)])
def test_the_answer_is_all_that_stdout_gets(asked: Asked, words: tuple[str, ...]) -> None:
    assert asked(*words) == (0, "Bern.\n", "")
    assert question(asked) == "What is it?"


@pytest.mark.parametrize(
    ("words", "stdin", "text"),
    [
        (["Summarise:"], "line 1\nline 2\n", "Summarise:\nline 1\nline 2"),
        ([], "only this\n", "only this"),
        (["only that"], "", "only that"),
        (["x"], "\n", "x"),
    ],
)
def test_standard_input_is_put_behind_the_question(
    asked: Asked, words: list[str], stdin: str, text: str
) -> None:
    assert asked(*words, stdin=stdin)[0] == 0
    assert question(asked) == text


@pytest.mark.parametrize(("words", "stdin"), [([], None), ([""], ""), (["  "], "\n")])
def test_an_empty_question_is_a_usage_error(
    asked: Asked, words: list[str], stdin: str | None
) -> None:
    code, out, err = asked(*words, stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("sparsechat ask: a question is missing")


def test_json_is_one_object_with_everything(asked: Asked) -> None:
    code, out, err = asked("Capital?", "--json", "--seed", "5", reply="Bern \x1b 😀")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert json.loads(out) == {
        "answer": "Bern \x1b 😀",
        "tokens": {"prompt": 27, "cached": 0, "new": 8, "drafted": 0, "accepted": 0},
        "timings": {"prefill_s": 0.27, "time_to_first_token_s": 0.37, "decode_s": 0.8},
        "reason": "stop",
        "model": {"name": "tiny", "fingerprint": "f" * 64, "weight_format": "q8"},
        "seed": 5,
    }


def test_flags_reach_the_engine(asked: Asked) -> None:
    asked(
        "hi", "--max-tokens", "9", "--temperature", "0.3", "--top-k", "5", "--top-p", "0.8",
        "--min-p", "0.1", "--repetition-penalty", "1.2", "--seed", "3", "--beams", "2",
        "--length-penalty", "-1", "--stop", "x", "--stop", r"\n", "--system", "Be brief.",
        "--no-stream", "--no-lookup",
    )  # fmt: skip
    params = asked.model.params[0]
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p) == (9, 0.3, 5, 0.8)
    assert (params.min_p, params.repetition_penalty, params.seed) == (0.1, 1.2, 3)
    assert (params.beams, params.length_penalty, params.lookup) == (2, -1.0, False)
    assert params.stop[:2] == ("x", "\n")
    assert asked.model.prompt_text().startswith("<|im_start|>system\nBe brief.<|im_end|>")


@pytest.mark.parametrize(("flag", "temperature"), [("--sample", 0.6), ("--no-sample", 0.0)])
def test_sampling_can_be_turned_off(asked: Asked, flag: str, temperature: float) -> None:
    asked("hi", flag)
    assert asked.model.params[0].temperature == temperature


def test_raw_sends_the_text_without_a_template(asked: Asked) -> None:
    assert asked("Once upon", "--raw", reply=" a time") == (0, "a time\n", "")
    assert asked.model.prompt_text() == "Once upon"


@pytest.mark.parametrize(
    ("words", "reply", "note"),
    [
        (["--max-tokens", "2"], "Bern", "[length: 2 tokens]\n"),
        (["--stop", "n"], "Bern", "[stop: one of your stop texts]\n"),
        ([], "", "[the model had nothing to say]\n"),
        ([], "Bern", ""),
    ],
)
def test_an_answer_that_did_not_end_by_itself_says_so_on_stderr(
    asked: Asked, words: list[str], reply: str, note: str
) -> None:
    code, _, err = asked("hi", *words, reply=reply)
    assert (code, err) == (0, note)


def test_verbose_shows_the_stats(asked: Asked) -> None:
    _, out, err = asked("hi", "-v")
    assert out == "Bern.\n"
    assert "[prompt 21 (0 cached, 21 new) · first token 0.31 s" in err


def test_ctrl_c_prints_what_there_is_as_json_too_and_exits_130(asked: Asked) -> None:
    cut = Reply("Bern", during=lambda n, cancel: press_ctrl_c(cancel) if n == 2 else None)
    code, out, _ = asked("hi", "--json", reply=cut)
    assert code == 130
    record = json.loads(out)
    assert (record["answer"], record["reason"]) == ("Be", "cancelled")


def test_a_question_beyond_the_context_is_one_line(asked: Asked) -> None:
    code, out, err = asked("x" * 5000)
    assert (code, out) == (1, "")
    assert "takes 5,019 tokens" in err and "3,584 fit" in err and err.count("\n") == 1


def test_a_model_without_a_tokenizer_is_one_line(asked: Asked) -> None:
    asked.model.tokenizer = None
    code, out, err = asked("hi")
    assert (code, out) == (1, "")
    assert err == (
        "sparsechat: tiny.gguf has no tokenizer, so it gives numbers and no text; "
        "choose another model\n"
    )
