"""Tokens a second and memory of training, ours and the peers' in processes of their own, in turns.

A step of ours is 2,048 tokens of packed documents. TRL's default is eight documents, padded to the
longest; the others are packed to four rows of 512, whose attention sees other documents of its row
(so their loops do a little more of it, and no mask costs them anything). Padding counts for nobody.
Each piece is a pair of processes: loaded, warmed up by whole steps, then asked one step each.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, peers, report, training_models, training_rows
from benchmarks.kept import Kept
from benchmarks.options import Options, note
from benchmarks.process import Worker, WorkerError

TOKENS, WIDTH = 2048, 512  # of a step; of a packed row, and the longest document
PIECES, ROUNDS = 5, 4
_MEMORY_STEPS = 3


class Case(NamedTuple):
    """What ours trains beside which of the peers' kinds."""

    name: str
    kind: str
    peer_name: str
    method: str = "lora"
    n_warm: int = 2  # steps


CASES = (
    Case("LoRA beside TRL", "trl", "TRL, its defaults", n_warm=1),
    Case("LoRA beside TRL tuned", "trl-tuned", "TRL, f32, packed, no checkpointing"),
    Case("LoRA beside PEFT compiled", "lora-compiled", "PEFT, f32, packed, compiled"),
    Case("full fine-tuning", "full", "transformers, f32, packed", method="full"),
)
# name of the row -> settings of ours; the peers' kinds and their names
OURS = {"LoRA": {}, "LoRA, 4-bit base": {"base": "q4"}, "LoRA, f32 base": {"base": "f32"}}
KINDS = {"lora": "PEFT, f32, packed", "lora-compiled": "PEFT, f32, packed, compiled",
          "trl": "TRL, its defaults"}  # fmt: skip


class Bench(NamedTuple):
    """What all parts of the benchmark are given. base: of LoRA, as `train` takes it."""

    chosen: Options
    data: training_rows.Data
    kept: Kept
    base: str
    n_pieces: int = PIECES  # of a case's speed
    kinds: frozenset[str] = frozenset(case.kind for case in CASES)  # whose speed is measured now

    @property
    def threads(self) -> int:
        """Of both sides."""
        return self.chosen.threads[-1]

    def settings(self, name: str, seed: int, **more: Any) -> dict[str, Any]:
        """Of a run over the mixed rows."""
        wanted = {"base": self.base, "seed": seed, "max_seq_len": WIDTH, **more}
        if wanted.get("method") == "full":
            del wanted["base"]
        return training_models.settings(self.chosen, name, self.data.mixed, **wanted)


def speed(bench: Bench) -> list[report.Row]:
    """A row for each case: without a peer ours alone, of kinds not asked for what is kept."""
    rows = [
        report.Row(case.name, bench.threads, "training", "tok/s", case.peer_name) for case in CASES
    ]
    bases: list[set[str]] = [set() for _ in CASES]
    for number in range(bench.n_pieces):
        for case, row, found in zip(CASES, rows, bases, strict=True):
            name = f"speed, {case.name}, {number}"
            if case.kind not in bench.kinds and name not in bench.kept:
                continue
            piece = bench.kept.get(name, _piece, bench, case, number)
            add_rounds(row, piece)
            found.add(piece["base"])
    for row, found in zip(rows, bases, strict=True):
        row.extra = {"base": "/".join(sorted(found)), "steps": len(row.ours)}
    return [row for row in rows if row.ours]


def add_rounds(row: report.Row, piece: dict[str, Any]) -> None:
    """The rounds of a piece, [seconds, tokens] of each side and both loads, into the row."""
    for ours, theirs, loads in piece["rounds"]:
        peer = theirs and theirs[1] / theirs[0]
        row.add(ours[1] / ours[0], peer, *(machine.Load(*load) for load in loads))


