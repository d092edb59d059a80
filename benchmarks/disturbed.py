"""What happens when the engine is disturbed: how soon does it stop, and what does a busy core cost?

Cancelling is measured from Cancel.set to the end of the stream, while a prompt of 6,000 tokens is
read and while an answer is written. The rates are those of two of our own threads beside none, one
and two programs that only count; the peer is one thread of ours in the same round.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import engine
from benchmarks import options, report

N_CONTEXT = 6000  # tokens of the prompt that is cancelled
N_TOKENS = 150  # of an answer whose rate is taken


@contextmanager
def busy(n: int) -> Iterator[None]:
    """n programs that keep a core busy each."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def stopped_after_ms(model: engine.Model, token_ids: list[int], delay_s: float) -> float:
    """Milliseconds from setting Cancel, delay_s after the start, to the last step."""
    cancel, at = engine.Cancel(), 0.0

    def press() -> None:
        nonlocal at
        at = time.perf_counter()
        cancel.set()

    timer = threading.Timer(delay_s, press)
    timer.start()
    params = engine.SamplingParams(temperature=0, max_tokens=5000)
    *_, last = engine.stream(model, token_ids, params, cancel=cancel)
    ended = time.perf_counter()
    timer.join()
    assert last.finish_reason == "cancelled", last
    return (ended - at) * 1e3


def rate(model: engine.Model, token_ids: list[int]) -> float:
    """Tokens per second of a greedy answer, one token a call."""
    params = engine.SamplingParams(temperature=0, max_tokens=N_TOKENS, lookup=False)
    generation = engine.stream(model, token_ids, params)
    for _ in generation:
        pass
    return generation.usage.new_tokens / generation.usage.decode_s


def measure(chosen: options.Options) -> list[report.Row]:
    """All rows."""
    case, rounds = chosen.label, 3 if chosen.quick else 12
    models = {n: engine.load(chosen.model, threads=n) for n in (1, 2)}
    for model in models.values():
        model.stop_ids = frozenset()  # an answer goes on until it is stopped
    random = np.random.default_rng(0)
    rows = []
    for what, size in (("cancel while reading", N_CONTEXT), ("cancel while writing", 20)):
        row = report.Row(case, 2, what, "ms", less_is_better=True)
        for i in range(rounds):
            token_ids = random.integers(100, models[2].config.vocab_size, size).tolist()
            row.add(stopped_after_ms(models[2], token_ids, 0.3 + 0.05 * i))
        rows.append(row)
    token_ids = random.integers(100, models[2].config.vocab_size, 40).tolist()
    for n_busy in (0, 1, 2):
        row = report.Row(case, 2, f"decode beside {n_busy} busy", "tok/s", "1 thread")
        with busy(n_busy):
            for i in range(rounds):
                rates = {n: rate(models[n], token_ids) for n in ((1, 2) if i % 2 else (2, 1))}
                row.add(rates[2], rates[1])
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, and with --save keep."""
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse_plain("disturbed", doc, formats=False)
    report.publish(chosen.name, chosen.about(), measure(chosen), save=chosen.save)


if __name__ == "__main__":
    main()
