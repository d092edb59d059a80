"""What a token reads: counted from what the kernel left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import sparse_settings
from engine.decoder import Decoder
from engine.sparsity import head
from tests.engine.decoders import small_config, small_decoder

IDS = [5, 17, 3, 88, 42]


@pytest.fixture
def model() -> Any:
    decoder = small_decoder(small_config(vocab_size=2011), "q8", 1)
    return SimpleNamespace(decoder=decoder, weights=decoder.weights, config=decoder.config,
                           n_bytes=decoder.weights.n_bytes)  # fmt: skip


def equal_groups(decoder: Decoder, n_best: int) -> int:
    """How many groups have all bits of the dense head."""
    screen, logits = decoder._screen, []
    for chosen in (None, screen):
        decoder.use_screen(chosen)
        found = decoder.extend(decoder.new_cache(), IDS, n_best=n_best)[0, :2000]
        logits.append(found.reshape(-1, 16).copy())
    return int((logits[0] == logits[1]).all(axis=1).sum())


@pytest.mark.parametrize("n_best", [1, 40])
def test_counted_groups_are_those_with_the_bits_of_the_dense_head(model: Any, n_best: int) -> None:
    model.decoder.use_screen(head.certified(model.weights.matrices["head"]))
    equal = equal_groups(model.decoder, n_best)
    # the last group is not whole, so that it is not compared
    assert equal <= sparse_settings.computed_groups(model, n_best) <= equal + 1
    assert 0 < equal < 125


def test_without_a_screen_the_head_is_read_whole(model: Any) -> None:
    n_groups = sparse_settings.computed_groups(model, 1)
    assert n_groups == 126
    embedding = model.weights.matrices["embedding"].data.nbytes
    assert sparse_settings.bytes_read(model, n_groups) == model.n_bytes - embedding


def test_with_a_screen_the_screen_and_the_computed_groups_are_read(model: Any) -> None:
    whole = sparse_settings.bytes_read(model, 126)
    screen = head.certified(model.weights.matrices["head"])
    model.decoder.use_screen(screen)
    group = model.weights.matrices["head"].data[0].nbytes
    expected = whole - 100 * group + head.n_bytes(screen)
    assert sparse_settings.bytes_read(model, 26) == expected


def test_names_of_settings_are_methods_and_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.sparsity import calibration, layer_calibration

    screen = np.zeros(1)
    monkeypatch.setattr(layer_calibration, "stored", lambda model: ())
    monkeypatch.setattr(calibration, "stored", lambda model: SimpleNamespace(screen=screen))
    used: list[Any] = []
    model: Any = SimpleNamespace(
        set_sparsity=used.append, decoder=SimpleNamespace(use_screen=used.append)
    )
    for setting in sparse_settings.settings(model, ["calibrated head", "fast", "0.7"]):
        used.append(setting.name)
        setting.use(model)
    assert used == ["calibrated head", "off", screen, "fast", "fast", "0.7", "0.7"]
