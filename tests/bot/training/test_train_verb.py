"""`sparsechat train DATA` and `--resume`, in this process, on a loop by script."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from bot import render, terminal
from bot.__main__ import main
from bot.training import flags, monitor, running
from engine.training.events import Sample
from engine.training.run import Run, runs_dir
from engine.training.settings import TrainSettings
from tests.bot.training.conftest import FakeTraining

Train = Callable[..., tuple[int, str, str]]


def test_a_run_is_shown_and_says_how_its_result_is_used(train: Train, home: Path) -> None:
    code, out, err = train("oig.jsonl")
    assert (code, out) == (0, "")
    assert err.replace(str(home), "HOME").splitlines() == [
        "oig-lora: 390 rows to train on, 10 held out; 4,884,480 of 134,479,872 weights are trained,"
        " base int8 (gradient like float32's: cosine 0.993)",
        "oig-lora: about 4 steps, 480 tok/s, 0:16, 1.92 GB of memory; HOME/data/runs/oig-lora",
        "  step     loss  held-out  perplexity  accuracy   tok/s",
        "     0        -    2.0000        7.39    40.0 %       -",
        "        > Who are you?",
        "          base  Nobody.",
        "step 1/4 · loss 1.9000 · lr 2.00e-04 · 480 tok/s · 0:12 left",
        "step 2/4 · loss 1.8000 · lr 2.00e-04 · 480 tok/s · 0:08 left",
        "     2   1.8500    1.9000        6.50    50.0 %     480  best",
        "        > Who are you?",
        "          base  Nobody.",
        "          now   Me.",
        "step 3/4 · loss 1.7000 · lr 2.00e-04 · 480 tok/s · 0:04 left",
        "step 4/4 · loss 1.6000 · lr 2.00e-04 · 480 tok/s",
        "     4   1.6500    1.8000        6.50    50.0 %     480  best",
        "        > Who are you?",
        "          base  Nobody.",
        "          now   Me.",
        "oig-lora: finished, all rows are learned: 4 steps in 0:16, held-out loss 2.0000 -> 1.8000 "
        "(step 4)",
        "use it: sparsechat --adapter oig-lora, or /adapter oig-lora in the shell",
    ]


def test_on_a_terminal_one_line_is_written_over(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (render, terminal):
        monkeypatch.setattr(module, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    _, _, err = train("oig.jsonl")
    assert "\r\x1b[Koig-lora: step 1/4 · loss 1.900 · 480 tok/s · 0:12 left" in err
    assert "step 1/4 · loss 1.9000" not in err
    shown = [part.split("\n")[0] for part in err.split("\r\x1b[K")]
    assert all(len(line) < 60 for line in shown if "step 1/4" in line)


def test_the_result_as_json_is_one_object(train: Train) -> None:
    code, out, _ = train("oig.jsonl", "--json")
    record = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert record["finished"] and record["step"] == 4
    assert record["path"].endswith("adapters/oig-lora")


def test_flags_become_settings_and_a_free_name_is_found(
    train: Train, training: FakeTraining
) -> None:
    train("oig.jsonl")
    train("oig.jsonl", "--rank", "4", "--learning-rate", "1e-3", "--checkpointing")
    train("oig.jsonl", "--name", "mine", "--model", "other", "--method", "full")
    first, second, third = training.begun
    assert (first.name, first.model, first.data) == ("oig-lora", "tiny", "oig.jsonl")
    assert (second.name, second.rank, second.learning_rate) == ("oig-lora-2", 4, 1e-3)
    assert second.checkpointing and not first.checkpointing
    assert (third.name, third.model, third.method) == ("mine", "other", "full")


def test_a_config_file_gives_settings_and_flags_beat_it(
    train: Train, training: FakeTraining
) -> None:
    Path("run.toml").write_text('data = "oig.jsonl"\nname = "toml"\nrank = 8\nmax-steps = 3\n')
    assert train("--config", "run.toml", "--rank", "2")[0] == 0
    (begun,) = training.begun
    assert (begun.name, begun.rank, begun.max_steps, begun.data) == ("toml", 2, 3, "oig.jsonl")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('ranc = 8\nname = "x"', "run.toml: unknown setting 'ranc'; did you mean 'rank'?"),
        ('rank = "8"', "run.toml: rank must be int, got '8'"),
        ("rank =", "--config run.toml is not TOML: "),
    ],
)
def test_a_wrong_config_file_is_one_line(train: Train, text: str, line: str) -> None:
    Path("run.toml").write_text(text)
    code, out, err = train("oig.jsonl", "--config", "run.toml")
    assert (code, out, err.count("\n")) == (1, "", 1) and line in err
    assert "--config nothing.toml does not exist" in train("x", "--config", "nothing.toml")[2]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 2, "sparsechat train: DATA is missing: a file or a folder of rows; or --resume"),
        (["from-kv", "oig.jsonl"], 2, "there is no action 'from-kv'; did you mean 'from-kb'?"),
        (["oig.jsonl", "b.jsonl"], 2, "one DATA at a time; to mix them: oig.jsonl,b.jsonl, with"),
        (["oig.jsonl", "--rnak", "3"], 2, "unrecognized arguments: --rnak 3; did you mean --rank?"),
        (["oig.jsonl", "--rank", "x"], 2, "argument --rank: a whole number, got 'x'"),
        (["oig.jsonl", "--rank", "0"], 2, "rank must be in [1, 4096], got 0"),
        (["oig.jsonl", "--method", "lore"], 2, "argument --method: invalid choice: 'lore'"),
        (["nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["oig.jsonl", "--model", "no"], 3, "no model 'no'"),
        (["oig.jsonl", "--train-log-backend", "wanb"], 1, "did you mean 'wandb'?"),
        (["oig.jsonl", "--resume"], 2, "--resume goes on with the settings of the run, so without"),
        (["--resume", "--rank", "3"], 2, "so without --rank"),
        (["--resume"], 1, "there is no training run to go on with; `sparsechat train list`"),
        (["--resume", "x"], 1, "there is no training run 'x'; `sparsechat train DATA` makes one"),
    ],
)
def test_what_cannot_be_is_one_line(
    train: Train, training: FakeTraining, words: list[str], code: int, line: str
) -> None:
    found, out, err = train(*words)
    assert (found, out, err.count("\n")) == (code, "", 1) and line in err
    assert not training.begun and not runs_dir().exists()


def test_without_torch_the_command_that_installs_it_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    code, _, err = train("oig.jsonl")
    assert code == 1 and "pip install 'sparsechat[train]'" in err


def press_at(number: int, presses: int = 1) -> Callable[[int], None]:
    def during(step: int) -> None:
        if step == number:
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)

    return during


def test_ctrl_c_ends_after_the_step_and_resume_goes_on(
    train: Train, training: FakeTraining
) -> None:
    training.during = press_at(3)
    code, _, _ = train("oig.jsonl")
    assert code == 130
    training.during = None
    code, _, err = train("--resume")
    assert code == 0 and training.resumed == [runs_dir() / "oig-lora"]
    assert "oig-lora: goes on after step 3" in err
    code, _, err = train("--resume", "oig-lora")
    assert code == 1 and "run oig-lora is finished" in err


def test_ctrl_c_says_what_happens_and_prints_the_resume_command(
    training: FakeTraining, capfd: pytest.CaptureFixture[str]
) -> None:
    training.during = press_at(3)
    assert main(["train", "oig.jsonl"]) == 130
    lines = capfd.readouterr().err.splitlines()
    assert "finishing this step, then saving; Ctrl-C again stops at once" in lines
    assert lines[-1] == (
        "oig-lora: stopped at step 3; `sparsechat train --resume oig-lora` goes on from there"
    )


def test_a_second_ctrl_c_ends_at_once_and_says_what_is_kept(
    train: Train, training: FakeTraining
) -> None:
    training.during = press_at(2, presses=2)
    code, _, err = train("oig.jsonl")
    assert code == 130
    assert err.splitlines()[-1] == "oig-lora: ended at once, before anything was saved"
    training.during = press_at(3)
    train("--resume", "oig-lora")
    training.during = press_at(4, presses=2)
    code, _, err = train("--resume", "oig-lora")
    assert err.splitlines()[-1].endswith(
        "oig-lora: ended at once; `sparsechat train --resume oig-lora` goes on from what is saved"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_skipped_step_is_told(train: Train, training: FakeTraining) -> None:
    training.skipped = {2: "the loss of 9.000 is a spike: 2.000 is usual"}
    _, _, err = train("oig.jsonl")
    assert "oig-lora: step 2 left the weights alone: the loss of 9.000 is a spike" in err
    assert "1 step skipped" in err


def test_trackers_hear_the_run_and_without_print_steps_are_not_lines(train: Train) -> None:
    _, _, err = train("oig.jsonl", "--train-log-backend", "loguru")
    assert "step 1/4" not in err and "     2   1.8500" in err
    log = (runs_dir() / "oig-lora" / "loguru.log").read_text()
    assert "step 1/4 · loss 1.9000" in log


def test_every_setting_has_a_flag() -> None:
    named = [name for helps in flags.GROUPS.values() for name in helps]
    assert sorted([*named, "data"]) == sorted(field.name for field in fields(TrainSettings))


@pytest.mark.parametrize("built_in", ["--rank N of the adapter's matrices (16)", "--config FILE"])
def test_help_shows_built_in_values_and_actions(train: Train, built_in: str) -> None:
    code, out, _ = train("--help")
    assert code == 0 and built_in in " ".join(out.split())
    assert re.search(r"^  from-kb  +Write training rows", out, re.MULTILINE)


def test_actions_take_the_word_after_train(train: Train) -> None:
    code, out, _ = train("from-kb", "--help")
    assert code == 0 and out.startswith("usage: sparsechat train from-kb ")


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
         "<|im_start|>assistant\n", "Hi there"),
        ("<human>: Hi\n<bot>:", "<human>: Hi <bot>:"),
        ("<|im_start|>user\n" + "word " * 40, "…" + ("word " * 40).strip()[-99:]),
    ],
)  # fmt: skip
def test_the_last_turn_of_a_prompt_is_shown(prompt: str, shown: str) -> None:
    assert monitor.shown_prompt(prompt) == shown
    assert monitor.sample_lines(Sample(prompt, "a\nb", "c"), True)[1] == "          base  a b"


def test_durations_are_shown_as_clocks_show_them() -> None:
    assert [monitor.duration(s) for s in (0, 42.4, 725, 12_000)] == [
        "0:00", "0:42", "12:05", "3:20:00",
    ]  # fmt: skip


def test_a_run_that_is_killed_is_neither_finished_nor_held(
    train: Train, training: FakeTraining
) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        assert Run(runs_dir() / "oig-lora").is_held
        raise Killed

    training.during = kill
    with pytest.raises(Killed):
        train("oig.jsonl")
    run = Run(runs_dir() / "oig-lora")
    assert (run.is_finished, run.is_held, run.result()) == (False, False, None)
