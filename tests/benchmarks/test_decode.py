"""Rows of decoding and of long contexts, on sides that take a given time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import decode, longcontext
from benchmarks.bandwidth import Bandwidth
from benchmarks.machine import Load
from benchmarks.options import Options
from benchmarks.rounds import Round, Task


class FakeSides:
    """A token takes 10 ms and 1 µs for each that came before; the peer twice that."""

    flash_attention = True
    peer_loaded: ClassVar[dict[str, Any]] = {
        "bytes_per_token": 1_000_000, "bytes_per_position": 100, "packed_weights": False,
        "import_s": 0.1, "load_s": 0.2, "first_token_s": 0.3,
    }  # fmt: skip

    def __init__(self, task: Task, packs: bool) -> None:
        self.task = task
        self.ours_loaded = self.peer_loaded | {"packed_weights": packs}

    def rounds(self, n: int) -> Iterator[Round]:
        for _ in range(n):
            seconds = self.task.n_tokens * (10e-3 + 1e-6 * (self.task.position or 0))
            yield Round(seconds, 2 * seconds, (Load(1.0, 0.0),))

    def ask_both(self, action: str) -> tuple[dict[str, Any], dict[str, Any]]:
        assert action == "memory"
        ours = {"anon": 1 << 30, "file": 2 << 30, "peak": 3 << 30}
        return {"memory": ours}, {"memory": ours | {"peak": 6 << 30}}


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Options:
    path = tmp_path / "tiny.Q4_0.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(Options, "files", lambda self: {"Q4_0 file": path})
    bandwidths = lambda n_bytes, threads: [Bandwidth(n_bytes, t, 0.2) for t in threads]  # noqa: E731
    monkeypatch.setattr(decode.bandwidth, "read_bandwidths", bandwidths)

    def periods(work: Sequence[tuple[str, Task]], options: Options) -> Iterator[Any]:
        for period in range(options.periods):
            for i, (_, task) in enumerate(work):
                yield period, task, FakeSides(task, packs=period == i == 0)

    monkeypatch.setattr(decode, "periods", periods)
    return Options("decode", "tiny", path, ("Q4_0",), "llama", False, False, (1, 2), 3, 2)


def rows_of(
    measurement: decode.Measurement, chosen: Options
) -> dict[tuple[str, int], dict[str, Any]]:
    measurement.run()
    return {(row.metric, row.threads): row.as_json() for row in measurement.rows()}


def test_rate_stands_beside_what_the_memory_allows(chosen: Options) -> None:
    row = rows_of(decode.Measurement(list(decode.tasks(chosen)), chosen), chosen)["decode", 2]
    assert (row["ours"], row["peer"], row["ratio"], row["rounds"]) == (100, 50, 2, 6)
    assert row["bytes_per_token"] == 1_000_000 + 64 * 100  # the cache's, in the middle
    assert row["limit_tok_s"] == pytest.approx(198.7, rel=1e-3)
    assert row["limit_share"] == pytest.approx(100 / 198.7, rel=1e-3)


def test_start_and_memory_are_those_of_processes_that_packed_nothing(chosen: Options) -> None:
    found = rows_of(decode.Measurement(list(decode.tasks(chosen)), chosen), chosen)
    assert found["import to first token", 1]["rounds"] == 1  # the second period's
    assert (found["peak memory", 2]["ours"], found["peak memory", 2]["peer"]) == (3, 6)
    assert found["peak memory", 2]["ours_file_gib"] == 2
    assert ("peak memory", 1) not in found  # threads make no difference
    assert found["peak memory of packing, once", 1]["rounds"] == 1


def test_long_context_is_held_against_the_empty_one(chosen: Options) -> None:
    measurement = decode.Measurement(longcontext.decodes(chosen, 2000), chosen)
    measurement.run()
    shares = {row.threads: row.as_json() for row in longcontext.kept(measurement)}
    assert shares.keys() == {1, 2}
    assert shares[2]["ours"] == pytest.approx(10 / 12, rel=1e-3)
    assert shares[2]["ratio"] == pytest.approx(1, rel=1e-3)
    cases = [row.case for row in measurement.rates.values()]
    assert cases[:2] == ["Q4_0 file, position 0", "Q4_0 file, position 2,000"]


@pytest.mark.parametrize(("n_bytes", "n_tokens"), [(90 << 20, 128), (1 << 30, 64), (4 << 30, 16)])
def test_larger_models_write_shorter_answers(
    chosen: Options, n_bytes: int, n_tokens: int, tmp_path: Path
) -> None:
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.truncate(n_bytes)
    assert decode.n_tokens(chosen, path) == n_tokens
