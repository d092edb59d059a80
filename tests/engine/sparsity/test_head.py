"""A screened head gives the best logits of the dense head, to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.decoder import Branches, Decoder
from engine.formats import Weight, weight_format
from engine.kernels.tables import SCREENED_BEST
from engine.screen import Screen
from engine.sparsity import head
from tests.engine.decoders import small_config, small_decoder

VOCAB = 2011  # no multiple of 16
IDS = [5, 17, 3, 88, 42, 42, 7, 61, 0, 96, 33, 12]


def decoder_of(format_name: str = "q8", threads: int = 1, **flags: object) -> Decoder:
    return small_decoder(small_config(vocab_size=VOCAB, **flags), format_name, threads)


def logits_of(decoder: Decoder, n_best: int = 0, ids: Sequence[int] = IDS) -> np.ndarray:
    cache = decoder.new_cache()
    return decoder.extend(cache, ids, all_logits=True, n_best=n_best).copy()


def best_of(logits: np.ndarray, n: int) -> np.ndarray:
    """Ids of the n largest, by id."""
    return np.sort(np.argsort(-logits, axis=-1, kind="stable")[..., :n], axis=-1)


def screen_of(decoder: Decoder) -> Screen:
    return head.certified(decoder.weights.matrices["head"])


def dequantized(weight: Weight) -> np.ndarray:
    return weight_format(weight.format).dequantize(weight.data)[: weight.n_out, : weight.n_in]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n_best", [1, 3, 40])
@pytest.mark.parametrize("format_name", ["q8", "f32", "f16"])
def test_the_best_logits_are_those_of_the_dense_head(
    format_name: str, n_best: int, threads: int
) -> None:
    decoder = decoder_of(format_name, threads)
    dense = logits_of(decoder)
    decoder.use_screen(screen_of(decoder))
    screened = logits_of(decoder, n_best)
    best = best_of(dense, n_best)
    assert_array_equal(best_of(screened, n_best), best)
    assert_array_equal(
        np.take_along_axis(screened, best, axis=1), np.take_along_axis(dense, best, axis=1)
    )
    decoder.team.close()


def test_what_is_not_among_the_best_is_an_estimate() -> None:
    decoder = decoder_of()
    dense = logits_of(decoder)
    decoder.use_screen(screen_of(decoder))
    screened = logits_of(decoder, 1)
    assert 0 < (screened != dense).mean() < 1
    assert np.abs(screened - dense).mean() < 0.1 * dense.std()


def test_calls_that_need_all_logits_get_them() -> None:
    decoder = decoder_of()
    dense = logits_of(decoder)
    decoder.use_screen(screen_of(decoder))
    assert_array_equal(logits_of(decoder), dense)
    assert_array_equal(logits_of(decoder, SCREENED_BEST + 1), dense)
    decoder.use_screen(None)
    assert_array_equal(logits_of(decoder, 1), dense)


def test_threads_and_company_do_not_change_a_bit() -> None:
    one, two = decoder_of(), decoder_of(threads=2)
    for decoder in (one, two):
        decoder.use_screen(screen_of(decoder))
    alone = logits_of(one, 3)
    assert_array_equal(logits_of(two, 3), alone)
    cache = one.new_cache()
    for i, token_id in enumerate(IDS):
        assert_array_equal(one.extend(cache, [token_id], n_best=3)[0], alone[i])
    two.team.close()


def test_beams_are_screened_each_for_itself() -> None:
    decoder = decoder_of()
    cache = decoder.new_cache()
    decoder.extend(cache, IDS)
    n = len(IDS)
    branches = Branches([n, n + 1], [[n], [n + 1]])
    dense = decoder.branch(cache, [1, 2], branches).copy()
    decoder.use_screen(screen_of(decoder))
    screened = decoder.branch(cache, [1, 2], branches, 4)
    assert_array_equal(best_of(screened, 4), best_of(dense, 4))
    assert (screened != dense).any()


def test_the_padding_of_the_vocabulary_is_never_the_best() -> None:
    decoder = small_decoder(small_config(vocab_size=VOCAB), "q8")
    negative = decoder.weights.matrices["head"]
    rows = -np.abs(weight_format("q8").dequantize(negative.data))
    norm = decoder.weights.vectors["final_norm"]
    norm[:] = np.abs(norm)
    matrices = decoder.weights.matrices | {
        "head": negative._replace(data=weight_format("q8").quantize(rows))
    }
    shaded = Decoder(decoder.config, decoder.weights._replace(matrices=matrices), decoder.team)
    dense = logits_of(shaded)
    shaded.use_screen(screen_of(shaded))
    assert_array_equal(best_of(logits_of(shaded, 5), 5), best_of(dense, 5))


def test_bounds_hold_for_every_row_and_any_state(rng: np.random.Generator) -> None:
    decoder = decoder_of()
    weight = decoder.weights.matrices["head"]
    screen = screen_of(decoder)
    exact = weight_format("q8").dequantize(weight.data)[:VOCAB, : weight.n_in]
    error = dequantized(screen.scores) - exact
    states = rng.standard_normal((50, weight.n_in))
    worst = error / np.linalg.norm(error, axis=1, keepdims=True)  # the state that it is worst for
    for state in [*states, *worst[::97]]:
        reach = np.linalg.norm(state) * screen.bounds[:VOCAB]
        assert (np.abs(error @ state) <= reach).all()


def test_a_calibrated_screen_knows_how_far_it_is_off(rng: np.random.Generator) -> None:
    decoder = decoder_of("f32")
    weight = decoder.weights.matrices["head"]
    exact = weight_format("f32").dequantize(weight.data)[:VOCAB, : weight.n_in]
    spread = np.geomspace(3, 0.05, weight.n_in)
    turn = np.linalg.qr(rng.standard_normal((weight.n_in, weight.n_in)))[0]
    states = ((rng.standard_normal((3000, weight.n_in)) * spread) @ turn).astype(np.float32)
    screen = head.calibrated(weight, states[:2000])
    assert screen.basis is not None and screen.rest is not None
    assert (screen.scores.n_in, screen.rest.n_in) == (32, 40)
    basis = dequantized(screen.basis)
    parts = np.concatenate([dequantized(screen.scores), dequantized(screen.rest)], axis=1)
    kept_apart = states[2000:]
    error = parts @ (basis @ kept_apart.T) - exact @ kept_apart.T
    found = np.sqrt(np.square(error / np.linalg.norm(kept_apart, axis=1)).mean(axis=1))
    assert_allclose(found, screen.bounds[:VOCAB], rtol=0.3)
    assert np.abs(error).mean() < 0.2 * np.abs(exact @ kept_apart.T).mean()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_calibrated_screen_runs_in_the_decoder(threads: int) -> None:
    decoder = decoder_of("q8", threads)
    logits = logits_of(decoder)
    states = decoder.states(len(IDS))
    screen = head.calibrated(decoder.weights.matrices["head"], np.tile(states, (20, 1)))
    decoder.use_screen(screen)
    screened = logits_of(decoder, 3)
    best = best_of(logits, 3)
    assert_array_equal(best_of(screened, 3), best)
    assert_array_equal(
        np.take_along_axis(screened, best, axis=1), np.take_along_axis(logits, best, axis=1)
    )
    assert 0 < (screened != logits).mean() < 1
    # what was not computed is what the screen's own numbers say
    assert screen.basis is not None and screen.rest is not None
    turned = states @ dequantized(screen.basis).T
    parts = np.concatenate([dequantized(screen.scores), dequantized(screen.rest)], axis=1)
    estimates = turned @ parts.T
    is_estimate = screened != logits
    scale = np.abs(estimates).max()
    assert_allclose(screened[is_estimate], estimates[is_estimate], atol=0.01 * scale)
    decoder.team.close()
