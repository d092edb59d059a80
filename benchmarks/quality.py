"""How far are the logits from float32's, for each weight format, ours and llama.cpp's?

The reference is transformers in float32 with the weights of the same file, dequantised by the gguf
package: what differs is arithmetic alone. The texts are those of tests/golden/text. Our own
conversions of the file ("as q8", "as q4") are held against the file's weights too, so they include
what the conversion loses; "cache in q8" is the file as it is with keys and values in that format.
Rows "against llama.cpp" compare with its own logits: the same work is done.

KL            mean over all positions of KL(reference, ours), in nats
top-1         share of positions with the same likeliest token
worst error   the largest difference of a logit over the largest logit of its position
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import options, peers, report
from benchmarks.process import Worker, WorkerError, run

TEXTS = Path(__file__).parents[1] / "tests" / "golden" / "text"
# of the stored file: what people call it, and options of engine.load
VARIANTS = (
    *((f"as {name}", {"weight_format": name}) for name in ("f32", "q8", "q4")),
    *((f"cache in {name}", {"kv_cache": name}) for name in ("f32", "f16", "q8")),
)
_CHUNK = 128  # positions whose logits are compared at a time


@dataclass
class Distance:
    """How far logits are from a reference's, over all positions that were added."""

    divergences: list[NDArray[np.float64]] = field(default_factory=list)
    agreements: list[NDArray[np.bool_]] = field(default_factory=list)
    errors: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, reference: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Both (T, vocab_size)."""
        for start in range(0, len(reference), _CHUNK):
            theirs, ours = (
                a[start : start + _CHUNK].astype(np.float64) for a in (reference, logits)
            )
            p, q = _logprobs(theirs), _logprobs(ours)
            self.divergences.append((np.exp(p) * (p - q)).sum(axis=-1))
            self.agreements.append(p.argmax(axis=-1) == q.argmax(axis=-1))
            largest = np.abs(theirs).max(axis=-1)
            self.errors.append(np.abs(ours - theirs).max(axis=-1) / largest)

    @property
    def n_positions(self) -> int:
        """Positions that were added."""
        return sum(map(len, self.divergences))

    def figures(self) -> dict[str, float]:
        """metric -> value, as the module's docstring says."""
        return {
            "KL": float(np.concatenate(self.divergences).mean()),
            "top-1": float(np.concatenate(self.agreements).mean()),
            "worst error": float(np.concatenate(self.errors).max()),
        }


def _logprobs(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logprobs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs


class Logits:
    """Logits of one model for every text, kept in files: together they may not fit in memory."""

    def __init__(self, folder: Path, texts: list[list[int]], variables: dict[str, str]) -> None:
        self._folder, self._texts, self._variables = folder, texts, variables
        self._n_models = 0

    def get(self, python: Path | str, module: str, **load: Any) -> list[Path]:
        """A file for each text; WorkerError when the process fails."""
        self._n_models += 1
        paths = [self._folder / f"{self._n_models}-{i}.npy" for i in range(len(self._texts))]
        with Worker(python, module, self._variables) as worker:
            worker.ask("load", **load)
            for token_ids, path in zip(self._texts, paths, strict=True):
                worker.ask("logits", token_ids=token_ids, into=str(path))
        return paths

    def of_peer(self, python: Path | None, module: str, **load: Any) -> list[Path] | None:
        """The same, but None without a Python, and, with one line, when it fails."""
        if python is None:
            return None
        try:
            return self.get(python, module, **load)
        except WorkerError as error:
            options.note(f"left out: {error}")
            return None


def distance(reference: list[Path] | None, logits: list[Path] | None) -> Distance | None:
    """Of all texts; None when either side is missing."""
    if reference is None or logits is None:
        return None
    found = Distance()
    for theirs, ours in zip(reference, logits, strict=True):
        found.add(np.load(theirs, mmap_mode="r"), np.load(ours, mmap_mode="r"))
    return found


def rows_of(
    case: str, threads: int, ours: Distance | None, peer: Distance | None
) -> list[report.Row]:
    """A row for each metric, nothing without ours."""
    if ours is None:
        return []
    theirs = peer.figures() if peer else {}
    rows = []
    for metric, value in ours.figures().items():
        row = report.Row(case, threads, metric, "nats" if metric == "KL" else "")
        row.less_is_better = metric != "top-1"
        row.peer_name = "llama.cpp" if peer else None
        row.extra = {"positions": ours.n_positions}
        row.add(value, theirs.get(metric))
        rows.append(row)
    return rows


def measure(chosen: options.Options) -> list[report.Row]:
    """All rows, file by file."""
    threads = chosen.threads[0]
    llama = peers.find(chosen.peer) if chosen.peer else None
    transformers = peers.available("transformers", build=not chosen.quick)
    texts = _texts(chosen)
    context = -(-max(map(len, texts)) // 256) * 256
    rows: list[report.Row] = []
    for case, path in chosen.files().items():
        with tempfile.TemporaryDirectory() as folder:
            logits = Logits(Path(folder), texts, chosen.variables())
            load = {"path": str(path), "threads": threads}
            options.note(f"{case}: float32 reference")
            expected = logits.of_peer(transformers, "benchmarks.transformers_driver", **load)
            options.note(f"{case}: ours and llama.cpp's")
            ours = logits.get(sys.executable, "benchmarks.engine_driver", **load)
            theirs = logits.of_peer(llama, "benchmarks.llama_driver", **load, context=context)
            rows += rows_of(case, threads, distance(expected, ours), distance(expected, theirs))
            rows += rows_of(f"{case} against llama.cpp", threads, distance(theirs, ours), None)
            for variant, changed in VARIANTS if path == chosen.model else ():
                options.note(f"{case} {variant}")
                other = logits.get(sys.executable, "benchmarks.engine_driver", **load, **changed)
                found = distance(expected, other)
                rows += rows_of(f"{case} {variant}", threads, found, None)
    return rows


def _texts(chosen: options.Options) -> list[list[int]]:
    """Token ids of each text; --quick takes the beginning of each."""
    with Worker(sys.executable, "benchmarks.engine_driver", chosen.variables()) as worker:
        worker.ask("load", path=str(chosen.model), threads=chosen.threads[0])
        found = [
            worker.ask("encode", text=path.read_text("utf-8"))["token_ids"]
            for path in sorted(TEXTS.glob("*.txt"))
        ]
    return [ids[:100] for ids in found] if chosen.quick else found


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen = options.parse_plain("quality", (__doc__ or "").splitlines()[0])
    rows = measure(chosen)
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    run(main)
