"""What a turn computes: the tokens that the last prompt and its answer did not have.

With the real engine and a small random model, whose every answer is also given by a second model
that begins with an empty cache.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from bot.chat import Chat, Turn
from bot.evidence import Evidence, Source
from bot.settings import Settings
from engine.model import Model
from tests.engine.decoders import save_talker

N_ANSWER = 20
SETTINGS = Settings(model="talker", max_tokens=N_ANSWER, temperature=0.8, seed=3)
# in tokens: <|im_end|> \n <|im_start|> u s e r \n, and the same with assistant
BEFORE_QUESTION, AFTER_QUESTION = 8, 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talker(tmp_path_factory.mktemp("models") / "talker")


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long prompts are read as precisely as short ones, so that the two models agree."""
    monkeypatch.setattr("engine.generate._LONG", 1 << 30)


@pytest.fixture
def fresh(folder: Path) -> Model:
    """A model that remembers nothing: its cache is emptied before every use."""
    return engine.load(folder, threads=1)


@pytest.fixture
def chat(folder: Path) -> Chat:
    chat = Chat(SETTINGS)
    chat.use_model(engine.load(folder, threads=1))
    return chat


Ask = Callable[[Turn], Turn]


@pytest.fixture
def ask(fresh: Model) -> Ask:
    """Runs a turn to its end."""

    def run(turn: Turn) -> Turn:
        list(turn.steps(engine.Cancel()))
        fresh.cache.truncate(0)
        expected = engine.stream(fresh, turn.ids, turn.params, continues=turn.continues)
        list(expected)
        assert turn.text == expected.text
        return turn

    return run


def computed(turn: Turn) -> int:
    assert turn.usage is not None and turn.usage.prompt_tokens == len(turn.ids)
    return turn.usage.prompt_tokens - turn.usage.cached_tokens


def new_with(question: str) -> int:
    """Tokens that a next question adds, and the answer's last one, which was not run yet."""
    return 1 + BEFORE_QUESTION + len(question) + AFTER_QUESTION


def test_a_next_turn_computes_the_question(chat: Chat, ask: Ask) -> None:
    first = ask(chat.turn("Where is Zurich?"))
    assert computed(first) == len(first.ids)
    for question in ("And Bern?", "Why?", "x" * 300):
        assert computed(ask(chat.turn(question))) == new_with(question)


def test_a_retry_computes_one_token(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    ask(chat.turn("And Bern?"))
    for seed in (4, 5):
        turn = ask(chat.retry(Settings(model="talker", max_tokens=N_ANSWER, seed=seed)))
        assert computed(turn) == 1


def test_an_answer_that_goes_on_computes_one_token(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    for _ in range(3):
        assert computed(ask(chat.resume())) == 1
    assert len(chat.exchanges) == 1 and len(chat.exchanges[0].answer) >= 4 * N_ANSWER - 1
    assert computed(ask(chat.turn("Why?"))) == new_with("Why?")


def test_after_undo_only_the_new_question_is_computed(chat: Chat, ask: Ask) -> None:
    for question in ("Where is Zurich?", "And Bern?", "And Basel?"):
        ask(chat.turn(question))
    chat.undo(1)
    assert computed(ask(chat.turn("Why?"))) <= new_with("Why?")
    chat.undo(2)
    assert computed(ask(chat.turn("And Chur?"))) <= new_with("And Chur?")


def test_undo_and_asking_again_otherwise_edits_a_question(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    ask(chat.turn("How many people live there?"))
    chat.undo(1)
    turn = ask(chat.turn("How many people work there?"))
    assert computed(turn) == len("work there?") + AFTER_QUESTION


def test_an_answer_that_was_stopped_is_not_computed_again(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    turn, cancel = chat.turn("And Bern?"), engine.Cancel()
    for n, _ in enumerate(turn.steps(cancel), start=1):
        if n == 8:
            cancel.set()
    assert turn.finish_reason == "cancelled" and len(chat.exchanges[-1].answer) >= 7
    assert computed(ask(chat.turn("Why?"))) == new_with("Why?")


def test_a_question_that_is_refused_costs_nothing(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    with pytest.raises(ValueError, match="fit"):
        chat.turn("x" * 5000)
    assert computed(ask(chat.turn("Why?"))) == new_with("Why?")


def test_beams_leave_the_chosen_one_in_the_cache(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    beams = Settings(model="talker", max_tokens=N_ANSWER, beams=3)
    assert computed(ask(chat.retry(beams))) == 1
    assert computed(ask(chat.turn("Why?"))) == new_with("Why?")


def test_a_raw_prompt_costs_the_conversation_once(chat: Chat, ask: Ask) -> None:
    ask(chat.turn("Where is Zurich?"))
    ask(chat.raw("Once upon a time"))
    turn = ask(chat.turn("Why?"))
    assert computed(turn) >= len(turn.ids) - 1
    assert computed(ask(chat.turn("Why?"))) == new_with("Why?")


def test_turns_that_leave_the_view_cost_one_reading_in_many_turns(folder: Path, ask: Ask) -> None:
    chat = Chat(SETTINGS)
    chat.use_model(engine.load(folder, threads=1, max_seq_len=400))
    costs = []
    for n in range(20):
        turn = ask(chat.turn(f"{n:02} What?"))
        costs.append(computed(turn) if not turn.left_out else None)
    assert 2 <= costs.count(None) <= 6
    assert {cost for cost in costs[1:] if cost is not None} == {new_with("00 What?")}


def test_evidence_is_read_once_and_costs_a_next_turn_the_last_one_alone(
    chat: Chat, ask: Ask
) -> None:
    found = [evidence(f"The {place} is a place with {n} trams." * 3) for n, place in
             enumerate(("lake", "city", "hill"), start=7)]  # fmt: skip
    first = ask(chat.turn("Where is Zurich?", found[0]))
    assert computed(first) == len(first.ids)
    for question, new in (("And Bern?", found[1]), ("Why?", found[2])):
        before, last = chat.ids_of(chat.exchanges[:-1]), chat.exchanges[-1]
        turn = ask(chat.turn(question, new))
        # what is cached reaches to the end of the last question
        assert turn.usage is not None
        assert turn.usage.cached_tokens >= len(before) + len(last.question)
    assert computed(ask(chat.retry(chat.settings, found[2]))) == 1
    assert computed(ask(chat.resume())) == 1


def evidence(text: str) -> Evidence:
    return Evidence("docs", "q", "hybrid", sources=(Source(1, "T", "/t", text, 0.9),))
