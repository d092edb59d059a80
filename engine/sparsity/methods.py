"""What each way to skip gives alone, for a picture of quality against speed.

Levels are mixes of these, as far as each is faster on this machine. Here the layers skip whether or
not that is faster: as many bytes as the budget of `fast` allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from engine.generate import stream
from engine.kernels.tables import DOWN_SITE, O_SITE, QKV_SITE, UP_SITE
from engine.sampling import SamplingParams
from engine.sparsity import calibration, copies, cost, kept, kv, levels, texts
from engine.sparsity.costs import NEVER, Costs, Line
from engine.sparsity.knob import NotCalibratedError
from engine.sparsity.layer_calibration import BUDGETS
from engine.sparsity.level_cost import LevelCost
from engine.sparsity.levels import Sparsity
from engine.sparsity.thresholds import SITES, Study, site_cost

if TYPE_CHECKING:
    from engine.model import Model

Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

HEAD, KV = "head only", "keys and values only"
FEED_FORWARD, PROJECTIONS = "feed-forward only", "projections only"
LONG = 4096  # tokens of the text that keys and values are measured behind
_QUESTION = "What did we talk about? List the topics."
_QUESTION_TOKENS, _ANSWER_TOKENS = 64, 48  # at most
_BYTES_S = 1e10  # any speed: only ratios decide


def method_costs(model: Model) -> list[LevelCost]:
    """What measure_methods measured of the calibration that is kept; [] before."""
    return kept.read(model, cost.METHOD_COSTS)


def measure_methods(model: Model, on_progress: Progress | None = None) -> list[LevelCost]:
    """Each method that the model can have, beside the dense model; `level` is its name.

    Keys and values are measured behind a long conversation, if the model takes one that is long
    enough. NotCalibratedError; the conversation's cache is used and left empty, and the level in
    use stays. What on_progress raises ends it; else the result is kept.
    """
    report = on_progress or (lambda stage, fraction: None)
    found = calibration.stored(model)
    if found is None:
        raise NotCalibratedError(f"{model.path.name} needs a calibration before its methods")
    before, adapter = model.sparsity, model.adapter
    model.set_sparsity("off")
    model.set_adapter(None)
    try:
        measured = list(_measured(model, found, report))
        kept.write(model, cost.METHOD_COSTS, measured)
        return measured
    finally:
        model.cache.truncate(0)
        model.set_adapter(adapter)
        levels.apply(model, before)


def _measured(
    model: Model, found: calibration.Calibration, report: Progress
) -> Iterator[LevelCost]:
    answers = list(texts.answers(model, texts.HELD_OUT, cost.ANSWER_TOKENS, seed=2))
    screen = levels.fast_screen(found.screen)
    yield cost.measure(model, Sparsity(HEAD, screen), answers, on_progress=report)
    for name, sites in ((FEED_FORWARD, (UP_SITE, DOWN_SITE)), (PROJECTIONS, (QKV_SITE, O_SITE))):
        report(f"thresholds of {name}", 0.0)
        costs = _costs_in_bytes(model, sites)
        if costs is None:
            continue
        chosen = Study(model.decoder, found.texts, costs).best(BUDGETS["fast"])
        layers = levels.sparse_of(model, chosen)
        sparsity = Sparsity(name, layers=layers, sites=chosen.sites)
        yield cost.measure(model, sparsity, answers, on_progress=report)
    if (text := _long_answer(model, found.texts, report)) is not None:
        name = f"{KV}, {text[1]:,} tokens"
        yield cost.measure(model, Sparsity(name, kv=kv.FAST), [text], on_progress=report)


def _costs_in_bytes(model: Model, sites: Sequence[int]) -> Costs | None:
    """What skipping saves if only bytes count; None where a site cannot be read in part."""
    config = model.config
    groups = copies.feed_forwards(config) if UP_SITE in sites else copies.projections(config)
    if not copies.can_copy(config, model.weights, groups):
        return None

    def line(site: int) -> Line:
        # between half and nothing active: headers are read as soon as anything is
        half, all_read = (site_cost(model.decoder, 0, site, active) for active in (0.5, 0.9999))
        slope = 2 * (all_read.read_bytes - half.read_bytes)
        return (half.dense_bytes - all_read.read_bytes + slope) / _BYTES_S, slope / _BYTES_S

    lines = {site: line(site) if site in sites else NEVER for site in SITES}
    by_rows, by_inputs = NEVER, lines[DOWN_SITE]
    if UP_SITE in sites and config.gated:
        most, slope = lines[UP_SITE]
        by_rows = most + by_inputs[0], slope
    return Costs(by_inputs, by_rows, lines[QKV_SITE], lines[O_SITE], token_s=0.0)


def _long_answer(
    model: Model, found_texts: Sequence[Sequence[int]], report: Progress
) -> tuple[list[int], int] | None:
    """(token ids of a long conversation with an answer, length of what it answers); None where the
    model takes none."""
    length = min(LONG, model.max_seq_len - _ANSWER_TOKENS - _QUESTION_TOKENS)
    if length < kv.FAST.min_tokens or model.config.position == "alibi":
        return None
    said = [token_id for text in found_texts for token_id in text]
    said = (said * -(-length // len(said)))[:length]
    prompt = [*said, *next(texts.prompts(model, [_QUESTION], seed=0))]
    report("a long conversation", 0.0)
    params = SamplingParams(
        temperature=0.8, top_k=0, max_tokens=_ANSWER_TOKENS, seed=1, lookup=False
    )
    generation = stream(
        model, prompt, params, on_progress=lambda done, n: report("a long conversation", done / n)
    )
    for _ in generation:
        pass
    return [*prompt, *generation.token_ids], len(prompt)