def _piece(bench: Bench, case: Case, number: int) -> dict[str, Any]:
    """Load both, warm up, and make the rounds; another seed, so other rows, in each piece."""
    note(f"{case.name}: piece {number + 1}")
    n_rounds = 2 if bench.chosen.quick else ROUNDS
    rows = _rows_for_peer(bench, case.kind, number, case.n_warm + n_rounds)
    with ExitStack() as stack:
        ours = training_models.our_worker(stack, bench.chosen)
        settings = bench.settings("speed", number, method=case.method, tokens_per_step=TOKENS)
        begun = ours.ask("open", settings=settings)
        peer = _opened(bench, stack, case.kind, rows)
        ours.ask("steps", n=2)
        if peer:
            peer.ask("steps", n=case.n_warm)
        rounds = [_round(ours, peer, ours_first=i % 2 == 0) for i in range(n_rounds)]
    return {"rounds": rounds, "base": begun["base"], "cosine": begun["cosine"]}


def _round(ours: Worker, peer: Worker | None, ours_first: bool) -> list[Any]:
    """[[seconds, tokens] of ours, of the peer or None, loads]; who goes first changes."""
    answers: dict[str, dict[str, Any]] = {}
    for name in ("ours", "peer") if ours_first else ("peer", "ours"):
        worker = ours if name == "ours" else peer
        if worker is not None:
            answers[name] = worker.ask("steps", n=1)
    seconds = {name: answer["steps"][0][:2] for name, answer in answers.items()}
    loads = [answer["load"] for answer in answers.values()]
    return [seconds["ours"], seconds.get("peer"), loads]


def _rows_for_peer(bench: Bench, kind: str, seed: int, n_steps: int) -> Path:
    """A file of the documents that ours begins with, as the peer's kind of run takes them."""
    # packed rows of 512 hold a little less than ours, and an unfilled last group is left out
    steps = training_rows.batches(
        bench.chosen.model, bench.data.mixed, seed, TOKENS, n_steps + 3, WIDTH
    )
    documents = [document for step in steps for document in step]
    is_trl = kind.startswith("trl")
    groups = [documents] if is_trl else training_rows.packed(documents, WIDTH, TOKENS // WIDTH)
    return training_rows.write(peers.bench_dir() / "training" / f"{kind}-{seed}.json", groups)


def _opened(bench: Bench, stack: ExitStack, kind: str, rows: Path) -> Worker | None:
    """A peer that waits before its first step; None, and a line, when it is not to be had."""
    folder = training_models.huggingface_folder(bench.chosen.model)
    worker = training_models.peers_worker(stack, bench.threads) if folder else None
    if worker is None:
        return None
    try:
        worker.ask("open", kind=kind, model=str(folder), rows=str(rows), threads=bench.threads)
    except WorkerError as error:
        note(f"{kind} is left out: {error}\n{error.details}")
        return None
    return worker


def memory(bench: Bench) -> list[report.Row]:
    """The highest resident memory of a process that loads, makes three steps and nothing else."""
    names = list(KINDS)[:1] if bench.chosen.quick else list(KINDS)
    theirs = {kind: bench.kept.get(f"memory, {kind}", _peer_peak, bench, kind) for kind in names}
    rows = []
    for name, more in OURS.items():
        ours = bench.kept.get(f"memory, {name}", _our_peak, bench, more)
        for kind, peer in theirs.items():
            row = report.Row(name, bench.threads, f"peak memory beside {KINDS[kind]}", "GB",
                             KINDS[kind], less_is_better=True)  # fmt: skip
            row.add(ours and ours / 1e9, peer and peer / 1e9)
            row.extra = {"share": ours / peer if ours and peer else None}
            rows.append(row)
    return rows


def _our_peak(bench: Bench, more: dict[str, Any]) -> int | None:
    note(f"memory of ours {more}")
    with ExitStack() as stack:
        worker = training_models.our_worker(stack, bench.chosen)
        settings = bench.settings("memory", 0, **{"tokens_per_step": TOKENS, **more})
        try:
            worker.ask("open", settings=settings)
        except WorkerError as error:
            note(f"{more} is left out: {error}")
            return None
        return _peak(worker)


def _peer_peak(bench: Bench, kind: str) -> int | None:
    note(f"memory of {kind}")
    rows = _rows_for_peer(bench, kind, 0, _MEMORY_STEPS)
    with ExitStack() as stack:
        worker = _opened(bench, stack, kind, rows)
        return _peak(worker) if worker else None


def _peak(worker: Worker) -> int | None:
    worker.ask("steps", n=_MEMORY_STEPS)
    found = worker.ask("memory")["memory"]
    return found and int(found["peak"])
