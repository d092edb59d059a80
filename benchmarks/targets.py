"""Which speeds were aimed at, and what do the results under results/ say?

    python -m benchmarks.targets [FOLDER]

prints a table for the documentation and, as the last line, the same as one JSON object. "limit" is
what this machine allows, from figures measured beside the rounds: its memory's bandwidth for
decoding, its multiplications for prompts; a target beyond the limit cannot be met here by any
program that reads the same bytes. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report


class Target(NamedTuple):
    """A bound on one key of the rows of one metric."""

    what: str
    result: str  # a file under results/
    metric: str
    bound: float
    case: str = ""  # how the row's case ends
    threads: int | None = None  # None: any
    key: str = "ratio"
    at_most: bool = False


_Q4 = "Q4_0 file"
_1B = "decode-shape-1.1b"
_KEPT = "rate kept of position 0"
_SPARSE, _LOSS = "sparsity", "exp(KL) - 1"
_TRAINING = "training"
_SKIPPING = "kv_skipping"


def _of_large(name: str, shape: str) -> tuple[Target, ...]:
    """What a shape of some 7B is to do."""
    result = f"decode-{shape}"
    return (
        Target(f"decode, {name}", result, "decode", 1.5, _Q4, 2),
        Target(f"load, {name}, s", result, "import to first token", 5, key="ours", at_most=True),
        Target(f"memory, {name}, GiB", result, "peak memory", 5.5, key="ours", at_most=True),
    )


TARGETS = (
    Target("decode, 135M, against Q4_0", "decode", "decode", 4.0, _Q4, 2),
    Target("decode, 135M, against Q4_0", "decode", "decode", 3.0, _Q4, 1),
    Target("decode, Q8_0 file", "decode", "decode", 3.0, "Q8_0 file", 2),
    Target("decode, 1.1B", _1B, "decode", 2.0, _Q4, 2),
    Target("share of the bandwidth, 1.1B", _1B, "decode", 0.85, _Q4, 2, "limit_share"),
    Target("prompt of 512", "prefill", "prefill", 1.5, f"{_Q4}, 512 tokens", 2),
    Target("prompt of 512", "prefill", "prefill", 2.0, f"{_Q4}, 512 tokens", 1),
    Target("prompt of 2,048", "longcontext", "prefill", 1.5, f"{_Q4}, 2,048 tokens"),
    Target("decode at 2,000", "longcontext", "decode", 1.5, f"{_Q4}, position 2,000"),
    Target("rate kept at 2,000", "longcontext", _KEPT, 0.75, f"{_Q4}, position 2,000", key="ours"),
    Target("decode with AVX2 only", "decode-avx2", "decode", 1.2, _Q4),
    Target("4 beams against 1", "beams", "4 beams against 1", 1.8, key="ours", at_most=True),
    Target("prompt-lookup", "lookup", "lookup", 1.5),
    Target("mean KL", "quality", "KL", 0.003, " file", key="ours", at_most=True),
    Target("top-1", "quality", "top-1", 0.99, " file", key="ours"),
    Target("worst error", "quality", "worst error", 0.1, " file", key="ours", at_most=True),
    Target("idle CPU", "startup", "CPU at the prompt", 0.0, key="ours", at_most=True),
    Target("to the prompt, s", "startup", "prompt", 0.5, key="ours", at_most=True),
    Target("to the first token, s", "startup", "first token", 1.5, key="ours", at_most=True),
    Target("head alone, greedy", _SPARSE, "decode", 1.25, "calibrated head, greedy", 2),
    Target("the same, top-1", _SPARSE, "top-1", 0.995, "calibrated head, greedy, chat", key="ours"),
    Target("certified head, top-1", _SPARSE, "top-1", 1.0, "certified head, greedy, chat",
           key="ours"),
    Target("head alone, top 40", _SPARSE, "KL of the top 40", 0.005,
           "calibrated head, top 40, chat", key="ours", at_most=True),
    Target("the same, recall", _SPARSE, "recall of the top 40", 0.98,
           "calibrated head, top 40, chat", key="ours"),
    Target("exact", _SPARSE, "whole answers", 1.3, "exact with drafts, greedy", 2),
    Target("exact, identical answers", _SPARSE, "identical answers", 1.0, "exact, greedy",
           key="ours"),
    Target("balanced", _SPARSE, "whole answers", 1.35, "balanced with drafts, greedy", 2),
    Target("balanced, loss", _SPARSE, _LOSS, 0.02, "balanced, top 40, chat", key="ours",
           at_most=True),
    Target("fast", _SPARSE, "whole answers", 1.5, "fast with drafts, greedy", 2),
    Target("fast, loss", _SPARSE, _LOSS, 0.05, "fast, top 40, chat", key="ours", at_most=True),
    Target("feed-forward 90 % sparse, 1.1B", "feed_forward-shape-1.1b", "decode, 90 % left out",
           1.8, threads=2),
    Target("the same, head screened", "feed_forward-shape-1.1b",
           "decode, 90 % left out, head screened", 1.8, threads=2),
    Target("decode near 8,000, blocks skipped", _SKIPPING, "decode", 1.5,
           "position 8,000, 128 blocks"),
    Target("the same, KL", _SKIPPING, "KL", 0.01, "position 7,908, 128 blocks",
           key="ours", at_most=True),
    Target("calibration, s", _SPARSE, "time", 60, "calibration", key="ours", at_most=True),
    Target("calibration, memory", _SPARSE, "peak memory", 1.5, "calibration", key="ours",
           at_most=True),
    *_of_large("Llama 2 7B", "shape-6.7b"),
    *_of_large("Pythia 6.9B", "shape-pythia-6.9b"),
    *_of_large("MPT 7B", "shape-mpt-7b"),
    Target("LoRA on 6.7B in 4 bits, GiB", "training_step-shape-6.7b", "peak memory", 16,
           key="ours", at_most=True),
    Target("ALiBi beside rope", "alibi", "prefill", 0.9, "prompt of 16,384"),
    Target("the same, decode", "alibi", "decode", 0.9, "decode at 16,384"),
    Target("recall@5, hybrid - better leg", "retrieval", "passage recall@5", 0.03, "test, hybrid",
           key="difference"),
    Target("right answers, with : without", "answers", "right", 2.0),
    Target("a question, 100,000 chunks, ms", "vectors", "query p50", 30.0, "chunks, hybrid",
           key="ours", at_most=True),
    Target("a search of 1M vectors, ms", "vectors", "search p50", 10.0, key="ours", at_most=True),
    Target("recall@10, 1M vectors", "vectors", "recall@10 of exact", 0.95, key="ours"),
    Target("memory, 1M vectors, MB", "vectors", "resident memory", 700, key="ours", at_most=True),
    Target("encoding", "vectors", "encoding", 1.0),
    Target("one edit in 10,000 files, s", "kb_faults", "sync", 2.0, key="ours", at_most=True),
    Target("chunks embedded for it", "kb_faults", "chunks to embed anew", 3, key="ours",
           at_most=True),
    Target("commits lost by kills", "kb_faults", "lost commits", 0, key="ours", at_most=True),
    Target("damage not noticed", "kb_faults", "silent or crash", 0, key="ours", at_most=True),
    Target("errors of readers", "kb_faults", "errors and stale reads", 0, key="ours", at_most=True),
    Target("LoRA, TRL's defaults", _TRAINING, "training", 6.0, "beside TRL"),
    Target("LoRA, TRL tuned", _TRAINING, "training", 3.0, "beside TRL tuned"),
    Target("LoRA, PEFT compiled", _TRAINING, "training", 1.7, "beside PEFT compiled"),
    Target("full fine-tuning", _TRAINING, "training", 1.5, "full fine-tuning"),
    Target("held-out loss above PEFT's", _TRAINING, "held-out loss", 0.01, " steps", key="worst",
           at_most=True),
    Target("memory, LoRA, of PEFT's", _TRAINING, "peak memory beside PEFT, f32, packed", 0.6,
           "LoRA", key="share", at_most=True),
    Target("the same, 4-bit base", _TRAINING, "peak memory beside PEFT, f32, packed", 0.4,
           "4-bit base", key="share", at_most=True),
    Target("8-bit AdamW", _TRAINING, "a step beside torch fused", 1.0, "adamw8bit"),
    Target("the same, loss above AdamW's", _TRAINING, "held-out loss, 8-bit AdamW", 0.01,
           key="worst", at_most=True),
    Target("resumed losses", _TRAINING, "difference of a loss", 1e-6, key="ours", at_most=True),
    Target("runs lost by kills", "training_kills", "runs lost", 0, key="ours", at_most=True),
    Target("difference of a loss after kills", "training_kills", "runs lost", 1e-6,
           key="largest difference", at_most=True),
    Target("learned: loss", _TRAINING, "held-out loss", 1.0, "chatterbot, LoRA"),
    Target("learned: F1 of answers", _TRAINING, "answer F1", 1.0, "chatterbot, LoRA"),
)  # fmt: skip


class Verdict(NamedTuple):
    """A target held against one row; measured None: there is no such row."""

    target: Target
    row: dict[str, Any] | None

    @property
    def measured(self) -> float | None:
        """The value that the target is about."""
        value: float | None = self.row.get(self.target.key) if self.row else None
        return value

    @property
    def is_met(self) -> bool | None:
        """None when it was not measured."""
        if self.measured is None:
            return None
        bound = self.target.bound
        return self.measured <= bound if self.target.at_most else self.measured >= bound

    @property
    def limit(self) -> float | None:
        """What the machine allows, in the same unit; None where nothing of it was measured."""
        if self.row is None:
            return None
        if self.target.key == "limit_share":
            return 1.0
        if self.target.key == "ratio" and self.row.get("limit_tok_s") and self.row["peer"]:
            return float(self.row["limit_tok_s"] / self.row["peer"])
        found: float | None = self.row.get("limit")
        return found


def verdicts(results: dict[str, dict[str, Any]]) -> Iterator[Verdict]:
    """Every target, once for each row that it is about, or once without a row."""
    for target in TARGETS:
        rows = [row for row in results.get(target.result, {}).get("rows", ()) if fits(row, target)]
        for row in rows or [None]:
            yield Verdict(target, row)


def fits(row: dict[str, Any], target: Target) -> bool:
    """Whether the target is about this row."""
    return (
        row["metric"] == target.metric
        and row["case"].endswith(target.case)
        and target.threads in (None, row["threads"])
    )


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A line of the table."""
    target, row = verdict.target, verdict.row
    sign, unit = "≤" if target.at_most else "≥", "x" if target.key == "ratio" else ""
    wanted = f"{sign} {target.bound:g}{unit}"
    if row is None:
        return target.what, "", "", wanted, "not measured", "", ""
    peer = f"{report.spread(row, 'peer')} {row['peer_name']}" if row["peer"] else ""
    figures = report.spread(row, target.key) + unit if verdict.measured is not None else ""
    if target.key == "ratio":
        figures += f" ({report.spread(row, 'ours')} : {peer})"
    limit = "" if verdict.limit is None else f"{verdict.limit:.3g}{unit}"
    met = {True: "yes", False: "no", None: ""}[verdict.is_met]
    return target.what, row["case"], str(row["threads"]), wanted, figures, limit, met


