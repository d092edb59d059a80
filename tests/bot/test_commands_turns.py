"""Commands that ask, ask again, go on and take back: what they show and change."""

from __future__ import annotations

import pytest

from bot.prompt import Exchange
from engine.templates import template_named
from tests.bot.conftest import Talk, ctrl_c_before_token
from tests.fakes import FakeModel, FakeTokenizer, Reply


def test_say_asks_as_plain_text_does(talk: Talk) -> None:
    session = talk("/say /etc/hosts?\r/say\r", "A file.")
    assert session.text == (
        ">>> /say /etc/hosts?\nA file.\n>>> /say\nsparsechat: /say needs a text behind it\n>>> ^D\n"
    )
    assert session.state.chat.exchanges == [Exchange("/etc/hosts?", "A file.")]


def test_raw_say_sends_the_text_alone_and_leaves_the_conversation(talk: Talk) -> None:
    session = talk("Hello\r/raw_say <|im_start|>Once\r/history\r", "Hi.", " upon a time")
    assert session.model.prompt_text() == "<|im_start|>Once"
    assert session.model.prompts[-1][0] == 2  # the token, not its spelling
    assert session.text == (
        ">>> Hello\nHi.\n>>> /raw_say <|im_start|>Once\nupon a time\n"
        ">>> /history\n1> Hello\nHi.\n>>> ^D\n"
    )


def test_raw_say_begins_with_one_bos_where_the_model_wants_it(talk: Talk) -> None:
    model = FakeModel(tokenizer=FakeTokenizer(add_bos=True))
    session = talk("/raw_say One\r/raw_say <s>One\r", "a", "b", model=model)
    assert [session.model.prompt_text(n) for n in (0, 1)] == ["<s>One", "<s>One"]


def test_a_cut_raw_answer_does_not_promise_to_go_on(talk: Talk) -> None:
    talk.flags["max_tokens"] = 3
    session = talk("/raw_say Once\r/continue\r", "upon a time")
    assert session.lines[1:] == [
        "upo",
        "[length: 3 tokens]",
        ">>> /continue",
        "sparsechat: there is nothing to continue: no question was asked yet",
        ">>> ^D",
    ]


def test_raw_prompt_shows_what_the_model_sees_with_its_special_tokens(talk: Talk) -> None:
    session = talk("/raw_prompt\rHello\r/raw_prompt\r/raw And?\r", "Hi.")
    assert session.lines[1] == (
        "sparsechat: nothing was said yet; /raw_prompt TEXT shows what TEXT would become"
    )
    conversation = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
    note = "[29 tokens; 3,584 fit before an answer of 512; template chatml]"
    assert f">>> /raw_prompt\n{conversation}\n{note}" in session.text
    asked = conversation + "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    assert f">>> /raw And?\n{asked}\n[" in session.text
    assert len(session.model.prompts) == 1


def test_reset_forgets_the_conversation_and_keeps_the_settings(talk: Talk) -> None:
    session = talk("/set top_k=3\rHello\r/new\rWho?\r/history\r", "Hi.", "You.")
    assert session.lines[4:] == [
        ">>> /new",
        "new conversation (1 turn forgotten)",
        ">>> Who?",
        "You.",
        ">>> /history",
        "1> Who?",
        "You.",
        ">>> ^D",
    ]
    assert "Hello" not in session.model.prompt_text()
    assert session.model.params[-1].top_k == 3


def test_retry_replaces_the_answer_with_a_new_seed_and_overrides_for_once(talk: Talk) -> None:
    session = talk("Hi\r/retry temperature=0.9\r/retry seed=5\rAnd?\r", "A", "B", "C", "D")
    assert [e.answer for e in session.state.chat.exchanges] == ["C", "D"]
    params = session.model.params
    assert [p.seed for p in params] == [7, None, 5, 7]
    assert [p.temperature for p in params] == [0.6, 0.9, 0.6, 0.6]
    assert session.model.prompts[0] == session.model.prompts[1] == session.model.prompts[2]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "there is nothing to retry: no question was asked yet"),
        ("temperature=", "/retry temperature= needs a value; it holds for this answer only"),
        ("threads=2", "threads is felt by all answers; /set changes it"),
    ],
)
def test_retry_refuses_in_one_line(talk: Talk, argument: str, message: str) -> None:
    session = talk(f"/retry {argument}\r")
    assert session.lines[1] == f"sparsechat: {message}"


def test_a_retry_stopped_before_its_first_word_keeps_the_old_answer(talk: Talk) -> None:
    stopped = Reply("B", during=ctrl_c_before_token(0))
    session = talk("Hi\r/retry\r", "A", stopped)
    assert session.state.chat.exchanges == [Exchange("Hi", "A", "stop")]


def test_continue_goes_on_where_max_tokens_cut_and_reuses_the_cache(talk: Talk) -> None:
    talk.flags["max_tokens"] = 7
    session = talk("Count\r/continue\r/history\r/continue\r", "One two three", " three")
    assert session.text == (
        ">>> Count\nOne two\n[length: 7 tokens; /continue goes on]\n"
        ">>> /continue\nthree\n"
        ">>> /history\n1> Count\nOne two three\n"
        ">>> /continue\n"
        "sparsechat: the last answer was not cut short; /retry asks for another one\n"
        ">>> ^D\n"
    )
    assert session.model.prompt_text().endswith("<|im_start|>assistant\nOne two")
    second = session.state.usages[1]
    assert second.cached_tokens == second.prompt_tokens - 1
    assert session.model.continued == [False, True]


