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
    assert lines[5].startswith("layers     read      KL") and lines[8].endswith("never faster here")
    assert [line.strip() for line in lines[-2:]] == ["a = off", "b = balanced, fast"]
    assert engine.methods_measured == 0


def test_calibrate_measures_anew_and_json_is_one_object(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "calibrate", "tiny")
    code, out, err = run(capsys, "calibrate", "tiny", "--json")
    assert (code, err, engine.calibrations, out.count("\n")) == (0, "", 2, 1)
    found = json.loads(out)
    assert found["model"] == {"name": "tiny", "fingerprint": "f" * 64, "weight_format": "q8"}
    assert [row["level"] for row in found["levels"]] == ["balanced", "fast"]
    sites = found["levels"][0]["sites"]
    assert [(site["layer"], site["site"]) for site in sites] == [
        *((0, "up"), (1, "up"), (0, "o"), (1, "o")),
    ]
    assert set(sites[2]) == {
        *("layer", "site", "active", "kl", "dense_bytes", "read_bytes", "saved_s", "pays_below"),
        "kl_there",
    }
    assert found["methods"] == []
    code, out, err = run(capsys, "report", "tiny", "--json")
    assert (code, err, engine.calibrations) == (0, "", 2)
    assert [row["level"] for row in json.loads(out)["methods"]] == ["head only"]
    assert {**json.loads(out), "methods": []} == found


def test_methods_alone_are_measured_by_the_first_report(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "calibrate", "tiny")
    for _ in range(2):
        code, out, err = run(capsys, "report", "tiny")
        assert (code, err, engine.methods_measured) == (0, "", 1)
        assert "\nhead only: 82.0 of 96.0 MB a token · 111 tok/s" in out
        assert out.splitlines()[-1].strip() == "c = head only"
    run(capsys, "calibrate", "tiny")
    run(capsys, "report", "tiny")
    assert engine.methods_measured == 2


def test_ctrl_c_leaves_the_methods_out_of_a_report(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "calibrate", "tiny")

    def press(on_progress: Callable[[str, float], None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        report_on(on_progress)

    engine.calibrating = press
    code, out, err = run(capsys, "report", "tiny")
    assert (code, err) == (0, "stopped: the report is without the methods alone\n")
    assert "balanced: " in out and "head only" not in out


def test_the_picture_is_drawn_to_a_file(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "sparsity.png"
    code, out, _ = run(capsys, "calibrate", "tiny", "--png", str(target))
    assert code == 0 and "b = balanced, fast" in out
    assert target.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    code, out, err = run(capsys, "report", "tiny", "--png", str(tmp_path / "no" / "x.png"))
    assert (code, out) == (1, "") and "no/x.png" in err and err.count("\n") == 1


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
