"""All benchmarks one after another, then the table of targets; about eight hours.

    python -m benchmarks.all --save [--quick] [--only NAME …]

Training takes most of the time, and rows of the user's (benchmarks/training_rows.py). A quiet
machine is needed: whatever else uses a core is in the figures ("foreign CPU"). A benchmark that
fails is named at the end and does not hold up the others; its older result stays.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import targets
from benchmarks.machine import ROOT


class Run(NamedTuple):
    """A benchmark and the flags of its run."""

    name: str  # of the module
    flags: tuple[str, ...] = ()


LARGE = ("shape-6.7b", "shape-pythia-6.9b", "shape-mpt-7b")
RUNS = (
    Run("decode"),
    Run("prefill"),
    Run("longcontext"),
    Run("beams", ("--threads", "2")),
    Run("decode", ("--avx2", "--formats", "Q4_0", "--rounds", "3")),
    Run("decode", ("--model", "shape-1.1b", "--rounds", "3")),
    *(Run(name, ("--model", shape, "--threads", "2", "--rounds", "1"))
      for name in ("decode", "prefill") for shape in LARGE),
    Run("alibi"),
    Run("lookup"),
    Run("sparsity"),
    Run("sparsity", ("--model", "shape-1.1b", "--parts", "speed", "drafts")),
    Run("feed_forward"),
    *(Run("feed_forward", ("--model", shape)) for shape in ("shape-1.1b", *LARGE)),
    Run("kv_skipping"),
    Run("resume"),
    Run("disturbed"),
    Run("startup"),
    Run("quality"),
    Run("vectors"),
    Run("retrieval"),
    Run("answers"),
    Run("kb_faults"),
    Run("training"),
    Run("training_kills"),
    Run("training_step", ("--model", "shape-6.7b", "--cases", "lora:q4", "--steps", "3")),
    Run("export_check"),
)  # fmt: skip


def command(run: Run, *, save: bool, quick: bool) -> list[str]:
    """What a person would type."""
    more = (["--save"] if save else []) + (["--quick"] if quick else [])
    return [sys.executable, "-m", f"benchmarks.{run.name}", *run.flags, *more]


def main() -> int:
    """Run what was asked for; 1 when something failed."""
    names = list(dict.fromkeys(run.name for run in RUNS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.all", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--save", action="store_true", help="keep the results under results/")
    parser.add_argument("--quick", action="store_true", help="to see that all work")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    args = parser.parse_args()
    failed = []
    for run in RUNS:
        if run.name not in args.only:
            continue
        asked = command(run, save=args.save, quick=args.quick)
        title = " ".join(asked[2:])
        print(f"\n== {title}", flush=True)
        started = time.perf_counter()
        code = subprocess.run(asked, cwd=ROOT, check=False).returncode
        print(f"== {title}: {time.perf_counter() - started:.0f} s", flush=True)
        if code:
            failed.append(f"{title} ended with {code}")
    print("\n".join(["", *failed, ""]), flush=True)
    sys.argv[1:] = []
    targets.main()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