def test_a_blank_before_the_first_word_is_not_part_of_the_answer(talk: Talk) -> None:
    session = talk("Hi\rCode\r", " Hello.", "    x = 1")
    answers = [exchange.answer for exchange in session.state.chat.exchanges]
    assert answers == ["Hello.", "    x = 1"]


def test_continue_begins_an_answer_that_was_stopped_before_its_first_word(talk: Talk) -> None:
    stopped = Reply("x", during=ctrl_c_before_token(0))
    session = talk("Count\r/continue\r", stopped, "One")
    assert session.state.chat.exchanges == [Exchange("Count", "One", "stop")]


def test_a_half_character_at_the_cut_is_not_kept(talk: Talk) -> None:
    talk.flags["max_tokens"] = 3
    session = talk("Hi\r", "ok\ufffd\ufffd")
    assert session.state.chat.exchanges[0].answer == "ok"


def test_a_full_context_is_named_apart_from_max_tokens(talk: Talk) -> None:
    model = FakeModel(max_seq_len=60)
    talk.flags["max_tokens"] = 20
    session = talk("/raw_say " + "x" * 55 + "\r", "abcdefghij", model=model)
    assert session.lines[1:3] == ["abcde", "[context full: 60 tokens]"]


def test_undo_takes_back_the_last_turns_and_the_model_forgets_them(talk: Talk) -> None:
    session = talk("One\rTwo\rThree\r/undo 2\rFour\r/undo 5\r/undo\r", "1", "2", "3", "4")
    assert session.lines[6:] == [
        ">>> /undo 2",
        "taken back: Two",
        "taken back: Three",
        ">>> Four",
        "4",
        ">>> /undo 5",
        "sparsechat: there are 2 turns, 5 cannot be taken back",
        ">>> /undo",
        "taken back: Four",
        ">>> ^D",
    ]
    prompt = session.model.prompt_text()
    assert "One" in prompt and "Two" not in prompt and "Three" not in prompt


@pytest.mark.parametrize("argument", ["0", "-1", "x", "1.5", "²"])
def test_undo_takes_a_number_from_1_up(talk: Talk, argument: str) -> None:
    session = talk(f"Hi\r/undo {argument}\r", "Hi.")
    assert session.lines[3] == (
        f"sparsechat: /undo takes a number of turns from 1 up, got {argument!r}"
    )
    assert len(session.state.chat.exchanges) == 1


def test_dropped_turns_are_named_before_the_answer_and_marked_in_the_history(talk: Talk) -> None:
    talk.flags["max_tokens"] = 20
    model = FakeModel(max_seq_len=200)
    keys = "".join(f"question number {n}\r" for n in range(1, 7)) + "/history\r"
    session = talk(keys, *(f"answer {n}" for n in range(1, 7)), model=model)
    at = session.lines.index(">>> question number 5")
    assert session.lines[at + 1 : at + 3] == [
        "[the context is full: turns 1-2 leave the model's view]",
        "answer 5",
    ]
    assert session.text.count("leave the model's view") == 1
    assert "answer 2\n--- the model's view begins here ---\n3> question number 3\n" in session.text
    assert "question number 2" not in session.model.prompt_text()
    # the sixth turn extends the fifth's prompt, which is not read again
    assert session.state.usages[5].cached_tokens >= session.state.usages[4].prompt_tokens


def test_turns_that_undo_makes_room_for_come_back_into_view(talk: Talk) -> None:
    talk.flags["max_tokens"] = 20
    model = FakeModel(max_seq_len=200)
    keys = "".join(f"question number {n}\r" for n in range(1, 6)) + "/undo 3\rquestion again\r"
    session = talk(keys, *(f"answer {n}" for n in range(1, 7)), model=model)
    assert "question number 1" in session.model.prompt_text()
    assert "question number 3" not in session.model.prompt_text()


def test_a_base_model_goes_on_where_the_text_ends(talk: Talk) -> None:
    model = FakeModel()
    assert model.tokenizer is not None
    model.tokenizer.template = template_named("completion")
    session = talk("Once upon a ti\rShe\r/raw_prompt\r", "me.", " ran.", model=model)
    assert session.lines[1].startswith("[tiny knows no turns: it goes on with what you type; ")
    assert [model.prompt_text(n) for n in (0, 1)] == [
        "Once upon a ti",
        "Once upon a time.\nShe",
    ]
    assert model.continued == [True, True]
    assert "Once upon a time.\nShe ran.\n[" in session.text
    assert session.lines[-2].endswith("; template completion]")


def test_a_template_for_one_turn_decides_whether_the_first_blank_counts(talk: Talk) -> None:
    session = talk("Once\r/retry template=completion\r/history\r", " upon", " more")
    model = session.model
    assert model.continued == [False, True]
    assert model.prompt_text(1) == "Once"
    assert "1> Once\n more\n" in session.text
