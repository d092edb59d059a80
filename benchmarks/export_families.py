"""The other families of `benchmarks.export_check`: tiny random models that transformers wrote.

Their weights are such that the likeliest token leads clearly: llama.cpp computes some things
otherwise (GELU by its tangent in GPT-NeoX and MPT, keys and values in float16), and still has to
give the same greedy text. Prompts are longer than the length that Phi-3's first factors are for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import engine
from benchmarks import options, quality, report
from engine.export import Source, to_gguf
from tests.engine.export.families import FAMILIES, WIDE, family_checkpoint
from tests.tiny import LONG_IDS

PROMPT = LONG_IDS[:40]
N_TOKENS = 32
# llama.cpp leaves Phi-3's window out
CASES = {name: "f32" for name in (*FAMILIES, "neox-sequential") if name != "phi3-window"} | {
    name: "q8_0" for name in WIDE
}


def rows(
    llama: Path | None, threads: int, folder: Path, chosen: options.Options
) -> Iterator[report.Row]:
    """Of every family: distances, and the share of greedy tokens that are the same."""
    for name, format_name in CASES.items():
        case = f"{name}, {format_name}"
        options.note(case)
        model = engine.load(family_checkpoint(name), threads=threads, kv_cache="f32")
        path = to_gguf(folder / f"{name}.gguf", Source(model.path), model.logits, format_name).path
        answer = _greedy(model)
        token_ids = [*PROMPT, *answer]
        expected = folder / "expected.npy"
        np.save(expected, model.logits(token_ids))
        logits = quality.Logits(folder, [token_ids], chosen.variables())
        load = {"path": str(path), "threads": threads}
        ours = logits.get(sys.executable, "benchmarks.engine_driver", **load)
        theirs = logits.of_peer(llama, "benchmarks.llama_driver", **load)
        found = [quality.distance([expected], side) for side in (ours, theirs)]
        yield from quality.rows_of(case, threads, *found)
        row = report.Row(case, threads, "greedy tokens", "")
        row.peer_name = "llama.cpp" if theirs else None
        row.add(_share(ours[0], answer), _share(theirs[0], answer) if theirs else None)
        yield row
        path.unlink()


def _greedy(model: engine.Model) -> list[int]:
    params = engine.SamplingParams(temperature=0, max_tokens=N_TOKENS)
    return [step.token_id for step in engine.stream(model, PROMPT, params) if step.token_id >= 0]


def _share(logits: Path, answer: list[int]) -> float:
    """Of the answer's tokens that are the likeliest where they stand."""
    likeliest = np.load(logits).argmax(axis=1)[len(PROMPT) - 1 : -1]
    return float((likeliest == np.array(answer)).mean())
