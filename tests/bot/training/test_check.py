"""`sparsechat train check`, in this process, with a small tokenizer and a rehearsal by script."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import engine.checkpoints
import engine.tokenizer
from bot import render
from bot.training.checking import bins
from engine.training.rehearsal_result import Rehearsal
from engine.training.settings import TrainSettings
from tests.bot.training.conftest import FakeTraining
from tests.engine.training.fakes import tokenizer_with

Train = Callable[..., tuple[int, str, str]]
GOOD = '{"text": "<human>: hello\\n<bot>: hello world"}'
REHEARSAL = Rehearsal("int8", 0.9925, 4_884_480, 134_479_872, 912, 480.0, 4.2, 3830.0,
                      1_920_000_000, [1.81, 1.75, 1.7], ["int8 is warm"])  # fmt: skip


@pytest.fixture(autouse=True)
def rehearsed(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[TrainSettings]]:
    """A model of 64 tokens of context; the settings that were rehearsed."""
    asked: list[TrainSettings] = []

    def rehearse(settings: TrainSettings, on_step: Callable[[int, int], None]) -> Rehearsal:
        asked.append(settings)
        on_step(0, 3)
        return REHEARSAL

    fake: Any = ModuleType("engine.training.rehearsal")
    fake.rehearse = rehearse
    monkeypatch.setitem(sys.modules, "engine.training.rehearsal", fake)
    checkpoint = SimpleNamespace(
        decoder_config=lambda: SimpleNamespace(max_seq_len=64, position="rope")
    )
    tokenizer = tokenizer_with("chatml")
    monkeypatch.setattr(engine.checkpoints, "open_checkpoint", lambda path: checkpoint)
    monkeypatch.setattr(engine.tokenizer, "load_tokenizer", lambda checkpoint: tokenizer)
    yield asked


def write(*lines: str) -> None:
    Path("rows.jsonl").write_text("\n".join(lines) + "\n")


def test_good_rows_are_counted_and_shown(train: Train, rehearsed: list[TrainSettings]) -> None:
    write(GOOD, GOOD, '{"prompt": "hello", "target": "world"}')
    code, out, _ = train("check", "rows.jsonl", "--kind", "oig")
    assert code == 1 and "rows.jsonl:3: " in out  # of another kind than was asked for
    write(GOOD, GOOD)
    code, out, _ = train("check", "rows.jsonl")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "rows        2: 2 oig"
    assert lines[1].startswith("tokens      ") and lines[1].endswith("of them are learned")
    assert lines[2:5] == [
        "duplicates  1 row",
        "cut         none",
        "stop token  '<|im_end|>': learned in 2 of 2 conversations",
    ]
    assert "hello world<|im_end|>⟧" in out and "⟦" in out
    assert out.endswith(
        "trained  4,884,480 of 134,479,872 weights, base int8 (gradient like float32's: cosine "
        "0.993)\n"
        "speed    480 tok/s, 4.2 s a step (3 steps were made)\n"
        "time     1:03:50 for 912 steps, without evaluations\n"
        "memory   1.92 GB at most\n"
        "losses   1.810, 1.750, 1.700\n"
        "int8 is warm\n"
    )


def test_what_is_learned_is_coloured_on_a_terminal(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(GOOD)
    monkeypatch.setattr(render, "_has_colour", lambda stream: True)
    _, out, _ = train("check", "rows.jsonl", "--no-probe")
    assert "\x1b[32mhello world<|im_end|>\x1b[0m" in out and "⟦" not in out


def test_errors_name_the_line_and_the_reason(train: Train, rehearsed: list[TrainSettings]) -> None:
    write(GOOD, "{broken", '{"text": "<human>: alone"}', "", GOOD)
    code, out, _ = train("check", "rows.jsonl")
    assert code == 1
    lines = [line.strip() for line in out.splitlines()]
    start = lines.index("errors: 2 rows")
    assert lines[start + 1].startswith("rows.jsonl:2: it is no JSON")
    assert lines[start + 2] == "rows.jsonl:3: there is no answer in it"
    assert len(rehearsed) == 1  # the others can be learned from


def test_a_row_that_was_rated_bad_is_left_out_and_no_error(train: Train) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
    write(json.dumps({"messages": turns}), json.dumps({"messages": turns, "rating": "bad"}))
    code, out, _ = train("check", "rows.jsonl", "--no-probe")
    assert code == 0 and "left out    1 row, rated bad" in out and "errors" not in out


def test_only_twenty_errors_are_shown_and_all_are_counted(train: Train) -> None:
    write(GOOD, *["{broken"] * 25)
    code, out, _ = train("check", "rows.jsonl", "--no-probe")
    assert code == 1 and "errors: 25 rows" in out and "  … and 5 more" in out
    assert out.count("it is no JSON") == 20


def test_a_row_whose_answer_lies_beyond_the_context_teaches_nothing(train: Train) -> None:
    write(GOOD, json.dumps({"text": f"<human>: {'hello ' * 80}\n<bot>: world"}))
    code, out, _ = train("check", "rows.jsonl", "--no-probe")
    assert code == 1 and "rows.jsonl:2: nothing to learn: the first answer begins at token" in out


def test_a_row_that_is_cut_is_no_error(train: Train) -> None:
    write(GOOD, json.dumps({"text": f"<human>: hello\n<bot>: {'world ' * 80}"}))
    code, out, _ = train("check", "rows.jsonl", "--no-probe")
    assert code == 0 and "cut         1 row at 64 tokens, " in out
    assert "learned in 1 of 1 conversations" in out


def test_an_end_that_is_not_learned_is_an_error(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bot.training import checking

    monkeypatch.setattr(checking, "ends_trained", lambda made, tokenizer: False)
    write(GOOD)
    code, out, _ = train("check", "rows.jsonl", "--no-probe")
    assert code == 1 and "rows.jsonl:1: the end of its answer is not learned" in out
    assert "learned in 0 of 1 conversations" in out


def test_json_is_one_object(train: Train) -> None:
    write(GOOD, "{broken")
    code, out, _ = train("check", "rows.jsonl", "--json")
    record = json.loads(out)
    assert code == 1
    assert (record["rows"], record["kinds"], record["n_errors"]) == (2, {"oig": 1}, 1)
    assert record["rehearsal"]["tokens_per_s"] == 480.0 and record["complete"]
    pieces = record["preview"][0]["pieces"]
    assert [piece["trained"] for piece in pieces] == [False, True]
    assert pieces[1]["text"] == "hello world<|im_end|>"
    assert sum(row["rows"] for row in record["lengths"]) == 1


def test_options_of_a_run_reach_the_rehearsal(train: Train, rehearsed: list[TrainSettings]) -> None:
    write(GOOD)
    train("check", "rows.jsonl", "--rank", "4", "--loss", "all")
    assert (rehearsed[0].rank, rehearsed[0].loss) == (4, "all")


def test_too_little_memory_is_one_line_below_the_report(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rehearse(settings: TrainSettings, on_step: object) -> Rehearsal:
        raise ValueError("memory is short: training takes about 9 GB")

    monkeypatch.setattr(sys.modules["engine.training.rehearsal"], "rehearse", rehearse)
    write(GOOD)
    code, out, err = train("check", "rows.jsonl")
    assert code == 1 and out.startswith("rows        1: 1 oig")
    assert err.splitlines()[-1] == "sparsechat: memory is short: training takes about 9 GB"


def test_ctrl_c_shows_what_was_counted(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from bot.training import checking

    def press(made: object, tokenizer: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    write(GOOD, GOOD)
    monkeypatch.setattr(checking, "ends_trained", press)
    code, out, _ = train("check", "rows.jsonl")
    assert code == 130 and "of the first rows alone: it was interrupted" in out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["check"], 2, "the following arguments are required: DATA"),
        (["check", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["check", "empty.jsonl"], 1, "empty.jsonl: there are no rows in it"),
        (["check", "rows.jsonl", "--max-seq-len", "99"], 1, "max_seq_len 99 is beyond the 64"),
        (["check", "rows.jsonl", "--rank", "0"], 2, "rank must be in [1, 4096], got 0"),
        (["check", "rows.jsonl", "--bogus"], 2, "unrecognized arguments: --bogus"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    train: Train, words: list[str], code: int, line: str
) -> None:
    write(GOOD)
    Path("empty.jsonl").write_text("")
    found, out, err = train(*words)
    assert (found, out, err.count("\n")) == (code, "", 1) and line in err


def test_bins_lie_between_powers_of_two_without_gaps() -> None:
    from collections import Counter

    assert bins(Counter({3: 2, 4: 1, 20: 5})) == [(2, 3, 2), (4, 7, 1), (8, 15, 0), (16, 31, 5)]
    assert bins(Counter()) == []
