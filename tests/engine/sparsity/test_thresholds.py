"""Thresholds for a budget, on random weights: what is expected is measured again here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.cache import KVCache
from engine.decoder import Decoder
from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.kernels.tables import DOWN_SITE, N_SITES, O_SITE, QKV_SITE, UP_SITE
from engine.sparsity import copies, costs, losses, statistics, thresholds
from engine.sparsity.costs import NEVER, Costs
from tests.engine.decoders import small_config, small_decoder

# a dense feed-forward takes 3: rows of `up` are one of it, inputs of `down` another
PAYS = Costs(by_inputs=(1.0, 1.0), by_rows=(2.0, 1.0), qkv=(1.0, 1.0), o=(0.5, 0.5), token_s=1.0)
PLAIN = {"gated": False, "activation": "gelu"}


def texts(n: int = 2) -> list[list[int]]:
    return np.random.default_rng(3).integers(0, 97, (n, 120)).tolist()


def apply(decoder: Decoder, found: thresholds.Thresholds) -> None:
    made = copies.make_copies(decoder.config, decoder.weights, names=found.copies())
    decoder.use_thresholds(found.sparse(made))


def mean_kl(decoder: Decoder, values: np.ndarray, importance: np.ndarray | None = None) -> float:
    """The twin of losses.loss, in float64."""
    rows = []
    for piece in losses.pieces_of(texts()):
        both = []
        for each in (np.full_like(values, -1), values):
            cache = decoder.new_cache()
            seen = decoder.probe(cache, piece, each, losses.START, importance=importance)
            logits = seen.logits[losses.START :].astype(np.float64)
            both.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
        p, q = both
        rows.append((np.exp(p) * (p - q)).sum(axis=1))
    return float(np.concatenate(rows).mean())


def decoded(decoder: Decoder, found: thresholds.Thresholds, ids: list[int]) -> np.ndarray:
    """Shares that were read of rows and inputs, (n_layers, N_SITES)."""
    apply(decoder, found)
    cache = decoder.new_cache()
    decoder.extend(cache, ids[: losses.START])
    for token_id in ids[losses.START :]:
        decoder.extend(cache, [token_id])
    return decoder.n_active / ((len(ids) - losses.START) * costs.site_widths(decoder.config))


def recorded(decoder: Decoder, pieces: list[list[int]], name: str) -> np.ndarray:
    """Sizes of the last 16 tokens of all pieces, (n_layers, 2, tokens, width)."""
    everything = thresholds.dense(decoder.config.n_layers).values
    probes = [decoder.probe(decoder.new_cache(), p, everything, 0, 16) for p in pieces]
    return np.abs(np.concatenate([getattr(probe, name) for probe in probes], axis=2))


@pytest.mark.parametrize("vocab_size", [97, 3000])
def test_loss_is_the_mean_divergence_from_the_dense_distributions(vocab_size: int) -> None:
    decoder = small_decoder(small_config(vocab_size=vocab_size))
    pieces = losses.pieces_of(texts())
    reference = [losses.distributions(decoder, piece) for piece in pieces]
    assert all(dense.ids.shape[1] == min(vocab_size, 1024) for dense in reference)
    values = np.full((2, N_SITES), 0.3, np.float32)
    expected = mean_kl(decoder, values)
    assert expected > 0.01
    # what the others have together hides a little; these random logits are nearly flat
    ours, least = (
        losses.loss(decoder, pieces, reference, values),
        0.95 if vocab_size < 1024 else 0.3,
    )
    assert least * expected < ours <= 1.001 * expected
    if vocab_size < 1024:
        assert ours == pytest.approx(expected, rel=2e-3)
    nothing_skipped = np.full((2, N_SITES), -1, np.float32)
    assert losses.loss(decoder, pieces, reference, nothing_skipped) < 1e-6


@pytest.mark.parametrize("flags", [{}, PLAIN])
def test_statistics_count_what_thresholds_leave(flags: dict[str, Any]) -> None:
    decoder = small_decoder(small_config(**flags))
    pieces = losses.pieces_of(texts())
    matrices = decoder.weights.matrices
    seen = recorded(decoder, pieces, "neurons")
    for layer, (neurons, *_) in enumerate(statistics.statistics(decoder, pieces)):
        down = statistics.input_energies(matrices[f"layers.{layer}.w_down"])
        gates, products = seen[layer]
        ups = products.sum(axis=0) / gates.sum(axis=0)
        np.testing.assert_allclose(neurons.importance, ups / ups.mean(), rtol=1e-5)
        gates = gates * neurons.importance
        energy = np.square(products.astype(np.float64)) * down
        for gate, product in ((0, 0), (5, 0), (0, 5), (3, 8)):
            kept = gates > neurons.levels[0][gate]
            kept &= products > neurons.levels[1][product]
            assert neurons.active_inputs[gate, product] == pytest.approx(kept.mean())
            dropped = 1 - (energy * kept).sum() / energy.sum()
            assert neurons.dropped[gate, product] == pytest.approx(dropped, abs=1e-9)
        assert neurons.active_inputs[5, 0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("site", [QKV_SITE, O_SITE])
def test_statistics_count_the_inputs_that_are_left(site: int) -> None:
    decoder = small_decoder(small_config())
    pieces = losses.pieces_of(texts())
    names = ("wq", "wk", "wv") if site == QKV_SITE else ("wo",)
    n_in = decoder.config.hidden_size if site == QKV_SITE else 96
    seen = recorded(decoder, pieces, "inputs")
    for layer, found in enumerate(statistics.statistics(decoder, pieces)):
        inputs = found.qkv if site == QKV_SITE else found.o
        parts = [decoder.weights.matrices[f"layers.{layer}.{name}"] for name in names]
        sizes = seen[layer][site - QKV_SITE][:, :n_in]
        energy = np.square(sizes) * sum(map(statistics.input_energies, parts))
        for level in (0, 3, 8):
            kept = sizes > inputs.levels[level]
            assert inputs.active[level] == pytest.approx(kept.mean())
            dropped = 1 - (energy * kept).sum() / energy.sum()
            assert inputs.dropped[level] == pytest.approx(dropped, abs=1e-6)


@pytest.mark.parametrize("budget", [0.003, 0.03])
def test_calibrated_thresholds_keep_to_their_budget(budget: float) -> None:
    decoder = small_decoder(small_config())
    found = thresholds.calibrate(decoder, texts(), budget, PAYS)
    assert not found.is_dense
    measured = mean_kl(decoder, found.values, found.importance)
    assert 0 < measured <= budget * 1.01
    assert found.kl == pytest.approx(measured, rel=0.01, abs=1e-5)
    assert [(site.layer, site.site) for site in found.sites] == [
        (layer, site) for layer in (0, 1) for site in ("up", "down", "q k v", "o")
    ]
    for site in found.sites:
        assert (site.active == 1) == (site.saved_s == 0)
        assert site.kl is not None and 0 <= site.kl < 2 * budget
        assert (site.active == 1) == (site.read_bytes == site.dense_bytes)
        assert site.pays_below == 1.0


def test_all_sites_are_used_where_they_pay_and_no_other() -> None:
    decoder = small_decoder(small_config())
    for index, names in ((0, {"down"}), (2, {"q k v"}), (3, {"o"})):
        lines = (line if i == index else NEVER for i, line in enumerate(PAYS[:4]))
        only = Costs(*lines, token_s=1.0)
        found = thresholds.calibrate(decoder, texts(), 0.05, only)
        assert {site.site for site in found.sites if site.active < 1} == names
        assert {site.site for site in found.sites if site.pays_below} >= names
        assert all(site.kl_there is None for site in found.sites if not site.pays_below)
        kinds = {name.rpartition(".")[2] for name in found.copies()}
        assert kinds == {"down_inputs"} if index == 0 else kinds <= {*copies.QKV, copies.WO}
        read = decoded(decoder, found, texts(1)[0])
        expected = [site for site in found.sites if site.active < 1]
        columns = {name: site for site, name in thresholds.SITES.items()}
        for line in expected:
            assert read[line.layer, columns[line.site]] == pytest.approx(line.active, abs=0.15)


def test_a_larger_budget_saves_more() -> None:
    decoder = small_decoder(small_config())
    study = thresholds.Study(decoder, texts(), PAYS)
    saved = [sum(site.saved_s for site in study.best(budget).sites) for budget in (0.003, 0.1)]
    assert saved[0] < saved[1]


def test_a_path_that_is_not_faster_is_not_taken() -> None:
    decoder = small_decoder(small_config())
    never = Costs(by_inputs=(-1.0, 1.0), by_rows=(-1.0, 1.0), qkv=NEVER, o=(0.0, 1.0), token_s=1.0)
    found = thresholds.calibrate(decoder, texts(), 10.0, never)
    assert found.is_dense and not found.copies()
    assert all(site.pays_below == 0 and site.active == 1 for site in found.sites)
    little = PAYS._replace(token_s=1e4)
    assert thresholds.calibrate(decoder, texts(), 0.1, little).is_dense
    only_inputs = Costs((1.0, 1.0), (-1.0, 1.0), NEVER, NEVER, 1.0)
    found = thresholds.calibrate(decoder, texts(), 0.1, only_inputs)
    assert set(found.paths.tolist()) <= {DENSE, BY_INPUTS} and not found.is_dense
    assert (found.values[:, UP_SITE] == -1).all()


@pytest.mark.parametrize("flags", [{}, PLAIN])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_forced_share_is_left_out(flags: dict[str, Any], share: float) -> None:
    decoder = small_decoder(small_config(**flags))
    ids = texts(1)[0]
    found = thresholds.forced(decoder, [ids], share)
    site = UP_SITE if decoder.config.gated else DOWN_SITE
    assert np.abs(decoded(decoder, found, ids)[:, site] - (1 - share)).max() < 0.05
    assert {site.active for site in found.sites} == {1 - share}


@pytest.mark.parametrize("sites", [(QKV_SITE,), (O_SITE,), (QKV_SITE, O_SITE)])
def test_projections_can_be_forced_too(sites: tuple[int, ...]) -> None:
    decoder = small_decoder(small_config())
    ids = texts(1)[0]
    found = thresholds.forced(decoder, [ids], 0.5, sites)
    read = decoded(decoder, found, ids)
    assert np.abs(read[:, list(sites)] - 0.5).max() < 0.06
    assert not np.delete(read, list(sites), axis=1).any()


def test_relu_skips_exactly_without_a_threshold_or_a_loss() -> None:
    decoder = small_decoder(small_config(activation="relu"))
    found = thresholds.calibrate(decoder, texts(), 0.0, PAYS)
    assert (found.values[:, :2] <= 0).all() and (found.paths == BY_ROWS).all()
    assert not found.projections.any() and found.kl == 0
    lines = [site for site in found.sites if site.site in ("up", "down")]
    assert all(0.25 < site.active < 0.75 and site.kl == 0 for site in lines)
    ids = texts(1)[0]
    dense = decoder.extend(decoder.new_cache(), ids, all_logits=True)[losses.START :].copy()
    apply(decoder, found)
    cache = decoder.new_cache()
    decoder.extend(cache, ids[: losses.START])
    rows = np.concatenate([decoder.extend(cache, [i]).copy() for i in ids[losses.START :]])
    np.testing.assert_allclose(rows, dense, atol=2e-5 * np.abs(dense).max())
    slow = Costs(by_inputs=(0.0, 1.0), by_rows=(0.0, 1.0), qkv=NEVER, o=NEVER, token_s=1.0)
    assert thresholds.calibrate(decoder, texts(), 0.0, slow).is_dense
    assert thresholds.calibrate(small_decoder(small_config()), texts(), 0.0, PAYS).is_dense


def test_whole_tokens_are_timed_with_what_was_chosen() -> None:
    """By seconds that are told: 8 a dense token, 6 a sparse one, but 9 in three rounds of 12."""
    decoder = small_decoder(small_config())
    chosen = thresholds.forced(decoder, texts(1), 0.5)
    sparse = chosen.sparse(copies.make_copies(decoder.config, decoder.weights))
    decoder.use_thresholds(other := sparse._replace(importance=None))
    told = iter([*[6, 8, 8, 6] * 4, *[9, 8, 8, 9, 9, 8, 8, 6]])
    asked: list[tuple[bool, int]] = []

    def seconds(decoder: Decoder, cache: KVCache, ids: list[int]) -> float:
        assert len(cache.token_ids) == losses.START and len(ids) == costs.TIMED
        asked.append((decoder.sparse is sparse, ids[0]))
        return float(next(told))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "_median_seconds", seconds)
        pieces = losses.pieces_of(texts())
        found = costs.gain(decoder, sparse, pieces)
    assert found == pytest.approx(np.quantile([0.25] * 9 + [-0.125] * 3, 0.25))
    assert [is_sparse for is_sparse, _ in asked[:4]] == [True, False, False, True]
    assert asked[0][1] == asked[1][1] != asked[2][1]
    assert decoder.sparse is other


def test_what_was_seen_to_be_no_faster_is_left_whole() -> None:
    decoder = small_decoder(small_config())
    lines = Costs(*PAYS[:3], o=NEVER, token_s=1.0)
    chosen = thresholds.calibrate(decoder, texts(), 0.03, lines)
    found = thresholds.left_whole(chosen)
    assert found.is_dense and not found.copies() and found.kl == 0
    assert not chosen.is_dense and len(found.sites) == len(chosen.sites)
    for before, after in zip(chosen.sites, found.sites, strict=True):
        if before.active == 1:
            assert after == before
        else:
            assert (after.layer, after.site, after.active) == (before.layer, before.site, 1.0)
            assert after.read_bytes == after.dense_bytes == before.dense_bytes
            assert after.kl == after.saved_s == after.pays_below == 0


def test_costs_leave_the_decoder_as_it_was() -> None:
    decoder = small_decoder(small_config(n_layers=2), "q4")
    apply(decoder, thresholds.forced(decoder, texts(), 0.5))
    before = decoder.sparse
    names = copies.feed_forwards(decoder.config) + copies.projections(decoder.config)
    made = copies.make_copies(decoder.config, decoder.weights, names=names)
    found = costs.measure(decoder, made, thresholds.sizes_of(decoder, texts()))
    assert decoder.sparse is before
    *lines, token_s = found
    assert all(len(line) == 2 and np.isfinite(line).all() for line in lines)
    assert NEVER not in lines and token_s > 0


def test_what_has_no_copies_never_pays() -> None:
    plain = small_decoder(small_config(gated=False))
    made = copies.make_copies(plain.config, plain.weights)
    found = costs.measure(plain, made, [(1.0,) * 4] * 2, 2, 1)
    assert found.by_rows == found.qkv == found.o == NEVER
    assert found.break_even(QKV_SITE) == found.break_even(O_SITE) == 0


def test_time_breaks_even_where_a_line_crosses_zero() -> None:
    found = Costs(
        by_inputs=(1.0, 4.0), by_rows=(3.0, 2.0), qkv=(-0.1, 1.0), o=(2.0, 1.0), token_s=9.0
    )
    assert found.break_even(UP_SITE) == found.break_even(DOWN_SITE) == 0.5
    assert (found.break_even(QKV_SITE), found.break_even(O_SITE)) == (0.0, 1.0)
    assert found.saved(BY_ROWS, 0.5, 0.5) == pytest.approx(0.0)


def test_texts_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="thresholds need texts of 32 tokens"):
        losses.pieces_of([[1] * 31])
