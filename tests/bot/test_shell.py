"""Whole sessions: keys in, transcript out."""

from __future__ import annotations

import pytest

from tests.bot.conftest import Talk, ctrl_c_before_token, press_ctrl_c
from tests.fakes import FakeModel, Reply


def test_a_conversation_remembers_what_was_said(talk: Talk) -> None:
    session = talk("Hello\rAnd you?\r", "Hi there.", "Fine.")
    assert session.text == (">>> Hello\nHi there.\n>>> And you?\nFine.\n>>> ^D\n")
    assert session.code == 0
    assert session.model.prompt_text() == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there.<|im_end|>\n"
        "<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_second_turn_reads_only_what_is_new(talk: Talk) -> None:
    session = talk("Hello\rAnd you?\r/stats\r", "Hi.", "Fine.")
    first, second = session.state.usages
    assert first.cached_tokens == 0
    assert second.cached_tokens == first.prompt_tokens + len("Hi.")
    assert session.lines[5].startswith(
        f"last answer: prompt {second.prompt_tokens} ({second.cached_tokens} cached, "
    )


@pytest.mark.parametrize("line", ["", "   ", "\t"])
def test_an_empty_line_does_nothing(talk: Talk, line: str) -> None:
    session = talk(f"{line}\rHello\r\r", "Hi.")
    assert len(session.model.prompts) == 1
    assert len(session.state.chat.exchanges) == 1


def test_the_end_of_input_leaves_and_is_not_asked(talk: Talk) -> None:
    session = talk("", "never")
    assert (session.code, session.model.prompts) == (0, [])


def test_the_word_eof_is_text_like_any_other(talk: Talk) -> None:
    session = talk("EOF\r", "End of file.")
    assert session.text == ">>> EOF\nEnd of file.\n>>> ^D\n"


def test_a_slash_alone_asks_for_a_command_and_repeats_nothing(talk: Talk) -> None:
    session = talk("Hello\r/\r", "Hi.", "again?")
    assert session.lines[2:4] == [
        ">>> /",
        "sparsechat: a command is missing after the slash; /help lists them",
    ]
    assert len(session.model.prompts) == 1


def test_an_unknown_command_never_reaches_the_model_and_names_the_nearest(talk: Talk) -> None:
    session = talk("/hepl\r/etc/hosts is a file\r/xyzzy\r", "never")
    assert session.lines == [
        ">>> /hepl",
        "sparsechat: there is no /hepl; did you mean /help? (//hepl is sent as text)",
        ">>> /etc/hosts is a file",
        "sparsechat: there is no /etc/hosts; /help lists the commands, //etc/hosts is sent as text",
        ">>> /xyzzy",
        "sparsechat: there is no /xyzzy; /help lists the commands, //xyzzy is sent as text",
        ">>> ^D",
    ]
    assert session.model.prompts == []


def test_two_slashes_send_text_that_begins_with_one(talk: Talk) -> None:
    session = talk("//etc/hosts is a file\r", "Yes.")
    assert session.state.chat.exchanges[0].question == "/etc/hosts is a file"


def test_blanks_before_a_command_change_nothing(talk: Talk) -> None:
    session = talk("  /undo\r", "never")
    assert session.lines[1] == "sparsechat: there are 0 turns, 1 cannot be taken back"
    assert session.model.prompts == []


def test_enter_sends_while_alt_enter_and_ctrl_j_begin_a_line(talk: Talk) -> None:
    session = talk("one\x1b\rtwo\nthree\r", "3 lines")
    assert session.state.chat.exchanges[0].question == "one\ntwo\nthree"


def test_a_paste_is_one_message_whatever_its_line_ends(talk: Talk) -> None:
    session = talk("\x1b[200~first\r\nsecond\nthird\r\x1b[201~\r", "ok")
    assert session.state.chat.exchanges[0].question == "first\nsecond\nthird\n"


def test_ctrl_c_clears_the_line_and_two_leave(talk: Talk) -> None:
    times = iter([10.0, 11.0])
    talk.clock = lambda: next(times)
    session = talk("half a tho\x03\x03Hello\r", "never")
    assert session.text == ">>> ^C\n>>> ^C\n"
    assert (session.code, session.model.prompts) == (0, [])


def test_ctrl_c_twice_but_slowly_stays(talk: Talk) -> None:
    times = iter([10.0, 12.5, 15.0])
    talk.clock = lambda: next(times)
    session = talk("\x03\x03Hello\r", "Hi.")
    hint = "[Ctrl-C again, or Ctrl-D, leaves]"
    assert session.lines == [">>> ^C", hint, ">>> ^C", hint, ">>> Hello", "Hi.", ">>> ^D"]


def test_ctrl_c_that_clears_a_second_line_does_not_leave(talk: Talk) -> None:
    session = talk("one\x03two\x03Hello\r", "Hi.")
    assert session.lines == [">>> ^C", ">>> ^C", ">>> Hello", "Hi.", ">>> ^D"]


