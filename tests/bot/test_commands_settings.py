"""/set, /hyperparameters, /system: what they show and change."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import pytest

from tests.bot.conftest import Talk
from tests.fakes import FakeModel


def test_hyperparameters_show_value_and_origin_and_set_wins_over_a_flag(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECHAT_TOP_P", "0.9")
    talk.flags["temperature"] = 0.2
    model = FakeModel(generation_defaults={"repetition_penalty": 1.1, "top_p": 0.5, "min_p": -3})
    session = talk("Hi\r/set temperature=0.5\r/hyperparameters\r", "Hi.", model=model)
    rows = {line.split()[0]: line.split()[1:] for line in session.lines[4:-1]}
    assert rows["temperature"] == ["0.5", "/set"]
    assert rows["top_p"] == ["0.9", "SPARSECHAT_TOP_P"]
    assert rows["repetition_penalty"] == ["1.1", "the", "model"]
    assert rows["min_p"] == ["0.0", "built-in"]
    assert rows["model"] == ["tiny", "--model"]
    assert rows["system"] == ["not", "set", "built-in"]
    assert session.model.params[0].repetition_penalty == 1.1


def test_set_changes_several_at_once_and_shows_them(talk: Talk) -> None:
    session = talk(
        '/set top-k=5 temperature=0 stop="\\n\\n" stop=x system="Be brief."\rHi\r', "Hi."
    )
    assert session.lines[1:5] == [
        "top_k = 5 (/set)",
        "temperature = 0.0 (/set)",
        r"stop = '\n\n' 'x' (/set)",
        "system = Be brief. (/set)",
    ]
    params = session.model.params[0]
    assert (params.top_k, params.temperature) == (5, 0.0)
    assert params.stop[:2] == ("\n\n", "x")
    assert session.model.prompt_text().startswith("<|im_start|>system\nBe brief.<|im_end|>")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("top_k=5 topp=1", "there is no setting 'topp'; did you mean 'top_p'?"),
        ("top_k=5 temperature=hot", "temperature takes a number from 0 up to 100, got 'hot'"),
        ("top_k", "top_k needs a value: top_k=…; values with blanks need quotes"),
        ("top_k=5 system=Be brief", "there is no setting 'brief'"),
        ("top_k=5 system='Be", 'a quotation mark has no partner in "top_k=5 system=\'Be"'),
        ("top_k=5 model=x", "/model NAME changes the model"),
        ("top_k=5 history=off", "history is felt only when sparsechat starts"),
        ("", "/set takes NAME=VALUE; /hyperparameters shows the names and values"),
    ],
)
def test_set_changes_nothing_when_one_part_is_wrong(
    talk: Talk, argument: str, message: str
) -> None:
    session = talk(f"/set {argument}\r")
    assert session.lines[1] == f"sparsechat: {message}"
    assert session.state.config.layers["hand"] == {}
    assert session.state.chat.settings.top_k == 40


def test_set_with_nothing_behind_the_name_takes_it_back(talk: Talk) -> None:
    talk.flags["top_k"] = 9
    session = talk("/set top_k=5\r/set top_k=\r")
    assert session.lines[3] == "top_k = 9 (--top-k)"


def test_what_only_a_new_model_feels_says_so(talk: Talk) -> None:
    session = talk("/set max_seq_len=99\r/model tiny\r")
    assert session.lines[1] == "max_seq_len = 99 (/set, felt from the next /model on)"
    assert [load["max_seq_len"] for load in talk.engine.loads] == [None, 99]


def test_threads_change_under_a_running_model(talk: Talk) -> None:
    session = talk("Hi\r/set threads=1\rHo\r/stats\r", "Hi.", "Ho.")
    assert session.lines[3] == "threads = 1 (/set)"
    assert "threads: 1, instructions: avx2" in session.lines
    assert len(talk.engine.loads) == 1


def test_threads_that_are_set_while_the_model_loads_hold_for_it(talk: Talk) -> None:
    def until_it_is_set(report: Callable[[str, float], None]) -> None:
        shown = sys.stdout
        assert isinstance(shown, io.StringIO)
        deadline = time.monotonic() + 10
        while "threads = 1" not in shown.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)

    talk.engine.loading = until_it_is_set
    session = talk("/set threads=1\rHi\r/stats\r", "Hi.")
    assert [load["threads"] for load in talk.engine.loads] == [None]
    assert "threads: 1, instructions: avx2" in session.lines


def test_threads_that_are_not_set_show_how_many_that_is(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cores.default_threads", lambda: 6)
    session = talk("/set threads=2\r/set threads=\r/show\r")
    assert session.lines[1:4:2] == ["threads = 2 (/set)", "threads = not set: 6 (built-in)"]
    assert ["threads", "not", "set:", "6", "built-in"] in [line.split() for line in session.lines]


def test_greedy_by_flag_sends_temperature_0(talk: Talk) -> None:
    talk.flags["sample"] = False
    session = talk("Hi\r/retry\r/show\r", "Hi.", "Hi.")
    assert {params.temperature for params in session.model.params} == {0.0}
    assert "[temperature 0 gives the same answer again; /retry temperature=0.8 varies it]" in (
        session.lines
    )
    assert "sample is off: temperature, top_k, top_p and min_p have no effect" in session.lines


def test_system_shows_and_sets_the_system_prompt(talk: Talk) -> None:
    keys = '/system\r/system Be brief.\r/system\rHi\r/system ""\rYo\r/set system=\rBye\r'
    session = talk(keys, "Hi.", "Yo.", "Bye.")
    assert session.lines[1] == "not set: the template's own, if any"
    assert session.lines[4] == "'Be brief.' (/set)"
    assert "[the next answer reads the whole conversation again]" in session.lines
    beginnings = [session.model.prompt_text(n).split("<|im_end|>")[0] for n in range(3)]
    assert beginnings == [
        "<|im_start|>system\nBe brief.",
        "<|im_start|>system\n",
        "<|im_start|>user\nHi",
    ]


def test_a_template_can_be_chosen_and_its_end_is_no_stop_of_the_users(talk: Talk) -> None:
    model = FakeModel()
    session = talk("/set template=human_bot\rHi\r/set template=\rYo\r", "Hi.", "Yo.", model=model)
    assert session.model.prompt_text(0) == "<human>: Hi\n<bot>:"
    assert "<human>:" in session.model.params[0].stop
    assert session.model.prompt_text(1).startswith("<|im_start|>user\nHi<|im_end|>")
