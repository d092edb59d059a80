"""Targets held against results that were made up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import targets
from benchmarks.report import Row, document
from benchmarks.targets import Target, Verdict


def result(*rows: Row, quick: bool = False) -> dict[str, Any]:
    about = {"run": {"at": "today", "periods": 2, "rounds": 3, "quick": quick}}
    return document("decode", about, rows)


def decode(threads: int, ours: float, peer: float | None, case: str = "Q4_0 file") -> Row:
    row = Row(case, threads, "decode", "tok/s", "llama.cpp")
    row.add(ours, peer)
    row.extra = {"limit_tok_s": 350.0, "limit_share": 0.9}
    return row


def verdict_of(threads: int, *rows: Row) -> Verdict:
    found = targets.verdicts({"decode": result(*rows)})
    return next(v for v in found if (v.target.result, v.target.threads) == ("decode", threads))


def test_ratio_is_held_against_the_bound_and_shown_beside_the_limit() -> None:
    verdict = verdict_of(2, decode(2, 300, 100), decode(1, 200, 100))
    assert (verdict.measured, verdict.limit, verdict.is_met) == (3, 3.5, False)
    assert verdict_of(2, decode(2, 401, 100)).is_met is True


def test_target_is_about_the_case_the_threads_and_the_metric_alone() -> None:
    other = Row("Q4_0 file", 2, "import to first token", "s", "llama.cpp")
    other.add(1.0, 9.0)
    assert verdict_of(2, decode(2, 900, 100, "Q4_1 file"), decode(1, 900, 100), other).row is None


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    verdicts = list(targets.verdicts({}))
    assert len(verdicts) == len(targets.TARGETS)
    assert {v.is_met for v in verdicts} == {None}
    assert verdict_of(2, decode(2, 300, None)).is_met is None  # the peer was missing


def test_upper_bound_is_met_at_the_bound_and_below() -> None:
    target = Target("idle CPU", "startup", "CPU at the prompt", 0.0, key="ours", at_most=True)
    for value, is_met in ((0.0, True), (0.1, False)):
        row = Row("Q4_1 file", 2, "CPU at the prompt", "% of a core")
        row.add(value)
        assert Verdict(target, row.as_json()).is_met is is_met


def test_share_of_the_bandwidth_has_all_of_it_as_its_limit() -> None:
    target = Target("share", "decode-shape-1.1b", "decode", 0.85, "Q4_0 file", 2, "limit_share")
    verdict = Verdict(target, decode(2, 300, 100).as_json())
    assert (verdict.measured, verdict.limit, verdict.is_met) == (0.9, 1, True)


def test_every_target_names_a_benchmark_that_all_runs() -> None:
    from benchmarks import all as everything

    modules = {run.name for run in everything.RUNS}
    assert {target.result.partition("-")[0] for target in targets.TARGETS} <= modules


def test_printed_table_ends_with_the_same_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = result(decode(2, 401, 100), quick=True)
    (tmp_path / "decode.json").write_text(json.dumps(saved), "utf-8")
    monkeypatch.setattr(sys, "argv", ["targets", str(tmp_path)])
    targets.main()
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "decode, 135M, against Q4_0", "Q4_0 file", "2", "≥ 4x", "4.01x (401 : 100 llama.cpp)",
        "3.5x", "yes",
    ]  # fmt: skip
    assert any(line.startswith("decode: commit ") and "QUICK" in line for line in lines)
    first = json.loads(lines[-1])["rows"][0]
    assert (first["measured"], first["limit"], first["is_met"]) == (4.01, 3.5, True)


def test_a_single_method_is_not_taken_for_another_whose_name_ends_alike() -> None:
    rows = []
    for name, ratio in (("certified head", 0.9), ("calibrated head", 1.3)):
        rows.append(Row(f"{name}, greedy", 2, "decode", "tok/s", "off"))
        rows[-1].add(100 * ratio, 100)
    found = targets.verdicts({"sparsity": document("sparsity", {}, rows)})
    heads = [v for v in found if v.target.what == "head alone, greedy"]
    assert [(v.measured, v.is_met) for v in heads] == [(1.3, True)]
