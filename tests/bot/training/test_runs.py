"""`sparsechat train list`, `show`, `plot`, `prepare`, on runs that a loop by script left."""

from __future__ import annotations

import builtins
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.training.run import runs_dir
from tests.bot.training.conftest import FakeTraining

Train = Callable[..., tuple[int, str, str]]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def two_runs(train: Train, training: FakeTraining) -> None:
    """oig-lora is finished, second was stopped after step 3 of 4."""

    def press(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    train("oig.jsonl")
    training.during = press
    train("oig.jsonl", "--name", "second", "--rank", "4")


@pytest.mark.usefixtures("two_runs")
def test_list_shows_states_and_how_runs_go_on(train: Train) -> None:
    code, out, err = train("list")
    assert (code, err) == (0, "")
    header, *rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert header == ["run", "state", "step", "best loss", "at"]
    assert sorted(rows) == [
        ["oig-lora", "finished", "4 of 4", "1.8000", "4"],
        ["second", "stopped", "3 of 4", "1.9000", "2", "sparsechat train --resume second"],
    ]
    records = json.loads(train("list", "--json")[1])["runs"]
    assert {r["name"]: (r["state"], r["best_loss"], r["first_loss"]) for r in records} == {
        "oig-lora": ("finished", 1.8, 2.0),
        "second": ("stopped", 1.9, 2.0),
    }


def test_list_without_runs_says_how_to_make_one(train: Train) -> None:
    assert train("list") == (0, "", "no training run yet: `sparsechat train DATA` makes one\n")
    assert json.loads(train("list", "--json")[1]) == {"runs": []}


@pytest.mark.usefixtures("two_runs")
def test_a_damaged_run_is_in_the_list_with_the_reason(train: Train) -> None:
    (runs_dir() / "second" / "settings.json").write_text("{")
    code, out, _ = train("list")
    assert code == 0 and "damaged" in out and "settings.json is damaged: " in out
    code, out, err = train("show", "second")
    assert (code, out, err.count("\n")) == (1, "", 1) and "is damaged" in err


@pytest.mark.usefixtures("two_runs")
def test_show_has_settings_evaluations_and_the_last_answers(train: Train) -> None:
    code, out, _ = train("show", "second")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split("  ", 1)[1].strip() == "second, stopped at step 3 of 4"
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines if "  " in line}
    assert facts["rank"] == "4" and "alpha" not in facts  # which is as it is built in
    assert facts["goes on with"] == "sparsechat train --resume second"
    assert "     2   1.8500    1.9000        6.50    50.0 %     480  best" in lines
    assert lines[-3:] == [
        "        > Who are you?",
        "          base  Nobody.",
        "          now   Me.",
    ]
    record = json.loads(train("show", "second", "--json")[1])
    assert record["settings"]["rank"] == 4 and len(record["evaluations"]) == 2
    assert record["samples"][0]["now"] == "Me." and not record["result"]["finished"]


@pytest.mark.usefixtures("two_runs")
def test_a_torn_line_of_metrics_is_passed_over(train: Train) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (runs_dir() / "second" / name).open("a") as file:
            file.write('{"event": "st')
    assert train("show", "second")[0] == 0


@pytest.mark.usefixtures("two_runs")
def test_plot_draws_in_the_terminal_and_writes_a_png(train: Train, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = train("plot", "oig-lora")
    written = runs_dir() / "oig-lora" / "loss.png"
    assert (code, err) == (0, f"written to {written}\n")
    assert written.read_bytes().startswith(PNG)
    lines = out.splitlines()
    assert lines[0].strip() == "loss, nats a token"
    assert lines[-1] == "  . trained, o held out"
    assert sum(line.count("o") for line in lines[1:-3]) == 3  # evaluations
    assert train("plot", "oig-lora", "--out", str(tmp_path / "a.png"))[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert not list(tmp_path.glob("*.tmp-*"))


@pytest.mark.usefixtures("two_runs")
def test_without_matplotlib_the_picture_of_characters_is_there(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    code, out, err = train("plot", "oig-lora")
    assert code == 1 and "o held out" in out
    assert err == (
        "sparsechat: a PNG needs matplotlib, which is not installed: pip install matplotlib\n"
    )


@pytest.mark.parametrize("action", ["show", "plot"])
@pytest.mark.usefixtures("two_runs")
def test_a_run_that_is_not_there_names_the_nearest(train: Train, action: str) -> None:
    code, out, err = train(action, "secnd")
    assert (code, out) == (1, "")
    assert err == "sparsechat: there is no training run 'secnd'; did you mean 'second'?\n"


@pytest.mark.usefixtures("two_runs")
def test_a_run_may_be_named_by_its_folder(train: Train) -> None:
    assert train("show", str(runs_dir() / "second"))[0] == 0


def test_prepare_writes_rows_out_of_a_local_folder(train: Train, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "unified_a.jsonl").write_text(
        '{"text": "<human>: Hi\\n<bot>: Hello."}\n{"text": "<human>: alone"}\n'
    )
    code, out, err = train("prepare", "oig", "--origin", str(source), "--out", "rows.jsonl")
    assert (code, out) == (0, "")
    assert f"rows.jsonl: 1 row of {source} (Apache-2.0)" in err
    assert "1 row left out, such as " in err and "there is no answer in it" in err
    assert "Hello." in Path("rows.jsonl").read_text()


def test_prepare_leaves_a_file_that_is_there_alone(train: Train, tmp_path: Path) -> None:
    code, out, err = train("prepare", "oig", "--origin", str(tmp_path))  # the fixture's oig.jsonl
    assert (code, out, err.count("\n")) == (1, "", 1) and "is there already" in err
    code, _, err = train("prepare", "oigg")
    assert code == 1 and "no training data is called 'oigg'; did you mean 'oig'?" in err
