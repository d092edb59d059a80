"""`sparsechat ask`, in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.__main__ import main
from tests.bot.conftest import press_ctrl_c
from tests.fakes import (
    FakeBase,
    FakeEngine,
    FakeLibrary,
    FakeModel,
    Reply,
    fake_cost,
    make_adapter,
    passage,
    replies,
)


class Asked:
    """Asks a fake model called tiny."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.model = FakeModel()
        self.calibrating: Callable[[Callable[[str, float], None]], None] | None = None

    def __call__(
        self, *words: str, stdin: str | None = None, reply: str | Reply = "Bern."
    ) -> tuple[int, str, str]:
        self.model.replies.extend(replies(reply))
        self.engine = FakeEngine({"tiny": self.model}, calibrating=self.calibrating)
        self.engine.install_in(self._monkeypatch.setitem)
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
        "adapter": None,
        "seed": 5,
        "sparsity": {"level": "off"},
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


def test_a_level_without_a_calibration_gets_one_and_json_tells_what_it_costs(
    asked: Asked,
) -> None:
    code, out, err = asked("Capital?", "--json", "--sparsity", "balanced")
    assert (code, asked.engine.calibrations) == (0, 1)
    assert err == (
        "[calibrating sparsity, once for this model; Ctrl-C leaves it out]\n"
        "[sparsity was calibrated in 0 s, once for this model]\n"
    )
    found = json.loads(out)["sparsity"]
    assert (found["level"], found["kl"], found["same_likeliest"]) == ("balanced", 0.01, 0.99)
    assert (found["bytes_per_token"], found["dense_bytes_per_token"]) == (82e6, 96e6)
    assert (found["tokens_per_s"], found["dense_tokens_per_s"]) == (125.0, 100.0)
    assert found["parts"][0]["name"] == "head"


def test_a_calibrated_level_is_silent(asked: Asked) -> None:
    asked.model.costs = {"fast": fake_cost("fast")}
    assert asked("Capital?", "--sparsity", "fast") == (0, "Bern.\n", "")
    assert asked.model.levels == ["fast"]


def test_a_calibration_that_fails_leaves_the_answer_dense(asked: Asked) -> None:
    def fail(on_progress: object) -> None:
        raise OSError("No space left on device")

    asked.calibrating = fail
    code, out, err = asked("Capital?", "--json", "--sparsity", "0.5")
    assert code == 0 and json.loads(out)["sparsity"] == {"level": "off"}
    assert err.endswith("[sparsity is off: No space left on device]\n")


