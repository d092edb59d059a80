"""The parts of benchmarks.training_step that need no model."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.training_step import Task, _rows, batches
from tests.engine.decoders import small_config

TASK = Task(Path("model"), None, 900, 4, 2, 0.999, False)


def test_random_documents_fill_a_step_and_are_labelled_in_their_second_halves() -> None:
    for batch in islice(batches(TASK, small_config()), 3):
        assert sum(batch.lengths) == len(batch.token_ids) == 900
        assert batch.token_ids.max() < 97
        assert (batch.token_ids[batch.rows + 1] == batch.targets).all()
        starts = np.cumsum([0, *batch.lengths[:-1]])
        assert not np.isin(batch.rows + 1, starts).any()
        assert 0.3 < len(batch.rows) / 900 < 0.6


def test_a_case_has_rows_of_speed_and_memory() -> None:
    found = {"rates": [10.0, 30.0, 20.0], "peak": 3 << 30, "seconds": {"a": 1.0, "b": 3.0}}
    speed, memory = _rows("lora:f32", 2, found | {"load": [1.0, 0.0]})
    assert speed.as_json()["ours"] == 20.0
    assert speed.as_json()["shares"] == {"a": 0.25, "b": 0.75}
    assert memory.as_json()["ours"] == 3.0
