"""Would the sparse engine's drafts, verified by the dense one, make decoding faster?

A cycle drafts k tokens with k sparse steps, the dense engine reads them and the token before in one
call, and every token up to the first one that it would not have chosen is kept, with one of its own
behind them. So a token takes, in dense steps,

    (k * sparse step + call of k + 1 tokens) / (1 + expected accepted)

and drafts pay where that is below 1. "at best" is the same with every draft accepted: no quality of
drafts goes beyond it. Acceptance is greedy: how many of the first k tokens that both sides choose,
going on alone from the same place, agree. It is that of text, so that models of random weights take
it from another model's measurement. (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

import engine
from benchmarks import machine, report
from benchmarks.divergence import mean_of
from benchmarks.kept import Kept
from benchmarks.sparse_quality import in_turns
from benchmarks.sparse_settings import Setting, use_off
from benchmarks.sparse_texts import KINDS, Text

LENGTHS = (1, 3, 7)  # drafted tokens: calls of 2, 4, 8
_EVERY = 16  # tokens between the places where a draft begins
_STEPS = 12  # calls of each kind in a round


def acceptance(
    model: engine.Model, settings: Sequence[Setting], texts: Sequence[Text], kept: Kept
) -> dict[str, dict[str, list[list[int]]]]:
    """setting -> kind -> for each text, the accepted tokens of the longest draft at each place."""
    found: dict[str, dict[str, list[list[int]]]] = {}
    for i, text in in_turns(texts):
        places = range(text.start, len(text.token_ids), _EVERY)
        dense = kept.get(f"drafts dense {text.kind} {i}", _dense, model, text, places)
        for setting in settings:
            name = f"drafts {setting.name} {text.kind} {i}"
            accepted = kept.get(name, _accepted, model, setting, text, places, dense)
            found.setdefault(setting.name, {}).setdefault(text.kind, []).append(accepted)
    return found


def _dense(model: engine.Model, text: Text, places: Sequence[int]) -> list[list[int]]:
    use_off(model)
    return _greedy(model, text.token_ids, places)


def _accepted(
    model: engine.Model,
    setting: Setting,
    text: Text,
    places: Sequence[int],
    dense: Sequence[list[int]],
) -> list[int]:
    setting.use(model)
    found = []
    drafts = _greedy(model, text.token_ids, places)
    for drafted, expected in zip(drafts, dense, strict=True):
        differs = [a != b for a, b in zip(drafted, expected, strict=True)]
        found.append(differs.index(True) if True in differs else len(differs))
    return found


def _greedy(model: engine.Model, token_ids: list[int], places: Sequence[int]) -> list[list[int]]:
    """The max(LENGTHS) tokens that the model, as it is set, would write at each place.

    The text before a place is read as a prompt is, but for its last token.
    """
    decoder, cache = model.decoder, model.decoder.new_cache()
    found = []
    for at in places:
        decoder.extend(cache, token_ids[len(cache.token_ids) : at - 1])
        written = [token_ids[at - 1]]
        while len(written) <= max(LENGTHS):
            written.append(int(decoder.extend(cache, [written[-1]], n_best=1)[0].argmax()))
        cache.truncate(at - 1)
        found.append(written[1:])
    return found


def times(
    model: engine.Model, settings: Sequence[Setting], text: Text, rounds: int, kept: Kept
) -> dict[str, list[float]]:
    """ "call of n" and each setting -> seconds of a call, a value a round, alternating."""
    return kept.get(  # type: ignore[no-any-return]
        f"drafts times {model.threads}", _times, model, settings, text, rounds
    )


def _times(
    model: engine.Model, settings: Sequence[Setting], text: Text, rounds: int
) -> dict[str, list[float]]:
    sizes = (1, *(k + 1 for k in LENGTHS))
    found: dict[str, list[float]] = {}
    spare, counted = 2 * rounds, -1  # the first round is not counted; disturbed ones are made again
    while counted < rounds:
        with machine.Background() as background:
            use_off(model)
            took = {f"call of {n}": _step(model, text, n) for n in sizes}
            for setting in settings:
                setting.use(model)
                took[setting.name] = _step(model, text, 1)
        if spare and (background.load.foreign_percent or 0) > machine.DISTURBED_PERCENT:
            spare -= 1
            continue
        for name, seconds in took.items() if counted >= 0 else ():
            found.setdefault(name, []).append(seconds)
        counted += 1
    return found


def _step(model: engine.Model, text: Text, n: int) -> float:
    """Median seconds of a call of n of the text's tokens, with the logits after each of them."""
    decoder, cache = model.decoder, model.decoder.new_cache()
    decoder.extend(cache, text.token_ids[: text.start])
    seconds = []
    for _ in range(_STEPS):
        at = len(cache.token_ids)
        if at + n > len(text.token_ids):
            cache.truncate(at := text.start)
        batch = text.token_ids[at : at + n]
        started = time.perf_counter()
        decoder.extend(cache, batch, all_logits=n > 1, n_best=1)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def rows_of(
    threads: int,
    took: Mapping[str, Sequence[float]],
    accepted: Mapping[str, Mapping[str, Sequence[Sequence[int]]]],
) -> list[report.Row]:
    """What calls take, what is accepted, and the speed that drafts would give."""
    one = np.asarray(took["call of 1"])
    rows = [
        _row(name, threads, "time", "dense steps", np.asarray(seconds) / one)
        for name, seconds in took.items()
        if name != "call of 1"
    ]
    for setting, kinds in accepted.items():
        for kind in KINDS:
            for k in LENGTHS if kind in kinds else ():
                case = f"{setting} drafts {k}, {kind}"
                mean = mean_of(
                    [float(np.minimum(text, k).sum()) for text in kinds[kind]],
                    [len(text) for text in kinds[kind]],
                )
                share = _row(case, threads, "accepted drafts", "", np.array([mean.value / k]))
                share.extra = {
                    "setting": setting,
                    "length": k,
                    "standard_error": mean.error / k,
                    "places": mean.n,
                }
                rows += [share, speed_row(case, threads, took, setting, k, mean.value)]
    return rows


def rows_with(
    threads: int, took: Mapping[str, Sequence[float]], measured: Sequence[Mapping[str, Any]]
) -> list[report.Row]:
    """The same for a model without text: `measured` are the rows of another model's result."""
    rows = rows_of(threads, took, {})
    for row in measured:
        if row["metric"] == "accepted drafts" and row["setting"] in took:
            n_accepted = row["ours"] * row["length"]
            arguments = row["setting"], row["length"], n_accepted
            rows.append(speed_row(row["case"], threads, took, *arguments))
    return rows


def speed_row(
    case: str,
    threads: int,
    took: Mapping[str, Sequence[float]],
    setting: str,
    k: int,
    n_accepted: float,
) -> report.Row:
    """Tokens a dense step, with the arithmetic."""
    one = np.asarray(took["call of 1"])
    draft, verify = (np.asarray(took[name]) / one for name in (setting, f"call of {k + 1}"))
    cycle = k * draft + verify
    row = _row(case, threads, "speed with drafts", "dense engines", (1 + n_accepted) / cycle)
    row.extra = {
        "draft_step": float(np.median(draft)),
        "verification": float(np.median(verify)),
        "expected_tokens": 1 + n_accepted,
        "at_best": float(np.median((1 + k) / cycle)),
    }
    return row


def _row(case: str, threads: int, metric: str, unit: str, values: Any) -> report.Row:
    row = report.Row(case, threads, metric, unit, less_is_better=metric == "time")
    for value in values:
        row.add(float(value))
    return row
