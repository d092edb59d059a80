"""The command line of the benchmarks; no peer is looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import options, peers


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "available", lambda name, build: None)
    monkeypatch.setattr(options.machine, "cores", lambda: 4)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "some.Q4_0.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


def parse(monkeypatch: pytest.MonkeyPatch, *words: str) -> options.Options:
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    return options.parse("decode", "How fast?", rounds=5)


def test_quick_is_two_rounds_of_the_two_formats_in_one_period(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    quick = parse(monkeypatch, "--model", model, "--quick")
    assert (quick.periods, quick.rounds, quick.formats) == (1, 2, ("stored", "Q4_0"))
    whole = parse(monkeypatch, "--model", model)
    assert (whole.periods, whole.rounds, whole.formats) == (2, 5, ("stored", "Q4_0", "Q8_0"))
    assert whole.threads == (1, 2)


def test_result_is_named_after_what_is_not_the_default(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(options.platform, "machine", lambda: "x86_64")
    assert parse(monkeypatch, "--model", model).name == "decode-some.Q4_0"
    assert parse(monkeypatch, "--model", model, "--avx2").name == "decode-some.Q4_0-avx2"
    assert parse(monkeypatch, "--model", model, "--peer", "none").name == "decode-some.Q4_0-alone"
    assert parse(monkeypatch, "--model", model, "--kv-cache", "q8").name == "decode-some.Q4_0-q8"


def test_avx2_limits_our_processes_too(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr(options.platform, "machine", lambda: "AMD64")
    limited = parse(monkeypatch, "--model", model, "--avx2").variables()
    assert limited["NUMBA_CPU_NAME"] == "haswell"
    assert limited["NUMBA_CPU_FEATURES"] == ""  # or the name would change nothing
    free = parse(monkeypatch, "--model", model).variables()
    assert free.keys() == {"SPARSECHAT_HOME"}
    assert free["SPARSECHAT_HOME"] != limited["SPARSECHAT_HOME"]  # no kernels of the other kind


def test_benchmark_has_formats_of_its_own_unless_told(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    def formats(*words: str) -> tuple[str, ...]:
        monkeypatch.setattr(sys, "argv", ["benchmark", "--model", model, *words])
        return options.parse("beams", "How long?", 3, ("Q4_0",)).formats

    assert formats() == formats("--quick") == ("Q4_0",)
    assert formats("--formats", "stored", "Q8_0") == ("stored", "Q8_0")


def test_avx2_is_refused_elsewhere_than_on_x86(
    monkeypatch: pytest.MonkeyPatch, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options.platform, "machine", lambda: "arm64")
    with pytest.raises(SystemExit, match="2"):
        parse(monkeypatch, "--model", model, "--avx2")
    assert "--avx2 is for x86-64 processors" in capsys.readouterr().err


def test_model_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    with pytest.raises(SystemExit, match="3"):
        parse(monkeypatch)
    assert capsys.readouterr().err.startswith("smollm2-135m is not installed; `sparsechat models")


@pytest.mark.parametrize("words", [("--threads", "0"), ("--rounds", "x"), ("--formats", "Q9")])
def test_values_that_cannot_be_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(monkeypatch, *words)


def test_a_benchmark_of_ours_alone_takes_one_and_all_cores_and_flags_of_its_own(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    parser = options.parser_of("some", "What?")
    parser.add_argument("--parts", nargs="+")
    words = ["--model", model, "--parts", "a", "b"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    chosen, args = options.parse_alone(parser, "some", rounds=5)
    assert (chosen.name, chosen.threads, chosen.rounds) == ("some-some.Q4_0", (1, 4), 5)
    assert (chosen.peer, args.parts) == (None, ["a", "b"])
