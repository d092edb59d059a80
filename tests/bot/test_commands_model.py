"""/model and /stats."""

from __future__ import annotations

import re

from tests.bot.conftest import Talk
from tests.fakes import FakeModel, Reply


def test_model_tells_what_is_in_use(talk: Talk) -> None:
    session = talk("/model\r")
    assert session.lines[-3:-1] == [
        "tiny: tiny.gguf",
        "fake, 1,234 weights as q8 (0.0 MB), context 4,096 tokens, fingerprint ffffffffffff",
    ]


def test_model_loads_another_and_the_conversation_goes_on(talk: Talk) -> None:
    other = FakeModel(max_seq_len=600)
    other.replies.append(Reply("Other."))
    talk.engine.models["other"] = other
    session = talk("Hello\r/model other\rAnd?\r/show\r", "Hi.")
    assert session.lines[2:7] == [
        ">>> /model other",
        "other: other.gguf",
        "fake, 1,234 weights as q8 (0.0 MB), context 600 tokens, fingerprint ffffffffffff",
        "[the next answer reads the whole conversation again]",
        ">>> And?",
    ]
    assert other.prompt_text().startswith("<|im_start|>user\nHello<|im_end|>")
    assert session.model.is_closed and not other.is_closed
    rows = {line.split()[0]: line.split()[1:] for line in session.lines[9:-1]}
    assert rows["model"] == ["other", "/set"]
    assert rows["max_tokens"] == ["300", "the", "model"]  # half of a small context


def test_stats_of_the_last_answer_and_of_all(talk: Talk) -> None:
    session = talk("/stats\rHello\rAnd?\r/stats\r/stats off\r/stats maybe\r", "Hi.", "So.")
    assert session.lines[1] == "no answer was given yet"
    assert session.lines[7] == (
        "last answer: prompt 52 (27 cached, 25 new) · first token 0.35 s · prefill 100 tok/s · "
        "3 tokens, 10.0 tok/s · stop · seed 7"
    )
    assert session.lines[8] == (
        "all: 2 answers, 6 tokens in 0.6 s; prompts 76 tokens, 27 of them cached, read in 0.5 s"
    )
    assert session.lines[9] == "threads: 2, instructions: avx2"
    assert session.lines[10] == "sparsity: off"
    assert session.lines[11] == ("keys and values (f16): 0.1 MiB, up to 4.0 MiB at 4,096 tokens")
    assert re.fullmatch(r"memory: [\d,]+ MiB at most", session.lines[12])
    assert session.lines[14] == "stats after each answer: off"
    assert session.lines[16] == "sparsechat: /stats takes on, off or nothing, got 'maybe'"


def test_stats_on_shows_a_line_after_each_answer(talk: Talk) -> None:
    session = talk("/stats on\rHello\r", "Hi.")
    assert session.lines[4].startswith("[prompt 24 (0 cached, 24 new) · first token 0.34 s")
