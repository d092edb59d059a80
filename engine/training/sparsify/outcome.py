"""What a run leaves in its folder beside what any run does, and what is said of it at the end."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import NamedTuple

ANSWERS = "answers.jsonl"  # the model's own texts
CURVE = "sparsify.jsonl"  # a line an evaluation: aim.Scores
REPORT = "report.json"  # Report


class Report(NamedTuple):
    """rise      exp(KL) - 1 from the original with the thresholds; `drift`: without
    same       share of the words that stay the likeliest, with the thresholds
    active     share of the neurons that count for a token, of each layer: inputs of `down`
    rows       share whose rows of `up` a token reads
    tokens_per_s  of the original dense, of the result dense and with thresholds, medians
    """

    n_tokens: int
    rise: float
    drift: float
    same: float
    active: list[float]
    rows: list[float]
    original_tokens_per_s: float
    dense_tokens_per_s: float
    sparse_tokens_per_s: float

    @property
    def share(self) -> float:
        """Of all neurons, left out."""
        return 1 - statistics.mean(self.active)

    def lines(self) -> list[str]:
        """For people."""
        quicker = self.sparse_tokens_per_s / max(self.dense_tokens_per_s, 1e-9)
        width = 10
        rows = [self.active[at : at + width] for at in range(0, len(self.active), width)]
        return [
            f"feed-forwards: {self.share:.1%} of the neurons left out, rows of `up` not read "
            f"{1 - statistics.mean(self.rows):.1%}; active by layer:",
            *("  " + "  ".join(f"{100 * share:3.0f} %" for share in row) for row in rows),
            f"against the original, {self.n_tokens:,} tokens of held-out answers: "
            f"exp(KL) - 1 = {self.rise:.2%} with sparsity, {self.drift:.2%} without; "
            f"the same word likeliest at {self.same:.1%}",
            f"decoding: {self.sparse_tokens_per_s:.0f} tokens/s with sparsity, "
            f"{self.dense_tokens_per_s:.0f} without ({quicker:.2f}x), "
            f"{self.original_tokens_per_s:.0f} the original",
        ]


def read_report(run: Path) -> Report | None:
    """Of the run in this folder; None where there is none yet."""
    path = run / REPORT
    if not path.exists():
        return None
    return Report(**json.loads(path.read_text(encoding="utf-8")))
