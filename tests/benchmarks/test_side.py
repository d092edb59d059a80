"""The actions that are timed, through our own driver on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gguf_files
from benchmarks.engine_driver import Engine
from benchmarks.shapes import Shape
from benchmarks.transformers_driver import Transformers

IDS = [1, 2, 3, 4, 5]


class Watched(Engine):
    """Remembers every call of the decoder: tokens in the cache before it, and new tokens."""

    def load(self, *args: Any, **options: Any) -> dict[str, Any]:
        self.calls: list[tuple[str, int, int]] = []
        answer = super().load(*args, **options)
        decoder = self._model.decoder
        extend, branch = decoder.extend, decoder.branch

        def watched_extend(cache: Any, token_ids: Any, **more: Any) -> Any:
            name = "all" if more.get("all_logits") else "run"
            self.calls.append((name, len(cache.token_ids), len(token_ids)))
            return extend(cache, token_ids, **more)

        def watched_branch(cache: Any, token_ids: Any, branches: Any, *more: Any) -> Any:
            depths = {len(path) for path in branches.paths}
            assert len(depths) == 1 and len(set(branches.slots)) == len(token_ids)
            self.calls.append(("beams", len(cache.token_ids) + depths.pop() - 1, len(token_ids)))
            return branch(cache, token_ids, branches, *more)

        decoder.extend, decoder.branch = watched_extend, watched_branch  # type: ignore[method-assign]
        return answer


@pytest.fixture
def side(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv("SPARSECHAT_BENCH", str(tmp_path))
    monkeypatch.setitem(gguf_files.SHAPES, "tiny", Shape(2, 64, 96, 4, 2, 128))
    side = Watched()
    side.loaded = side.load(str(gguf_files.of_shape("tiny")), threads=1)  # type: ignore[attr-defined]
    side.calls.clear()
    yield side
    side._model.close()


def test_load_tells_the_work_of_a_token(side: Watched) -> None:
    loaded = side.loaded  # type: ignore[attr-defined]
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96
    assert loaded["multiplications"] == 2 * layer
    assert loaded["head_multiplications"] == 64 * 128
    assert loaded["packed_weights"] is True  # nobody had seen this file
    assert 0 < loaded["bytes_per_token"] < side._model.n_bytes  # the embedding is not the head
    assert loaded["bytes_per_position"] > 0


def test_decode_times_one_token_at_a_time_from_the_position(side: Watched) -> None:
    took = side.decode(IDS, position=7)
    assert took["seconds"] > 0
    assert side.calls[0][2] == 6  # one token is there from loading
    assert side.calls[-5:] == [("run", 7 + i, 1) for i in range(5)]


def test_prefill_reads_the_prompt_from_nothing(side: Watched) -> None:
    side.prefill(IDS)
    assert side.calls[-1] == ("run", 0, 5)


def test_several_tokens_start_at_the_position_again_at_every_step(side: Watched) -> None:
    side.several(IDS[:3], position=4, width=8)
    assert side.calls[-3:] == [("all", 4, 8)] * 3
    assert len(side._cache.token_ids) == 4


def test_beams_grow_by_one_token_a_step_and_leave_nothing(side: Watched) -> None:
    side.beams(IDS, position=4, width=3)
    assert side.calls[-5:] == [("beams", 4 + i, 3) for i in range(5)]
    assert len(side._cache.token_ids) == 4


def test_one_beam_is_plain_decoding(side: Watched) -> None:
    side.beams(IDS, position=4, width=1)
    assert side.calls[-5:] == [("run", 4 + i, 1) for i in range(5)]
    assert len(side._cache.token_ids) == 4


def test_side_without_beams_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Transformers has no beams"):
        Transformers()._fork(2)
