"""`sparsechat sparsity`, in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.__main__ import main
from tests.fakes import FakeEngine, FakeModel, fake_cost, report_on


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine({"tiny": FakeModel()})
    engine.install_in(monkeypatch.setitem)
    return engine


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["sparsity", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_calibrate_shows_each_level_and_a_picture(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "calibrate", "tiny")
    assert (code, err, engine.calibrations) == (0, "", 1)
    lines = out.splitlines()
    assert lines[0].startswith("balanced: 82.0 of 96.0 MB a token · 125 tok/s, dense 100 (1.25x)")
    assert lines[1:4] == [
        "part   dense MB  read MB    done",
        "head      28.00    14.00  25.0 %  screen 7.0 MB",
        "token     96.00    82.00",
    ]
    assert [line.strip() for line in lines[-2:]] == ["a = off", "b = balanced, fast"]


def test_calibrate_measures_anew_and_json_is_one_object(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "calibrate", "tiny")
    code, out, err = run(capsys, "calibrate", "tiny", "--json")
    assert (code, err, engine.calibrations, out.count("\n")) == (0, "", 2, 1)
    found = json.loads(out)
    assert found["model"] == {"name": "tiny", "fingerprint": "f" * 64, "weight_format": "q8"}
    assert [row["level"] for row in found["levels"]] == ["balanced", "fast"]
    assert run(capsys, "report", "tiny", "--json") == (0, out, "")
    assert engine.calibrations == 2


def test_a_report_before_the_calibration_names_the_command(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "report", "tiny")
    assert (code, out) == (1, "")
    assert err == (
        "sparsechat: tiny was not calibrated; `sparsechat sparsity calibrate tiny` does it\n"
    )


def test_ctrl_c_ends_a_calibration_and_nothing_is_kept(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(on_progress: Callable[[str, float], None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        report_on(on_progress)

    engine.calibrating = press
    code, out, err = run(capsys, "calibrate", "tiny", "--json")
    assert (code, out, err) == (130, "", "interrupted: nothing was kept\n")


def test_the_setting_does_not_calibrate_before_the_verb_does(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECHAT_SPARSITY", "fast")
    assert run(capsys, "report", "tiny")[0] == 1
    assert engine.calibrations == 0


def test_a_results_file_adds_its_points(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine.models["tiny"] = FakeModel(costs={"fast": fake_cost("fast")})
    rows = [
        {"case": "head alone, top 40", "metric": "decode", "threads": 2, "ratio": 1.4},
        {"case": "head alone, top 40, chat", "metric": "exp(KL) - 1", "ours": 0.03},
        {"case": "other, top 40, chat", "metric": "exp(KL) - 1", "ours": 0.03},
    ]
    path = tmp_path / "sparsity.json"
    path.write_text(json.dumps({"rows": rows}))
    code, out, _ = run(capsys, "report", "tiny", "--results", str(path))
    assert code == 0 and "= head alone (results)\n" in out and "other" not in out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [{"case": "x"}]}', '{"rows": [3]}'])
def test_another_file_than_a_results_file_is_refused(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "sparsity.json"
    path.write_text(text)
    code, out, err = run(capsys, "report", "tiny", "--results", str(path))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "has no speed beside a loss" in err
