"""The shell and `ask` over the real engine and the default model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.model
ROOT = Path(__file__).parents[2]


def sparsechat(*words: str, stdin: str = "") -> tuple[str, str]:
    """(stdout, stderr) of a run that succeeded."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", *words],
        input=stdin, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_second_turn_reads_only_what_is_new(smollm2_path: Path) -> None:
    lines = "My name is Ada.\nWhat is my name?\n/history\n"
    out, err = sparsechat(
        "--model", str(smollm2_path), "--no-sample", "--max-tokens", "12", stdin=lines
    )
    counts = re.findall(r"prompt (\d+) \((\d+) cached, (\d+) new\)", err)
    (first, cached, _), (second, reused, _) = [tuple(map(int, found)) for found in counts]
    assert cached == 0
    assert first <= reused < second
    assert "1> My name is Ada.\n" in out and "2> What is my name?\n" in out


def test_the_same_seed_gives_the_same_answer(smollm2_path: Path) -> None:
    words = ("ask", "--model", str(smollm2_path), "--json", "--max-tokens", "16")
    first = json.loads(sparsechat(*words, "--seed", "1", "Name a river.")[0])
    second = json.loads(sparsechat(*words, "--seed", "1", stdin="Name a river.\n")[0])
    assert first["answer"] == second["answer"]
    assert first["model"] == second["model"]
    other = json.loads(sparsechat(*words, "Name a river.")[0])
    again = json.loads(sparsechat(*words, "--seed", str(other["seed"]), "Name a river.")[0])
    assert other["answer"] == again["answer"]


def test_an_answer_that_is_continued_equals_one_in_one_piece(smollm2_path: Path) -> None:
    words = ("--model", str(smollm2_path), "--no-sample")
    whole, _ = sparsechat(*words, "--max-tokens", "24", stdin="Count to ten.\n/history\n")
    parts, _ = sparsechat(
        *words, "--max-tokens", "12", stdin="Count to ten.\n/continue\n/history\n"
    )
    assert whole.partition("1> ")[2] == parts.partition("1> ")[2]


def test_a_resumed_conversation_reads_only_what_is_new_and_goes_on_as_if_never_left(
    smollm2_path: Path, home: Path
) -> None:
    words = ("--model", str(smollm2_path), "--no-sample", "--max-tokens", "12")
    long = "Tell me what this means: " + "the quick brown fox jumps over the lazy dog, " * 40
    stayed, before = sparsechat(*words, stdin=f"{long}\nWhy?\n/save fox\nSo what?\n/history\n")
    resumed, err = sparsechat(*words, stdin="/load fox\nSo what?\n/history\n")
    counts = [tuple(map(int, n)) for n in re.findall(r"(\d+) \((\d+) cached, (\d+) new", before)]
    (asked, cached, new) = map(int, re.findall(r"(\d+) \((\d+) cached, (\d+) new", err)[0])
    assert cached >= counts[1][0] and new < 40 and asked == cached + new
    assert f"[{cached:,} tokens were read back from the disk" in err
    assert resumed.partition("1> ")[2] == stayed.partition("1> ")[2]
    assert [path.name for path in (home / "cache" / "kv").iterdir()] == ["fox.kv"]


def test_a_level_is_calibrated_once_and_says_what_it_costs(smollm2_path: Path, home: Path) -> None:
    words = ("ask", "--model", str(smollm2_path), "--json", "--max-tokens", "16", "--seed", "1")
    question = "What is a volcano?"
    out, err = sparsechat(*words, "--sparsity", "balanced", question)
    assert "calibrating sparsity, once for this model" in err
    found = json.loads(out)["sparsity"]
    assert found["level"] == "balanced" and 0 < found["kl"] < 0.02
    assert found["same_likeliest"] > 0.9  # thresholds of layers are taken where they were faster
    assert found["bytes_per_token"] < 0.9 * found["dense_bytes_per_token"]
    again, err = sparsechat(*words, "--sparsity", "balanced", question)
    assert "calibrat" not in err and json.loads(again)["sparsity"] == found
    shown, _ = sparsechat(
        "--model", str(smollm2_path), "--sparsity", "fast", "--max-tokens", "16",
        stdin=f"{question}\n/sparsity\n",
    )  # fmt: skip
    assert re.search(r"\nlast answer: .* KL 0\.\d+ ± 0\.\d+ · same likeliest token", shown)
    report = json.loads(sparsechat("sparsity", "report", str(smollm2_path), "--json")[0])
    assert report["levels"][0] == found
