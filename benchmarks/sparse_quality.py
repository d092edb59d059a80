"""Teacher-forced quality of each setting on each kind of text, piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import engine
from benchmarks import report
from benchmarks.divergence import Dense, Mean, compare, dense_side, loss_of, mean_of
from benchmarks.kept import Kept
from benchmarks.sparse_settings import CALLS, Setting, bytes_read, computed_groups, use_off
from benchmarks.sparse_texts import KINDS, Text

_UNITS = {"KL": "nats", "KL of the top 40": "nats"}
_LESS = ("KL", "KL of the top 40", "missed of the top 40", "exp(KL) - 1")


def measure(
    model: engine.Model, settings: Sequence[Setting], texts: Sequence[Text], kept: Kept
) -> list[report.Row]:
    """Rows of all settings, calls and kinds."""
    for i, text in in_turns(texts):
        dense: list[Dense] = []  # made once, and only if a piece needs it
        for setting, call in _all(settings):
            name = f"quality {setting.name} {call} {text.kind} {i}"
            kept.get(name, _piece, model, setting, call, text, dense)
    rows = []
    for setting, call in _all(settings):
        for kind in KINDS:
            pieces = [
                kept.get(f"quality {setting.name} {call} {kind} {i}", dict)
                for i, text in enumerate(texts)
                if text.kind == kind
            ]
            if pieces:
                rows += rows_of(f"{setting.name}, {call}, {kind}", model.threads, pieces)
    return rows


def in_turns(texts: Sequence[Text]) -> list[tuple[int, Text]]:
    """(number, text), one of each kind after another: what is not finished is of all kinds."""
    seen: Counter[str] = Counter()
    found = []
    for i, text in enumerate(texts):
        found.append((seen[text.kind], i, text))
        seen[text.kind] += 1
    return [(i, text) for _, i, text in sorted(found)]


def _all(settings: Sequence[Setting]) -> Iterator[tuple[Setting, str]]:
    for setting in settings:
        for call in CALLS:
            yield setting, call


def _piece(
    model: engine.Model,
    setting: Setting,
    call: str,
    text: Text,
    dense: list[Dense],
) -> dict[str, Any]:
    """Sums over the text's positions, and how many there are."""
    if not dense:
        dense.append(dense_side(_dense_logits(model, text)))
    setting.use(model)
    sparse, n_groups = _logits(model, text, CALLS[call])
    found = compare(dense[0], sparse)
    sums = {name: float(values.sum()) for name, values in found.items()}
    return {"n": len(sparse), "groups": n_groups, "bytes": bytes_read(model, n_groups), **sums}


def _dense_logits(model: engine.Model, text: Text) -> NDArray[np.float32]:
    use_off(model)
    logits = model.decoder.extend(model.decoder.new_cache(), text.token_ids[:-1], all_logits=True)
    return logits[text.start - 1 :]


def _logits(model: engine.Model, text: Text, n_best: int) -> tuple[NDArray[np.float32], float]:
    """Token by token, as answers are decoded; and the mean of the computed groups of the head."""
    decoder, cache = model.decoder, model.decoder.new_cache()
    rows = [decoder.extend(cache, text.token_ids[: text.start], n_best=n_best)[0].copy()]
    n_groups = []
    for token_id in text.token_ids[text.start : -1]:
        rows.append(decoder.extend(cache, [token_id], n_best=n_best)[0].copy())
        n_groups.append(computed_groups(model, n_best))
    return np.stack(rows), float(np.mean(n_groups))


def rows_of(case: str, threads: int, pieces: Sequence[dict[str, Any]]) -> list[report.Row]:
    """A row for each metric, from the sums of each text."""
    counts = [piece["n"] for piece in pieces]
    means: dict[str, Mean] = {}
    for name in pieces[0]:
        if name in ("n", "groups", "bytes"):
            continue
        means[name] = mean_of([piece[name] for piece in pieces], counts)
    means["exp(KL) - 1"] = loss_of(means["KL"])
    rows = []
    for name, mean in means.items():
        row = report.Row(case, threads, name, _UNITS.get(name, ""))
        row.less_is_better = name in _LESS
        row.add(mean.value)
        low, high = mean.interval()
        row.extra = {
            "standard_error": mean.error,
            "ours_low": low,
            "ours_high": high,
            "positions": mean.n,
            "texts": len(pieces),
        }
        rows.append(row)
    rows.append(_bytes_row(case, threads, pieces, counts))
    return rows


def _bytes_row(
    case: str, threads: int, pieces: Sequence[dict[str, Any]], counts: Sequence[int]
) -> report.Row:
    row = report.Row(case, threads, "bytes of weights a token", "MB", less_is_better=True)
    row.add(float(np.average([piece["bytes"] for piece in pieces], weights=counts)) / 1e6)
    groups = float(np.average([piece["groups"] for piece in pieces], weights=counts))
    row.extra = {"head_groups": groups}
    return row
