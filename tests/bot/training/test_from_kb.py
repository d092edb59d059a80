"""`sparsechat train from-kb`, in this process: a real base searched by words, a model by script."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bot.__main__ import main
from bot.prompt import Exchange
from bot.training.questions import is_about, question_in, supported
from retrieval import KnowledgeBase
from retrieval.passages import Passage
from tests.fakes import FakeCancel, FakeEngine, FakeModel, Reply, passage

TEXTS = {
    "bern.txt": "Bern is the capital of Switzerland. It lies on the Aare.",
    "zurich.txt": "Zurich has blue trams. They were built in 1882.",
    "basel.txt": "Basel has a carnival. It begins at four in the morning.",
}


@dataclass
class Scripted(FakeModel):
    """Answers by what is in the last turn of the prompt; "asks" for requests of a question."""

    asks: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    during: Callable[[int, FakeCancel], None] | None = None

    def next_reply(self) -> Reply:
        *_, last = self.prompt_text().split("<|im_start|>user\n")
        *_, asked, evidence = self.prompt_text().split("<|im_start|>user\n")
        if "Write one question" in last:
            found = [text for word, text in self.asks.items() if word in last]
            return Reply(found[0] if found else "I cannot think of one.", self.during)
        found = [text for word, text in self.answers.items() if word in asked]
        assert evidence.startswith("Use this:\n")
        return Reply(found[0])


@pytest.fixture
def model() -> Scripted:
    return Scripted(
        asks={
            "Aare": "What is the capital of Switzerland?",
            "trams": "What colour are the trams of Zurich?",
            "carnival": "When does the carnival of Basel begin?",
        },
        answers={
            "capital": "The capital of Switzerland is Bern. It has a bear park full of penguins.",
            "trams": "The trams are blue.",
            "carnival": "The carnival begins at four in the morning.",
        },
    )


@pytest.fixture
def docs(
    home: Path, tmp_path: Path, model: Scripted, monkeypatch: pytest.MonkeyPatch
) -> KnowledgeBase:
    FakeEngine({"tiny": model}).install_in(monkeypatch.setitem)
    monkeypatch.setenv("SPARSECHAT_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    base = KnowledgeBase.create("docs", encoder=None)
    base.add([tmp_path / name for name in TEXTS])
    base.close()
    return base


def rows_of(path: str = "docs.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["train", "from-kb", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_each_passage_becomes_question_evidence_answer(
    docs: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "docs")
    assert (code, out) == (0, "")
    assert err.splitlines()[-2:] == [
        "docs.jsonl: 3 new, 3 in all",
        "look at them with `sparsechat train check docs.jsonl`",
    ]
    (row,) = [row for row in rows_of() if "Bern" in row["messages"][-1]["content"]]
    assert row["messages"] == [
        {"role": "user", "content": "What is the capital of Switzerland?"},
        {"role": "user", "content": f"Use this:\n{TEXTS['bern.txt']}"},
        # the sentence about penguins is in no passage
        {"role": "assistant", "content": "The capital of Switzerland is Bern."},
    ]
    assert row["metadata"]["kb"] == "docs" and row["metadata"]["uri"].endswith("bern.txt")


def test_what_the_model_is_asked_is_what_the_row_shows(
    docs: KnowledgeBase, model: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.tokenizer is not None
    run(capsys, "docs")
    for row in rows_of():
        prompt = model.tokenizer.encode_chat(row["messages"][:-1], add_generation_prompt=True)
        assert prompt in model.prompts


def test_passages_without_a_good_question_or_answer_are_counted(
    docs: KnowledgeBase, model: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    model.asks["Aare"] = "What does the text say?"
    model.answers["trams"] = "Penguins swim quickly."
    code, out, _ = run(capsys, "docs", "--json")
    record = json.loads(out)
    assert (code, record["rows"], record["complete"]) == (0, 1, True)
    assert record["passages"] == {"written": 1, "no question": 1, "not in the passages": 1}


def test_a_question_whose_search_does_not_find_the_passage_is_left_out(
    docs: KnowledgeBase, model: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("again.txt").write_text("The blue trams of Zurich have the colour of the sky.")
    more = KnowledgeBase.open("docs")
    more.add(["again.txt"])
    more.close()
    _, out, _ = run(capsys, "docs", "--json", "--k", "1")  # both ask for the colour of the trams
    assert json.loads(out)["passages"] == {"written": 3, "not found": 1}


def test_ctrl_c_keeps_the_rows_and_the_same_command_goes_on(
    docs: KnowledgeBase, model: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "docs", "--out", "whole.jsonl")
    began = len(model.prompts)

    def press(number: int, cancel: FakeCancel) -> None:
        if number == 3 and len(model.prompts) == began + 3:  # the second passage's question
            os.kill(os.getpid(), signal.SIGINT)
            assert cancel.wait(10)

    model.during = press
    code, _, err = run(capsys, "docs")
    assert code == 130 and len(rows_of()) == 1
    assert err.splitlines()[-1] == (
        "interrupted: all of them are kept; the same command goes on from there"
    )
    model.during = None
    with Path("docs.jsonl").open("a") as file:
        file.write('{"messages": [{"ro')  # as a kill leaves it
    code, _, err = run(capsys, "docs")
    assert code == 0 and "docs.jsonl: 2 new, 3 in all" in err
    assert Path("docs.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_rows_ends_at_the_number_that_was_asked_for(
    docs: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "docs", "--rows", "1")[0] == 0 and len(rows_of()) == 1
    assert run(capsys, "docs", "--rows", "2")[0] == 0 and len(rows_of()) == 2
    assert len({row["metadata"]["chunk_id"] for row in rows_of()}) == 2
    code, _, err = run(capsys, "docs", "--rows", "0")
    assert code == 2 and "a whole number from 1, got '0'" in err


def test_a_file_of_other_rows_is_left_alone(
    docs: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("docs.jsonl").write_text('{"text": "<human>: hi\\n<bot>: hello"}\n')
    code, _, err = run(capsys, "docs")
    assert (code, err) == (
        1,
        "sparsechat: docs.jsonl:1 is no row of the knowledge base docs; choose another file with "
        "--out\n",
    )
    assert Path("docs.jsonl").read_text().startswith('{"text"')


def test_a_base_that_is_not_there_or_empty_is_one_line_and_no_file(
    docs: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    KnowledgeBase.create("empty", encoder=None).close()
    assert run(capsys, "nowhere")[0] == 3
    code, _, err = run(capsys, "empty")
    assert code == 1
    assert err == ("sparsechat: empty has no passages; `sparsechat kb add empty PATH` adds some\n")
    assert not list(Path().glob("*.jsonl"))


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("Question: Where is the red house?", "Where is the red house?"),
        ('1. "How old is the boiler?" The text says 24.', "How old is the boiler?"),
        ("Sure!\n- What colour is the door?\n", "What colour is the door?"),
        ("What does the text say about doors?", None),
        ("Why?", None),
        ("The door is red.", None),
    ],
)
def test_question_in_takes_the_first_question_of_use(said: str, question: str | None) -> None:
    assert question_in(said) == question


def about(question: str) -> bool:
    text: Passage = passage("The boiler in the cellar is 24 years old.", title="Minutes")
    return is_about(question, text)


def test_is_about_wants_most_words_from_the_passage() -> None:
    assert about("How old is the boiler in the cellar?")
    assert not about("How old is the mayor of the boiler town?")


@pytest.mark.parametrize(
    ("answer", "reason", "kept"),
    [
        ("The boiler is 24 years old.", "stop", "The boiler is 24 years old."),
        ("It is in the cellar. It eats dragons.", "stop", "It is in the cellar."),
        ("It is in the cellar. It is in the cellar.", "stop", "It is in the cellar."),
        ("The cellar is its place. The boiler is 24 ye", "length", "The cellar is its place."),
        ("Dragons swim.", "stop", ""),
        ("", "stop", ""),
    ],
)
def test_supported_keeps_the_sentences_that_stand_in_a_passage(
    answer: str, reason: str, kept: str
) -> None:
    from bot.evidence import evidence_of
    from retrieval.search import Search

    text = passage("The boiler in the cellar is 24 years old. The cellar is its place.")
    evidence = evidence_of("docs", Search((text,), "boiler", "lexical", "", 0.0))
    assert supported(Exchange("How old is it?", answer, reason, evidence)) == kept
