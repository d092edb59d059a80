"""How soon does a saved conversation answer, its KV cache read back, against reading it all again?

Regime: the one side copies and checks a file, which is bound by the disk or, when the system still
has it in memory, by SHA-256; the other computes, as any prompt. Time to the first token of a next
question of 20 tokens, from an empty cache, on all cores; the model is loaded. The peer is the same
engine without the file. A file that is not in memory is as it is after a restart of the machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import engine
from benchmarks import options, report
from benchmarks.machine import Background
from engine.cache_dir import cache_dir

LENGTHS = (500, 2000)
N_QUESTION = 20
NAME = "conversation"
_PLENTY = 1 << 40


def first_token(model: engine.Model, store: engine.SavedCaches | None, ids: list[int]) -> float:
    """Seconds to the first token after the prompt `ids`, from an empty cache."""
    model.cache = model.decoder.new_cache()
    started = time.perf_counter()
    n_kept = store.restore(NAME, model, ids) if store else 0
    generation = engine.stream(model, ids, engine.SamplingParams(temperature=0, max_tokens=1))
    next(generation)
    seconds = time.perf_counter() - started
    assert n_kept == (len(ids) - N_QUESTION if store else 0), n_kept
    return seconds


def forget(path: Path) -> bool:
    """Have the system drop the file from memory; False where it takes no such wish."""
    if not hasattr(os, "posix_fadvise"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return True


def measure_length(
    model: engine.Model, chosen: options.Options, n_tokens: int, folder: Path
) -> list[report.Row]:
    """The rows of a conversation of n_tokens."""
    case = f"{chosen.label}, {n_tokens:,} tokens"
    threads, again = chosen.threads[-1], "computed again"
    near = report.Row(case, threads, "first token", "s", again, less_is_better=True)
    far = report.Row(case, threads, "first token, file not in memory", "s", again, True)
    keeping = report.Row(case, threads, "keeping it", "s", less_is_better=True)
    size = report.Row(case, threads, "file", "MB", less_is_better=True)
    random = np.random.default_rng(n_tokens)
    ids = random.integers(100, model.config.vocab_size, n_tokens + N_QUESTION).tolist()
    store, path = engine.SavedCaches(folder), folder / f"{NAME}.kv"
    for i in range(chosen.rounds + 1):  # the first brings code and memory into place
        options.note(f"{n_tokens:,} tokens: round {i} of {chosen.rounds}")
        with Background() as background:
            theirs = first_token(model, None, ids)
            store.remove(NAME)
            started = time.perf_counter()
            store.save(NAME, model, n_tokens, _PLENTY)
            kept = time.perf_counter() - started
            is_gone = forget(path)
            ours_far = first_token(model, store, ids) if is_gone else None
            ours = first_token(model, store, ids)
        if i:
            near.add(ours, theirs, background.load)
            far.add(ours_far, theirs, background.load)
            keeping.add(kept, None, background.load)
            size.add(path.stat().st_size / 1e6)
    return [near, far, keeping, size]


def measure(chosen: options.Options) -> list[report.Row]:
    """All rows."""
    model = engine.load(chosen.model, threads=chosen.threads[-1])
    lengths = LENGTHS[-1:] if chosen.quick else LENGTHS
    cache_dir().mkdir(parents=True, exist_ok=True)  # on the disk that it is about
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="resume-") as folder:
        rows = [measure_length(model, chosen, n_tokens, Path(folder)) for n_tokens in lengths]
    model.close()
    return [row for of_length in rows for row in of_length]


def main() -> None:
    """Measure, print, and with --save keep."""
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse_plain("resume", doc, rounds=5, formats=False)
    chosen = replace(chosen, peer=None)  # the other side is ours too
    report.publish(chosen.name, chosen.about(), measure(chosen), save=chosen.save)


if __name__ == "__main__":
    main()
