"""Does a run that was stopped, or killed, have the losses of one that was not?

In float32, where each step is the same twice. Three runs of the same settings: one in one piece,
one stopped as Ctrl-C stops it and resumed, one whose process is killed some steps after its last
checkpoint, and resumed by another process. And the time of a step of optimizers, beside torch's.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import report, training_models
from benchmarks.options import note
from benchmarks.process import WorkerError
from benchmarks.training_optimizers import FOREACH, FUSED
from benchmarks.training_speed import WIDTH, Bench

STEPS, STOP, SAVE, DIE = 12, 5, 3, 7
TOKENS = 512
_OPTIMIZERS = ("adamw8bit", FUSED, FOREACH, "adamw")


def resume(bench: Bench) -> list[report.Row]:
    """The largest difference of a loss, in nats."""
    whole = bench.kept.get("resume, whole", _losses, bench, "whole", {})
    rows = []
    for name, how in (("stopped", {"stop_after": STOP}), ("killed", {"die_after": DIE})):
        losses = bench.kept.get(f"resume, {name}", _losses, bench, name, how)
        row = report.Row(f"LoRA, f32, {name} and resumed", bench.threads, "difference of a loss",
                         "nats", less_is_better=True)  # fmt: skip
        row.add(difference(whole, losses))
        row.extra = {"steps": len(whole)}
        rows.append(row)
    return rows


def difference(whole: list[float], other: list[float]) -> float:
    """The largest of all steps; infinite when they are not as many."""
    if len(whole) != len(other):
        return float("inf")
    return max(abs(a - b) for a, b in zip(whole, other, strict=True))


def _losses(bench: Bench, name: str, how: dict[str, int]) -> list[float]:
    note(f"resume: {name}")
    name = f"resume-{name}"
    settings = bench.settings(name, 0, base="f32", tokens_per_step=TOKENS, max_steps=STEPS,
                              save_every=SAVE, max_seq_len=WIDTH)  # fmt: skip
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        try:
            worker.ask("run", settings=settings, **how)
        except WorkerError:
            if "die_after" not in how:
                raise
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        if how:
            worker.ask("resume", name=settings["name"])
        losses: list[float] = worker.ask("losses", name=settings["name"])["losses"]
    return losses


def optimizers(bench: Bench) -> list[report.Row]:
    """Nanoseconds of a parameter, of a step over all matrices of the model."""
    rows = []
    n_rounds = 2 if bench.chosen.quick else 9
    for threads in sorted({1, bench.threads}):
        rounds = bench.kept.get(f"optimizer, {threads}", _times, bench, threads, n_rounds)
        for ours, peer in (("adamw8bit", FUSED), ("adamw8bit", FOREACH), ("adamw", FUSED)):
            row = report.Row(ours, threads, f"a step beside {peer}", "ns a parameter",
                             f"AdamW, {peer}", less_is_better=True)  # fmt: skip
            for times in rounds:
                row.add(1e9 * times[ours], 1e9 * times[peer])
            rows.append(row)
    return rows


def _times(bench: Bench, threads: int, n_rounds: int) -> list[dict[str, float]]:
    note(f"optimizers, {threads} threads")
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        found = []
        for i in range(n_rounds + 1):  # the first makes states and compiles
            names = _OPTIMIZERS if i % 2 else _OPTIMIZERS[::-1]
            asked = {"model": str(bench.chosen.model), "names": names, "threads": threads}
            found.append(worker.ask("optimizers", **asked))
    return found[1:]
