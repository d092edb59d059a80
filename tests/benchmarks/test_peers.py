"""Where peers are found and when they are made anew; nothing is installed here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import peers


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("SPARSECHAT_BENCH", str(tmp_path))
    return tmp_path


def pretend_built(name: str) -> Path:
    python = peers._python(name)
    python.parent.mkdir(parents=True)
    python.touch()
    ready = {"recipe": peers._recipe(peers.PEERS[name]), "about": "1.0 made up"}
    peers._folder(name).joinpath("ready.json").write_text(json.dumps(ready), "utf-8")
    return python


def test_variable_moves_the_folder(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.bench_dir() == bench
    monkeypatch.delenv("SPARSECHAT_BENCH")
    assert peers.bench_dir().name == "sparsechat-bench"
    assert not peers.bench_dir().is_relative_to(peers.ROOT)


def test_finished_environment_is_found() -> None:
    python = pretend_built("llama")
    assert peers.find("llama") == python
    assert peers.ensure("llama") == python
    assert peers.about("llama") == "1.0 made up"


def test_interrupted_build_is_not_taken_for_a_finished_one() -> None:
    python = peers._python("llama")
    python.parent.mkdir(parents=True)
    python.touch()
    assert peers.find("llama") is None


def test_other_flags_make_the_environment_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_built("llama")
    monkeypatch.setitem(peers.PEERS, "llama", peers._llama("llama", "-DGGML_NATIVE=OFF"))
    assert peers.find("llama") is None


def test_quick_run_leaves_out_a_peer_that_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert peers.available("llama", build=False) is None
    assert capsys.readouterr().err == (
        "llama is not built, so it is left out; python -m benchmarks.peers llama\n"
    )


def test_peer_that_cannot_be_built_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(peer: peers.Peer) -> None:
        raise peers.PeerError("pip ended with code 1; the end of build.log says why")

    monkeypatch.setattr(peers, "_build", fail)
    assert peers.available("llama", build=True) is None
    assert capsys.readouterr().err == (
        "llama is left out: pip ended with code 1; the end of build.log says why\n"
    )


def test_compiler_s_progress_is_shown_and_kept(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = bench / "build.log"
    script = "for i in range(1, 41): print(f'[{i}/40] cc file{i}.c')\nraise SystemExit(4)"
    assert peers._watch([sys.executable, "-c", script], log, {}, "llama") == 4
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 11 and shown[-1] == "llama: 40 of 40 files"
    assert "[17/40] cc file17.c" in log.read_text("utf-8")


def test_transformers_is_our_own_environment_when_the_versions_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers.metadata, "version", lambda name: peers._pins()[name] + "+cpu")
    assert peers.find("transformers") == Path(sys.executable)
    monkeypatch.setattr(peers.metadata, "version", lambda name: "0.1")
    assert peers.find("transformers") is None
