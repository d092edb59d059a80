"""Does llama.cpp load what `sparsechat export` writes, and is it the model that was in memory?

A made-up adapter is merged into the model and written as GGUF in each format: from the model's own
file, whose keys are taken over, and from a Hugging Face directory that was made of it, whose keys
and tokenizer we write. The reference is the model in memory with the adapter in use; "ours" is our
engine on the written file, the peer llama.cpp on the same. Both must cut the texts of
tests/golden/text into the tokens of the model in memory: the share of texts where they do is a row.
Families other than the model's are tiny random ones (benchmarks/export_families.py).

KL, top-1, worst error: see benchmarks.quality
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import engine
from benchmarks import export_families, options, peers, quality, report
from benchmarks.process import Worker, WorkerError, run
from engine.adapters import Adapter
from engine.export import FORMATS, Source, to_gguf, to_huggingface

RANK, SIZE = 16, 0.02  # of the adapter: SIZE is the largest number of each B


def made_up_adapter(model: engine.Model, rank: int = RANK) -> Adapter:
    """Random pairs of all matrices, strong enough to change what the model says."""
    from engine.shapes import matrix_shapes

    rng = np.random.default_rng(0)
    pairs = {}
    for name, (n_out, n_in) in matrix_shapes(model.config).items():
        if name.startswith("layers."):
            a = rng.standard_normal((rank, n_in), np.float32) / np.float32(np.sqrt(n_in))
            pairs[name] = a, rng.uniform(-SIZE, SIZE, (n_out, rank)).astype(np.float32)
    return Adapter("made-up", rank, 2.0, pairs)


def write_all(model: engine.Model, adapter: Adapter, folder: Path, quick: bool) -> dict[str, Path]:
    """Case -> file."""
    source = Source(model.path, adapter)
    formats = ("f16", "q4_1") if quick else [f for f in FORMATS["gguf"] if f[0] in "fq"]
    written = {}
    options.note("a directory, and files from it")
    directory = to_huggingface(folder / "hf", source, model.logits, "f16").path
    origins = {"from GGUF": source, "from a directory": Source(directory)}
    for origin, made in origins.items():
        for name in formats:
            path = folder / f"{origin.replace(' ', '-')}-{name}.gguf"
            written[f"{name} {origin}"] = to_gguf(path, made, model.logits, name).path
    return written


def measure(chosen: options.Options) -> list[report.Row]:
    """Rows of all files."""
    threads, llama = chosen.threads[0], peers.find(chosen.peer) if chosen.peer else None
    texts = [path.read_text("utf-8") for path in sorted(quality.TEXTS.glob("*.txt"))][
        : 2 if chosen.quick else None
    ]
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = engine.load(chosen.model, threads=threads)
        assert model.tokenizer is not None
        adapter = made_up_adapter(model)
        model.set_adapter(adapter)
        ids = [model.tokenizer.encode(text, parse_special=True)[:512] for text in texts]
        expected = [_saved(folder / f"expected-{i}.npy", model, t) for i, t in enumerate(ids)]
        context = -(-max(map(len, ids)) // 256) * 256
        logits = quality.Logits(folder, ids, chosen.variables())
        for case, path in write_all(model, adapter, folder, chosen.quick).items():
            options.note(case)
            load = {"path": str(path), "threads": threads}
            ours = logits.get(sys.executable, "benchmarks.engine_driver", **load)
            theirs = logits.of_peer(llama, "benchmarks.llama_driver", **load, context=context)
            found = [quality.distance(expected, side) for side in (ours, theirs)]
            rows += quality.rows_of(case, threads, *found)
            rows.append(_tokens_row(case, threads, path, texts, model, llama))
            path.unlink()
        rows += export_families.rows(llama, threads, folder, chosen)
    return rows


def _saved(path: Path, model: engine.Model, token_ids: list[int]) -> Path:
    np.save(path, model.logits(token_ids))
    return path


def _tokens_row(
    case: str, threads: int, path: Path, texts: list[str], model: engine.Model, llama: Path | None
) -> report.Row:
    """The share of texts whose tokens are those of the model in memory."""
    assert model.tokenizer is not None
    expected = [model.tokenizer.encode(text, parse_special=True) for text in texts]
    written = engine.load(path, threads=1).tokenizer
    assert written is not None
    same = [
        written.encode(t, parse_special=True) == e for t, e in zip(texts, expected, strict=True)
    ]
    row = report.Row(case, threads, "texts with the same tokens", "")
    row.peer_name = "llama.cpp" if llama else None
    theirs = None if llama is None else _llama_share(llama, path, texts, expected)
    row.add(float(np.mean(same)), theirs)
    return row


def _llama_share(
    python: Path, path: Path, texts: list[str], expected: list[list[int]]
) -> float | None:
    try:
        with Worker(python, "benchmarks.llama_driver") as worker:
            worker.ask("load", path=str(path), threads=1)
            found = [worker.ask("tokens", text=text)["token_ids"] for text in texts]
    except WorkerError as error:
        options.note(f"left out: {error}")
        return None
    same: NDArray[np.bool_] = np.array([a == b for a, b in zip(found, expected, strict=True)])
    return float(same.mean())


def main() -> None:
    """Write, measure, print, and with --save keep."""
    chosen = options.parse_plain("export_check", (__doc__ or "").splitlines()[0], formats=False)
    rows = measure(chosen)
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