@pytest.mark.parametrize("given", ["fas", "0.95", "-1", ""])
def test_a_level_that_does_not_exist_is_a_usage_error(asked: Asked, given: str) -> None:
    code, out, err = asked("Capital?", "--sparsity", given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    rule = "sparsity takes auto, off, exact, balanced, fast, or a number from 0 to 0.9"
    assert f"{rule}, got {given!r}" in err


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


ZURICH = passage("Zurich lies on a lake in Switzerland.")


@pytest.fixture
def docs(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> FakeBase:
    """The base docs, which knows Zurich."""
    base = FakeBase({"Zurich": [ZURICH]})
    FakeLibrary({"docs": base}).install_in(monkeypatch.setitem)
    return base


def test_a_grounded_answer_brings_its_citations(asked: Asked, docs: FakeBase) -> None:
    code, out, err = asked("Where is Zurich?", "--kb", "docs", reply="On a lake.")
    assert (code, err) == (0, "")
    assert out == "On a lake.\n[1] Zurich · /docs/zurich.txt:3 · score 0.90 · used\n"
    assert "user\nUse this:\nZurich lies on a lake" in asked.model.prompt_text()


def test_a_grounded_answer_as_json_has_passages_with_spans_scores_and_mode(
    asked: Asked, docs: FakeBase
) -> None:
    words = ("Where is Zurich?", "--kb", "docs", "--json", "--k", "1")
    code, out, err = asked(*words, reply="On a lake.")
    assert (code, err) == (0, "")
    retrieval = json.loads(out)["retrieval"]
    assert (retrieval["base"], retrieval["mode"], retrieval["query"]) == (
        "docs", "hybrid", "Where is Zurich?",
    )  # fmt: skip
    (found,) = retrieval["passages"]
    assert found["text"] == ZURICH.text
    assert (found["start"], found["end"], found["score"]) == (10, 10 + len(ZURICH.text), 0.9)
    assert (found["dense"], found["lexical"], found["used"]) == (0.8, 7.5, True)
    assert docs.queries == [("Where is Zurich?", 1, 5, 0.5, "hybrid", None)]


def test_retrieval_means_wikipedia(asked: Asked, docs: FakeBase) -> None:
    code, out, err = asked("Where is Zurich?", "--retrieval")
    assert (code, out) == (3, "")
    assert err == (
        "sparsechat: there is no knowledge base wikipedia yet; `sparsechat kb create wikipedia` "
        "makes it\n"
    )
    assert asked.model.prompts == []


def test_an_unknown_base_exits_3(asked: Asked, docs: FakeBase) -> None:
    code, out, err = asked("Where is Zurich?", "--kb", "dox")
    assert (code, out, err.count("\n")) == (3, "", 1)


def test_nothing_found_is_said_and_answered_without(asked: Asked, docs: FakeBase) -> None:
    code, out, err = asked("Where is Basel?", "--kb", "docs", reply="On the Rhine.")
    assert (code, out) == (0, "On the Rhine.\n")
    assert err == "[nothing found in docs; answered without it]\n"
    assert "Use this" not in asked.model.prompt_text()


def test_require_evidence_exits_4_without_any(asked: Asked, docs: FakeBase) -> None:
    words = ("Where is Basel?", "--kb", "docs", "--require-evidence")
    code, out, err = asked(*words, reply="On the Rhine.")
    assert (code, out) == (4, "")
    assert err == "[nothing found in docs; not answered]\n"
    assert asked.model.prompts == []
    code, out, _ = asked(*words, "--json")
    assert code == 4
    assert json.loads(out)["answer"] is None and json.loads(out)["reason"] == "no_evidence"


def test_require_evidence_exits_4_for_an_answer_out_of_the_blue(
    asked: Asked, docs: FakeBase
) -> None:
    words = ("Where is Zurich?", "--kb", "docs", "--require-evidence")
    code, out, err = asked(*words, reply="In Australia.")
    assert (code, out) == (4, "")
    assert err == "[the answer drew on none of the passages, so it is not shown]\n"


def test_require_evidence_shows_an_answer_that_has_some(asked: Asked, docs: FakeBase) -> None:
    words = ("Where is Zurich?", "--kb", "docs", "--require-evidence")
    code, out, _ = asked(*words, reply="On a lake.")
    assert (code, out.splitlines()[0]) == (0, "On a lake.")


@pytest.mark.parametrize(
    "words", [["--require-evidence"], ["--raw", "--kb", "docs"], ["--raw", "--require-evidence"]]
)
def test_evidence_where_there_can_be_none_is_a_usage_error(
    asked: Asked, docs: FakeBase, words: list[str]
) -> None:
    code, out, err = asked("hi", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_without_the_encoder_words_are_searched_and_that_is_said(
    asked: Asked, docs: FakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.encoder import EncoderMissingError

    def missing(name: str) -> object:
        raise EncoderMissingError("the encoder minilm is not installed")

    library = FakeLibrary({"docs": docs}, missing)
    library.install_in(monkeypatch.setitem)
    code, out, err = asked("Where is Zurich?", "--kb", "docs", reply="On a lake.")
    assert code == 0 and "[1] Zurich" in out
    assert err == (
        "[docs is searched by words alone: the encoder minilm is not installed]\n"
        "[1 passage from docs, lexical only: the encoder minilm is not installed]\n"
    )


def test_one_question_makes_no_vectors(asked: Asked, docs: FakeBase) -> None:
    docs.n_embedded = 0
    asked("Where is Zurich?", "--kb", "docs")
    assert docs.n_embedded == 0


def test_an_adapter_answers_and_is_named_in_json(asked: Asked, home: Path) -> None:
    folder = make_adapter(home / "data" / "adapters" / "polite")
    code, out, _ = asked("--adapter", "polite", "--json", "Where?")
    assert code == 0
    expected = {"name": "polite", "path": str(folder), "rank": 16, "sha256": "a" * 64}
    assert json.loads(out)["adapter"] == expected


def test_an_adapter_that_is_not_there_ends_it_before_a_model_is_loaded(asked: Asked) -> None:
    code, out, err = asked("--adapter", "polite", "Where?")
    assert (code, out) == (3, "")
    assert err.startswith("sparsechat: there is no adapter 'polite'; ")
    assert asked.engine.loads == []


def test_an_adapter_of_another_model_is_an_error_not_an_answer_without_it(
    asked: Asked, home: Path
) -> None:
    make_adapter(home / "data" / "adapters" / "polite")
    asked.model.misfits.add("polite")
    code, out, err = asked("--adapter", "polite", "Where?")
    assert (code, out) == (1, "")
    assert err == "sparsechat: the adapter polite was trained on another model\n"
