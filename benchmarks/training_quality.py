"""Is what comes out as good? Held-out loss after the same steps as PEFT in float32.

Both make the same steps: the same documents in the same order, 512 tokens each, the same learning
rates, AdamW and clipping. Both adapters are then merged into the float32 weights by PEFT and scored
there on the same 200 held-out rows, so that no arithmetic of ours is in the score. The peer's rows
of a step are one document each, padded. A first A of LoRA is random; each side draws its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import peers, report, training_models, training_rows
from benchmarks.options import note
from benchmarks.training_models import LONG_S
from benchmarks.training_speed import WIDTH, Bench
from engine.training.schedule import rate_factor
from engine.training.settings import TrainSettings

TOKENS = 512  # of a step
STEPS, QUICK_STEPS, SEEDS = 300, 4, 3
_GROUP = 8  # documents that are scored at once
_STEPS_AT_ONCE = 10
OURS, EIGHT_BIT, PEER = "ours", "ours, 8-bit AdamW", "PEFT"


def quality(bench: Bench) -> list[report.Row]:
    """Ours beside PEFT, and the 8-bit AdamW beside ours."""
    n_steps = QUICK_STEPS if bench.chosen.quick else STEPS
    before = bench.kept.get("quality, before", _score, bench, None)
    found: dict[str, list[float]] = {OURS: [], EIGHT_BIT: [], PEER: []}
    for seed in range(1 if bench.chosen.quick else SEEDS):
        for side, losses in found.items():
            make = _peers_run if side == PEER else _our_run
            piece = bench.kept.get(
                f"quality, {side}, {n_steps} steps, seed {seed}", make, bench, side, n_steps, seed
            )
            losses.append(piece["loss"])
    case = f"LoRA, {n_steps} steps"
    plain = _row(case, bench, "held-out loss", "PEFT, f32")
    eight = _row(case, bench, "held-out loss, 8-bit AdamW", "ours, AdamW")
    fill(plain, found[OURS], found[PEER], before["loss"])
    fill(eight, found[EIGHT_BIT], found[OURS], before["loss"])
    return [plain, eight]


def _row(case: str, bench: Bench, metric: str, peer: str) -> report.Row:
    return report.Row(case, bench.threads, metric, "nats", peer, less_is_better=True)


def fill(row: report.Row, ours: list[float], theirs: list[float], before: float) -> None:
    """A sample a seed; worst and mean = by how much ours is above the other, in nats."""
    for pair in zip(ours, theirs, strict=True):
        row.add(*pair)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    row.extra = {
        "before": before,
        "differences": [round(value, 5) for value in differences],
        "worst": max(differences),
        "mean": mean(differences),
    }


def rates(n_steps: int) -> list[float]:
    """The learning rate of each step, as ours has it by default."""
    usual = TrainSettings(data="", model="", name="")
    return [
        usual.peak_learning_rate
        * rate_factor(usual.schedule, usual.warmup, i / n_steps, (i + 1) / n_steps)
        for i in range(n_steps)
    ]


def _our_run(bench: Bench, side: str, n_steps: int, seed: int) -> dict[str, Any]:
    note(f"quality: {side}, seed {seed}")
    settings = bench.settings(
        f"quality-{seed}", seed, tokens_per_step=TOKENS, max_steps=n_steps,
        optimizer="adamw8bit" if side == EIGHT_BIT else "adamw",
    )  # fmt: skip
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        made = worker.ask("run", LONG_S, settings=settings)
    n = min(n_steps, 20)
    kept = {"base": made["base"], "cosine": made["cosine"], "seconds": made["seconds"],
            "last": mean(made["losses"][-n:])}  # fmt: skip
    return _score(bench, made["path"]) | kept


def _peers_run(bench: Bench, side: str, n_steps: int, seed: int) -> dict[str, Any]:
    note(f"quality: {side}, seed {seed}")
    steps = training_rows.batches(
        bench.chosen.model, bench.data.mixed, seed, TOKENS, n_steps, WIDTH
    )
    folder = peers.bench_dir() / "training"
    rows = training_rows.write(folder / f"quality-{seed}.json", steps)
    adapter = folder / f"peft-{seed}"
    with ExitStack() as stack:
        worker = training_models.peers_worker(stack, bench.threads)
        assert worker is not None, "it was there a moment ago"
        worker.ask(
            "open", kind="lora", model=str(_model(bench)), rows=str(rows), threads=bench.threads,
            seed=seed, rates=rates(n_steps), width=None,
        )  # fmt: skip
        losses, seconds = [], 0.0
        for start in range(0, n_steps, _STEPS_AT_ONCE):
            made = worker.ask("steps", LONG_S, n=min(_STEPS_AT_ONCE, n_steps - start))["steps"]
            losses += [loss for _, _, loss in made]
            seconds += sum(took for took, _, _ in made)
        worker.ask("save", into=str(adapter))
    return _score(bench, str(adapter)) | {"seconds": seconds, "last": mean(losses[-20:])}


def _score(bench: Bench, adapter: str | None) -> dict[str, Any]:
    """The loss of the held-out rows with an adapter, merged and computed by the peers."""
    documents = sorted(
        training_rows.documents_in(bench.chosen.model, bench.data.held_out, WIDTH),
        key=lambda document: len(document[0]),
    )
    groups = [documents[i : i + _GROUP] for i in range(0, len(documents), _GROUP)]
    rows = training_rows.write(peers.bench_dir() / "training" / "held-out.json", groups)
    with ExitStack() as stack:
        worker = training_models.peers_worker(stack, bench.threads)
        assert worker is not None, "it was there a moment ago"
        return worker.ask(
            "evaluate", LONG_S, model=str(_model(bench)), adapter=adapter, rows=str(rows),
            threads=bench.threads,
        )  # fmt: skip


def _model(bench: Bench) -> Path:
    found = training_models.huggingface_folder(bench.chosen.model)
    assert found is not None, "the peers made it"
    return found
