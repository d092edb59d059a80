"""From made-up samples to rows, the table and the JSON line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.machine import Load
from benchmarks.report import Row

ABOUT: dict[str, Any] = {
    "cpu": "A Processor",
    "cores": 2,
    "python": "3.11",
    "numba": "1",
    "numpy": "2",
    "read_gb_s": 40.0,
    "read": [{"n_bytes": 96_000_000, "threads": 1, "gb_s": 25.04}],
}


def rates() -> Row:
    row = Row("Q4_0 file", 2, "decode", "tok/s", "llama.cpp")
    row.add(400.0, 100.0, Load(1.0, 0.0), Load(3.0, 0.0))
    row.add(500.0, 200.0, Load(50.0, 2.0))
    row.add(600.0, 120.0, Load(5.0, 0.0))
    return row


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.machine, "commit", lambda: "abc-dirty")


def test_row_holds_medians_and_the_range_of_ratios_over_rounds() -> None:
    row = rates().as_json()
    assert (row["ours"], row["peer"]) == (500, 120)
    assert row["ratio"] == 4.167  # of the medians, four digits
    assert (row["ratio_low"], row["ratio_high"]) == (2.5, 5)
    assert (row["ours_low"], row["ours_high"]) == (400, 600)
    assert (row["peer_low"], row["peer_high"]) == (100, 200)
    assert (row["foreign_percent"], row["steal_percent"]) == (4, 0)
    assert row["rounds"] == 3


def test_ratio_is_above_one_when_less_is_better_and_ours_is_less() -> None:
    row = Row("start", 2, "first token", "s", "llama.cpp", less_is_better=True)
    row.add(0.5, 2.0)
    row.add(1.0, 1.0)
    assert row.ratios() == [4, 1]
    assert row.as_json()["ratio"] == 2


def test_ratio_is_below_one_when_the_peer_is_better() -> None:
    row = Row("prompt", 1, "prefill", "tok/s", "llama.cpp")
    row.add(50.0, 100.0)
    assert row.as_json()["ratio"] == 0.5


def test_missing_peer_is_null_and_ours_stays() -> None:
    row = Row("Q4_1 file", 1, "decode", "tok/s", "llama.cpp")
    row.add(10.0)
    row.add(20.0)
    values = row.as_json()
    assert values["ours"] == 15
    assert [values[key] for key in ("peer", "ratio", "ratio_low", "ratio_high")] == [None] * 4


def test_peer_that_fails_in_the_middle_leaves_the_rounds_before() -> None:
    row = Row("Q4_1 file", 1, "decode", "tok/s", "llama.cpp")
    row.add(10.0, 5.0)
    row.add(30.0)
    values = row.as_json()
    assert (values["ours"], values["peer"], values["ratio_low"]) == (20, 5, 2)


def test_zero_on_the_lower_side_has_no_ratio() -> None:
    row = Row("text", 2, "KL", "nats", "llama.cpp", less_is_better=True)
    row.add(0.0, 0.5)
    assert row.as_json()["ratio"] is None


def test_row_carries_its_extra_fields_and_drops_what_is_not_a_number() -> None:
    row = rates()
    row.extra = {"bandwidth_share": 0.87654, "limit_tok_s": float("nan"), "flash": True}
    values = row.as_json()
    assert (values["bandwidth_share"], values["limit_tok_s"], values["flash"]) == (
        0.8765,
        None,
        True,
    )


def test_last_line_is_one_json_object_of_the_agreed_shape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.publish("decode", ABOUT, [rates()])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result) == ["name", "commit", "machine", "rows"]
    assert (result["name"], result["commit"]) == ("decode", "abc-dirty")
    assert result["machine"]["read_gb_s"] == 40
    agreed = {"case", "threads", "metric", "unit", "ours", "peer", "peer_name"}
    assert agreed | {"ratio", "ratio_low", "ratio_high"} <= result["rows"][0].keys()


def test_people_read_medians_with_their_range(capsys: pytest.CaptureFixture[str]) -> None:
    report.publish("decode", ABOUT, [rates()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A Processor, 2 cores, Python 3.11, numba 1, numpy 2, commit abc-dirty"
    assert lines[1] == "reads 96 MB with 1 thread: 25.0 GB/s"
    headings, _, row = lines[3:6]
    assert headings.split()[:3] == ["case", "threads", "metric"]
    assert "500 (400-600)  120 (100-200) llama.cpp  4.17 (2.5-5)x" in row
    assert "of the memory" not in headings  # no row has a value for it


def test_saved_result_is_what_was_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    report.publish("decode", ABOUT, [rates()], save=True)
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "results" / "decode.json").read_text("utf-8")) == printed