def test_ctrl_c_in_an_answer_keeps_what_was_said(talk: Talk) -> None:
    cut = Reply("One two three", during=ctrl_c_before_token(7))
    session = talk("Count\rAnd then?\r/history\r", cut, "Four.")
    assert session.text == (
        ">>> Count\nOne two\n[stopped; /continue goes on]\n>>> And then?\nFour.\n"
        ">>> /history\n1> Count\nOne two [stopped]\n2> And then?\nFour.\n>>> ^D\n"
    )
    assert "assistant\nOne two<|im_end|>" in session.model.prompt_text()


def test_ctrl_c_while_the_prompt_is_read_stops_before_the_first_word(talk: Talk) -> None:
    session = talk("Count\r/history\rHello\r", Reply("1", reading=press_ctrl_c), "Hi.")
    assert session.text == (
        ">>> Count\n[stopped before the first word; /retry asks again]\n"
        ">>> /history\n1> Count\n[stopped]\n>>> Hello\nHi.\n>>> ^D\n"
    )
    assert session.model.prompt_text() == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_stopped_question_can_be_asked_again(talk: Talk) -> None:
    session = talk("Count\r/retry\r", Reply("1", reading=press_ctrl_c), "1 2 3")
    assert session.lines[-2:] == ["1 2 3", ">>> ^D"]
    assert [e.answer for e in session.state.chat.exchanges] == ["1 2 3"]


def test_an_engine_that_fails_leaves_the_conversation_as_it_was(talk: Talk) -> None:
    bad = Reply("par", error=ValueError("logits are not finite;\nthe weights are damaged"))
    session = talk("Hello\rWhy?\r/history\r", "Hi.", bad)
    assert session.text == (
        ">>> Hello\nHi.\n>>> Why?\npar\n"
        "sparsechat: logits are not finite; the weights are damaged\n"
        ">>> /history\n1> Hello\nHi.\n>>> ^D\n"
    )


def test_a_bug_is_one_line_that_names_the_log(talk: Talk) -> None:
    session = talk("Hello\rAgain\r", Reply(error=RuntimeError("boom")), "Hi.")
    assert session.text == (
        ">>> Hello\nsparsechat: internal error: RuntimeError: boom; details in LOG\n"
        ">>> Again\nHi.\n>>> ^D\n"
    )


def test_a_line_typed_while_the_model_loads_is_answered_when_it_is_there(talk: Talk) -> None:
    def loading(on_progress) -> None:  # type: ignore[no-untyped-def]
        on_progress("reading", 0.0)
        for fraction in (0.0, 0.5, 1.0):
            on_progress("compiling kernels (first start)", fraction)

    talk.engine.loading = loading
    session = talk("Hello\r", "Hi.")
    assert session.lines == [">>> Hello", "Hi.", ">>> ^D"]


def test_a_model_that_does_not_load_is_one_line_and_another_can_be_chosen(talk: Talk) -> None:
    good = FakeModel()
    good.replies.append(Reply("Hi."))
    talk.engine.models = {"tiny": ValueError("tiny.gguf: layers.3.wq is missing"), "good": good}
    session = talk("Hello\r/model good\rHello\r")
    assert session.lines[0] in (
        ">>> Hello",  # the line was typed before the failure was known
        "sparsechat: tiny.gguf: layers.3.wq is missing; /model NAME loads another",
    )
    assert session.text.count("layers.3.wq is missing") == 1
    assert session.lines[-6:] == [
        ">>> /model good",
        "good: good.gguf",
        "fake, 1,234 weights as q8 (0.0 MB), context 4,096 tokens, fingerprint ffffffffffff",
        ">>> Hello",
        "Hi.",
        ">>> ^D",
    ]


def test_a_model_without_a_tokenizer_says_so(talk: Talk) -> None:
    session = talk("Hello\r", model=FakeModel(tokenizer=None))
    assert "tiny.gguf has no tokenizer, so it gives numbers and no text" in session.text


@pytest.mark.parametrize(
    ("keys", "question"),
    [
        ("a\x00b", "ab"),
        ("a\x11\x00b", "a\x00b"),  # Ctrl-Q quotes the next key
        ("a\x11\x1bb", "a\x1bb"),
        ("\x1b[200~a\x00b\x1b[31mc\x1b[201~", "a\x00b\x1b[31mc"),
        ("a\udcffb", "a\ufffdb"),  # how a byte that is no UTF-8 arrives
    ],
)
def test_odd_characters_in_a_question_are_harmless(talk: Talk, keys: str, question: str) -> None:
    session = talk(f"{keys}\r/history\r", "ok")
    assert session.state.chat.exchanges[0].question == question
    assert "\x1b" not in session.text.partition("ok")[2]


def test_a_pasted_megabyte_is_refused_with_both_numbers_and_nothing_is_lost(talk: Talk) -> None:
    session = talk("Hello\r\x1b[200~" + "word\n" * 200_000 + "\x1b[201~\rBye\r", "Hi.", "Bye.")
    assert next(line for line in session.lines if line.startswith("sparsechat")) == (
        "sparsechat: the question takes 1,000,019 tokens with its system prompt, but 3,584 fit "
        "(context 4,096, of which max_tokens reserves 512); nothing was sent: shorten it or "
        "lower max_tokens"
    )
    assert [e.question for e in session.state.chat.exchanges] == ["Hello", "Bye"]
