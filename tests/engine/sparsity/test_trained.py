"""The thresholds that travel with a model: written, read, and refused where they do not belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.sparsity.trained import Trained, file_of, read_trained, write_trained

VALUES = np.array([[0.1, -1], [-1, 0.3], [-1, -1]], np.float32)
IMPORTANCE = np.random.default_rng(0).uniform(0.5, 2, (3, 4)).astype(np.float32)
TRAINED = Trained(VALUES, 0.7, 0.5, IMPORTANCE)


@pytest.mark.parametrize("importance", [IMPORTANCE, None], ids=["importance", "none"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_written_is_read(
    tmp_path: Path, is_folder: bool, importance: np.ndarray | None
) -> None:
    checkpoint = tmp_path / "thin.gguf"
    if is_folder:
        checkpoint.mkdir()
    path = write_trained(checkpoint, TRAINED._replace(importance=importance), "ab" * 32)
    assert path == (checkpoint / "sparsity.json" if is_folder else tmp_path / "thin.sparsity.json")
    found = read_trained(checkpoint, (3, 4), "ab" * 32)
    assert found is not None and (found.share, found.rows) == (0.7, 0.5)
    np.testing.assert_array_equal(found.values, VALUES)
    np.testing.assert_equal(found.importance, importance)
    assert found.paths().tolist() == [BY_ROWS, BY_INPUTS, DENSE]


def test_a_model_without_thresholds_has_none(tmp_path: Path) -> None:
    assert read_trained(tmp_path / "thick.gguf", (3, 4), "") is None


def test_they_are_for_the_share_that_was_trained() -> None:
    assert TRAINED.is_for(0.7) and TRAINED.is_for(0.704)
    assert not TRAINED.is_for(0.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "cd" * 32}, "of another model \\(cdcdcdcdcdcd, this one is abab"),
        ({"thresholds": [[0.1, 0.2]]}, "thresholds must be 3 pairs of finite numbers"),
        ({"thresholds": "many"}, "thresholds must be 3 pairs"),
        ({"thresholds": [[float("nan"), 1]] * 3}, "thresholds must be 3 pairs of finite"),
        ({"share": 7}, r"share must be in \[0, 1\], got 7"),
        ({"share": None}, r"share must be in \[0, 1\], got null"),
        ({"rows": "all"}, r"rows must be in \[0, 1\], got \"all\""),
        ({"importance": [[1.0] * 4] * 2}, "importance must be 3 lists of 4 numbers above 0"),
        ({"importance": [[1.0, 1.0, 1.0, 0.0]] * 3}, "importance must be 3 lists of 4 numbers"),
        ({"importance": "much"}, "importance must be 3 lists"),
        ({"version": 1}, "version 1, this build reads 2"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    checkpoint = tmp_path / "thin.gguf"
    write_trained(checkpoint, TRAINED, "ab" * 32)
    path = file_of(checkpoint)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        read_trained(checkpoint, (3, 4), "ab" * 32)
