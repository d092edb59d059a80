"""How much faster is decoding when 70, 80 or 90 % of the feed-forward is left out by force?

Speed only: thresholds are set so that so many neurons of every layer are left out, whatever that
does to the text; models that are trained to be so sparse lose little, ours is not one. The gate
stays dense. Each round decodes the same tokens with everything and with each share, one right
after the other; the byte limit is what it would be if only the bytes that a token reads counted.
The rows "head screened" read of the head what a calibrated screen of its size reads (speed only,
too: it says nothing of the words here). --model shape-1.1b and shape-6.7b are random weights of
those sizes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import engine
from benchmarks import machine, options, report
from engine.cache_dir import cache_dir
from engine.formats import Weight, weight_format
from engine.screen import Screen
from engine.sparse_formats import Copy, Sparse
from engine.sparsity import copies, head, thresholds

SHARES = (0.7, 0.8, 0.9)
_LEAST_WIDTH = 512  # of states, for a screen to save anything
_WARM = 4  # tokens


class Setting(NamedTuple):
    """One way to decode."""

    name: str
    sparse: Sparse | None
    screen: Screen | None
    n_bytes: float  # that a token reads
    share: float  # of the neurons left out, as it was reached


def settings(model: engine.Model, ids: Sequence[int]) -> list[Setting]:
    """Everything first."""
    decoder, config = model.decoder, model.config
    options.note("copying what is read in part, if it is not there")
    name = f"{model.fingerprint[:32]}-v{copies.VERSION}-int8.copies"
    file = cache_dir() / "packed" / name
    parts = copies.make_copies(config, model.weights, file, rounded=True)
    whole = dense_bytes(model)
    screen = random_screen(model)
    whole_head = model.weights.matrices["embedding" if config.tied_head else "head"].data
    saved = 0
    if screen is not None:
        saved = whole_head.nbytes - head.n_bytes(screen) - screen.n_first * whole_head[0].nbytes
    found = [Setting("everything", None, None, whole, 0.0)]
    for share in SHARES:
        options.note(f"thresholds that leave out {share:.0%}")
        forced = thresholds.forced(decoder, [ids], share)
        sparse = forced.sparse(parts)
        reached = reached_share(model, sparse, ids)
        n_bytes = whole - skipped_bytes(model, parts, reached)
        label = f"{100 * share:.0f} % left out"
        found.append(Setting(label, sparse, None, n_bytes, reached))
        if screen is not None:
            label += ", head screened"
            found.append(Setting(label, sparse, screen, n_bytes - saved, reached))
    return found


def dense_bytes(model: engine.Model) -> int:
    """What a token reads of the weights."""
    config = model.config
    unread = 0 if config.tied_head else model.weights.matrices["embedding"].data.nbytes
    return model.n_bytes - unread


def skipped_bytes(model: engine.Model, parts: Mapping[str, Copy], share: float) -> float:
    """What a token does not read of `up` and `down` when a share of the neurons is left out."""
    matrices = model.weights.matrices
    total = 0.0
    for name, copy in parts.items():
        dense = matrices[name.replace("up_rows", "w_up").replace("down_inputs", "w_down")]
        total += dense.data.nbytes - (1 - share) * copy.data.nbytes
    return total


def reached_share(model: engine.Model, sparse: Sparse, text: Sequence[int]) -> float:
    """Of the neurons, left out while the text is decoded."""
    model.decoder.use_thresholds(sparse)
    cache = model.decoder.new_cache()
    for token_id in text:
        model.decoder.extend(cache, [token_id])
    inputs = model.decoder.n_active[:, 1].sum()
    possible = len(text) * model.config.n_layers * model.config.intermediate_size
    model.decoder.use_thresholds(None)
    return 1 - float(inputs) / possible


def random_screen(model: engine.Model) -> Screen | None:
    """One with the sizes of a calibrated screen; None for a small head.

    Its scores are far too small to keep any group of rows in doubt, so that of the head only the
    groups are read that are always computed: a calibrated screen leaves about as many.
    """
    config = model.config
    if config.hidden_size < _LEAST_WIDTH:
        return None
    rng = np.random.default_rng(0)

    def packed(name: str, n_out: int, n_in: int) -> Weight:
        rows = rng.standard_normal((64, n_in), dtype=np.float32) * np.float32(1e-3)
        data = weight_format(name).quantize(rows)
        repeated = np.concatenate([data] * -(-n_out // 64))[: -(-n_out // 16)]
        return Weight(name, repeated, n_out, n_in)

    width = config.hidden_size
    n_first = 32 * round(head.FIRST_SHARE * width / 32)
    scores = packed(head.FIRST_FORMAT, config.vocab_size, n_first)
    rest = packed(head.REST_FORMAT, config.vocab_size, width - n_first)
    bounds = np.zeros(-(-config.vocab_size // 16) * 16, np.float32)
    basis = packed(head.BASIS_FORMAT, width, width)
    return Screen(scores, rest, basis, bounds, 0.0, 0.0, head.N_FIRST)


def decode(model: engine.Model, setting: Setting, ids: Sequence[int]) -> tuple[float, machine.Load]:
    """Tokens a second from an empty cache on."""
    decoder = model.decoder
    decoder.use_screen(setting.screen)
    decoder.use_thresholds(setting.sparse)
    cache = decoder.new_cache()
    n_best = 1 if setting.screen else 0
    for token_id in ids[:_WARM]:
        decoder.extend(cache, [token_id], n_best=n_best)
    cache.truncate(0)
    with machine.Background() as background:
        started = time.perf_counter()
        for token_id in ids:
            decoder.extend(cache, [token_id], n_best=n_best)
        seconds = time.perf_counter() - started
    return len(ids) / seconds, background.load


def measure(chosen: options.Options) -> list[report.Row]:
    """All rows."""
    rows = []
    for case, path in chosen.files().items():
        model = engine.load(path)
        is_large = model.n_bytes > 1 << 30  # a token takes a large part of a second
        ids = np.random.default_rng(0).integers(0, min(1000, model.config.vocab_size), 128).tolist()
        found = settings(model, ids[:32] if is_large else ids)
        n_timed = 8 if is_large else 32 if model.n_bytes > 1 << 28 else 128
        for threads in chosen.threads if is_large else sorted({1, *chosen.threads}):
            options.note(f"{case}, {threads} threads")
            model.set_threads(threads)
            rows += compare(model, found, ids[:n_timed], case, chosen.rounds)
        model.close()
    return rows


def compare(
    model: engine.Model, found: Sequence[Setting], ids: Sequence[int], case: str, rounds: int
) -> list[report.Row]:
    """A row for each setting but the first, which is what the others are held against."""
    everything, *others = found
    rows = [
        report.Row(case, model.threads, f"decode, {other.name}", "tok/s", everything.name)
        for other in others
    ]
    for i in range(rounds + 1):
        for row, other in zip(rows, others, strict=True):
            # right before and right after: the speed of memory drifts
            first, load = decode(model, everything, ids)
            ours, own_load = decode(model, other, ids)
            last, last_load = decode(model, everything, ids)
            if i:  # the first finds pages that were never touched
                row.add(ours, 2 / (1 / first + 1 / last), own_load, load, last_load)
    for row, other in zip(rows, others, strict=True):
        row.extra = {
            "share_reached": other.share,
            "bytes_per_token": int(other.n_bytes),
            "bytes_per_token_dense": int(everything.n_bytes),
            "byte_limit": everything.n_bytes / other.n_bytes,
        }
    return rows


def limits(rows: Sequence[report.Row]) -> str:
    """A line a case: how much fewer bytes are read."""
    seen = {(row.case, row.metric): row.extra for row in rows}
    return "\n".join(
        f"{case}, {metric}: {extra['share_reached']:.1%} reached, "
        f"{extra['bytes_per_token'] / 1e6:,.0f} of {extra['bytes_per_token_dense'] / 1e6:,.0f} MB "
        f"a token, byte limit {extra['byte_limit']:.2f}x"
        for (case, metric), extra in seen.items()
    )


def main() -> None:
    """Measure, print, and with --save keep."""
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse_plain("feed_forward", doc, rounds=5)
    if chosen.label == options.DEFAULT:
        chosen = replace(chosen, formats=("Q4_0",))
    rows = measure(chosen)
    print(limits(rows), end="\n\n")
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    main()
