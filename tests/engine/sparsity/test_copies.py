"""Copies of matrices that are read in part: made once, mapped afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from engine.sparsity import copies
from tests.engine.decoders import packed_weights, random_values, small_config


@pytest.mark.parametrize("format_name", ["q4", "q8", "f32"])
@pytest.mark.parametrize("rounded", [False, True])
def test_copies_from_disk_are_those_in_memory(
    tmp_path: Path, format_name: str, rounded: bool
) -> None:
    config = small_config()
    weights = packed_weights(random_values(config), format_name)
    file = tmp_path / "copies.weights"
    stages: list[float] = []
    made = copies.make_copies(
        config, weights, file, lambda stage, fraction: stages.append(fraction), rounded
    )
    assert stages == [0, 0.25, 0.5, 0.75]
    read = copies.make_copies(config, weights, file, lambda *_: pytest.fail("it is there"), rounded)
    assert set(made) == {
        f"layers.{i}.{kind}" for i in (0, 1) for kind in ("up_rows", "down_inputs")
    }
    for name, copy in copies.make_copies(config, weights, rounded=rounded).items():
        for other in (made[name], read[name]):
            assert other._replace(data=None) == copy._replace(data=None)
            assert_array_equal(other.data, copy.data)


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    config = small_config(gated=False)
    weights = packed_weights(random_values(config))
    file = tmp_path / "copies.weights"
    whole = copies.make_copies(config, weights, file)
    assert set(whole) == {"layers.0.down_inputs", "layers.1.down_inputs"}
    expected = {name: np.array(copy.data) for name, copy in whole.items()}
    file.write_bytes(file.read_bytes()[:1000])
    for name, copy in copies.make_copies(config, weights, file).items():
        assert_array_equal(copy.data, expected[name])


def test_without_a_folder_to_keep_them_copies_stay_in_memory(read_only_folder: Path) -> None:
    config = small_config()
    weights = packed_weights(random_values(config))
    assert copies.can_copy(config, weights)
    assert len(copies.make_copies(config, weights, read_only_folder / "copies.weights")) == 4


@pytest.mark.parametrize("format_name", ["q4", "q8", "f32"])
def test_bytes_read_go_from_nothing_to_the_whole_copy(format_name: str) -> None:
    config = small_config()
    weights = packed_weights(random_values(config), format_name)
    names = copies.feed_forwards(config) + copies.projections(config)
    for name, copy in copies.make_copies(config, weights, names=names).items():
        weight, kind = weights.matrices[copies.matrix_of(name)], name.rpartition(".")[2]
        rows = copy.data[: weight.n_out] if kind == copies.UP else copy.data
        assert copies.bytes_read(weight, kind, 1.0) == rows.nbytes
        assert copies.bytes_read(weight, kind, 0.0) == 0
        assert 0 < copies.bytes_read(weight, kind, 0.1) < 0.8 * rows.nbytes


def test_a_file_grows_by_what_another_level_needs(tmp_path: Path) -> None:
    config = small_config()
    weights = packed_weights(random_values(config))
    file = tmp_path / "copies.weights"
    some, others = copies.feed_forwards(config)[:2], copies.projections(config)[-1:]
    assert list(copies.make_copies(config, weights, file, names=some)) == some
    assert list(copies.make_copies(config, weights, file, names=others)) == others
    found = copies.make_copies(
        config, weights, file, lambda *_: pytest.fail("it is there"), names=[*others, *some]
    )
    for name, copy in copies.make_copies(config, weights, names=[*others, *some]).items():
        assert_array_equal(found[name].data, copy.data)