_HEADINGS = ("target", "case", "threads", "wanted", "measured", "limit", "met")


def table(found: Sequence[Verdict]) -> str:
    """Markdown that is a table for people's eyes too."""
    lines = [_HEADINGS, *(cells(verdict) for verdict in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    texts = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def sources(results: dict[str, dict[str, Any]]) -> str:
    """Where the figures come from: a line for each result that a target is about."""
    lines = []
    for name in dict.fromkeys(target.result for target in TARGETS):
        if name in results:
            result = results[name]
            run = result["machine"].get("run", {})
            repeats = f"{run.get('periods')} x {run.get('rounds')} rounds"
            quick = ", QUICK: not for quoting" if run.get("quick") else ""
            lines.append(f"{name}: commit {result['commit']}, {run.get('at')}, {repeats}{quick}")
    return "\n".join(lines)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """name -> result of all files of a folder."""
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }


def as_json(found: Sequence[Verdict]) -> dict[str, Any]:
    """The object of the last line."""
    rows = [
        {
            **verdict.target._asdict(),
            "case": verdict.row["case"] if verdict.row else None,
            "threads": verdict.row["threads"] if verdict.row else verdict.target.threads,
            "measured": verdict.measured,
            "limit": verdict.limit,
            "is_met": verdict.is_met,
        }
        for verdict in found
    ]
    return {"name": "targets", "rows": rows}


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.targets", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, default=report.RESULTS, metavar="FOLDER")
    results = read(parser.parse_args().folder)
    found = list(verdicts(results))
    print(table(found))
    print(f"\n{sources(results)}\n")
    print(json.dumps(as_json(found), allow_nan=False), flush=True)


if __name__ == "__main__":
    main()
