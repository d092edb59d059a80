"""Does a knowledge base survive kills, damaged files, many readers and small edits?

kills    a writer is killed (SIGKILL) at a random moment, again and again, on one base: lost commits
         and damaged bases are counted
flips    a random byte of a random file of a base is changed, or the file is cut: noticed, harmless
         (all answers are the same), or silent (other answers, nothing noticed)
readers  one writer and eight readers: errors, and reads older than what was committed
edit     one paragraph of one of 10,000 files is changed: time of a sync, chunks to embed anew
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from benchmarks import kb_driver, machine, report
from benchmarks.process import ROOT, Worker, WorkerError
from data.documents import Document
from retrieval import KnowledgeBase

N_READERS = 8
_DRIVER = [sys.executable, "-m", "benchmarks.kb_driver"]
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


# kills


def kills(folder: Path, n: int, seed: int = 0) -> report.Row:
    """Kill a writer n times; what was said to be committed must be there each time."""
    base, library, dice = folder / "base", folder / "library", random.Random(seed)
    library.mkdir(parents=True)
    made = KnowledgeBase.create(base)
    made.add([library])
    made.close()
    allowed: dict[str, set[int | None]] = {}
    lost, damaged, n_commits = 0, 0, 0
    for i in range(n):
        lines = _killed(base, library, f"{seed} {i}", dice.uniform(0, 0.7))
        for line in lines:
            what, versions = json.loads(line)
            n_commits += what == "done"
            for uri, version in versions.items():
                known = allowed.setdefault(uri, {None})
                allowed[uri] = {version} if what == "done" else known | {version}
        opened = KnowledgeBase.open(base)
        problems = opened.verify()
        damaged += bool(problems)
        present = kb_driver.versions_in(opened)
        wrong = [uri for uri in allowed if present.get(uri) not in allowed[uri]]
        lost += len(wrong)
        opened.close()
        _note(f"kill {i + 1} of {n}: {len(lines)} lines, {len(present)} documents {problems or ''}")
        if problems or wrong:
            print(problems, wrong, file=sys.stderr)
    extra = {"damaged": damaged, "operations": n_commits}
    row = report.Row(f"{n} kills", 1, "lost commits", "", None, True, extra)
    row.add(lost)
    return row


def _killed(base: Path, library: Path, seed: str, delay_s: float) -> list[str]:
    """The lines that a writer wrote until it was killed, `delay_s` after it began."""
    command = [*_DRIVER, "write", str(base), str(library), seed]
    writer = subprocess.Popen(
        command, cwd=ROOT, env=_ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    first = writer.stdout.readline()
    assert first, "the writer did not begin"
    time.sleep(delay_s)
    assert writer.poll() is None, "the writer ended by itself"
    writer.kill()
    rest = writer.stdout.read().splitlines()
    writer.wait()
    writer.stdout.close()
    return [line for line in [first, *rest] if line.endswith("]\n") or line.endswith("]")]


# flips


def flips(folder: Path, n: int, seed: int = 0) -> report.Row:
    """Damage copies of two bases, one closed, one with a log that was left by a kill."""
    dice, counts = random.Random(seed), Counter[str]()
    bases = [_closed_base(folder / "closed"), _left_base(folder / "left")]
    worker = Worker(sys.executable, "benchmarks.kb_driver")
    try:
        told = []
        for base in bases:
            shutil.copytree(base, folder / "whole")
            told.append(worker.ask("answers", folder=str(folder / "whole")))
            shutil.rmtree(folder / "whole")
        assert all("told" in one for one in told), told
        for i in range(n):
            which = i % 2
            copy = folder / "copy"
            shutil.copytree(bases[which], copy)
            what = _damage(copy, dice)
            try:
                outcome = _outcome(worker, copy, told[which])
            except WorkerError as error:
                outcome = "crash"
                print(f"{what}: {error}", file=sys.stderr)
                worker.close()
                worker = Worker(sys.executable, "benchmarks.kb_driver")
            counts[outcome] += 1
            shutil.rmtree(copy)
            _note(f"flip {i + 1} of {n}: {what}: {outcome}")
            if outcome in ("silent", "not repaired"):
                print(f"{what}: {outcome}", file=sys.stderr)
    finally:
        worker.close()
    bad = sum(counts[kind] for kind in ("silent", "crash", "not repaired"))
    row = report.Row(f"{n} flips and cuts", 1, "silent or crash", "", None, True, dict(counts))
    row.add(bad)
    return row


def _outcome(worker: Worker, copy: Path, whole: dict[str, Any]) -> str:
    """noticed, harmless, silent (the answers differ) or not repaired."""
    told = worker.ask("answers", folder=str(copy))
    aside = [path for path in copy.iterdir() if ".damaged-" in path.name]
    if "told" in told and not kb_driver.is_same(told["told"], whole["told"]):
        return "silent"
    outcome = "noticed" if "refused" in told or aside else "harmless"
    worker.ask("check", folder=str(copy), repair=True)
    again = worker.ask("answers", folder=str(copy))
    return outcome if "told" in again else "not repaired"


def _damage(base: Path, dice: random.Random) -> str:
    path = dice.choice(sorted(p for p in base.rglob("*") if p.is_file() and p.stat().st_size))
    content = bytearray(path.read_bytes())
    at = dice.randrange(len(content))
    kind = dice.choices(["flip", "cut", "zeros", "gone"], [70, 20, 7, 3])[0]
    if kind == "flip":
        content[at] ^= dice.randrange(1, 256)
    elif kind == "cut":
        del content[at:]
    elif kind == "zeros":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(content)
    return f"{kind} {path.relative_to(base)} at {at:,}"


def _closed_base(folder: Path) -> Path:
    base = KnowledgeBase.create(folder)
    base.add_documents(_documents(range(60)))
    base.embed(kb_driver.Encoder())
    base.build()
    base.delete(["/made/7", "/made/9"])
    base.add_documents(_documents(range(60, 64)))
    base.embed(kb_driver.Encoder())
    base.close()
    return folder


def _left_base(folder: Path) -> Path:
    """As a kill leaves it: the last commits are in the log alone."""
    source = _closed_base(folder.with_name("source"))
    with_log = KnowledgeBase.open(source)
    with with_log._writing() as store:
        from retrieval.ingest import Ingest

        Ingest(store).documents(_documents(range(70, 75)))
        store.use_encoder(kb_driver.Encoder.encoder_id, kb_driver.Encoder.dimension)
        batch = store.unembedded(100)
        vectors = kb_driver.Encoder().encode([text for _, text in batch])
        store.put_vectors([sha for sha, _ in batch], vectors)
        # by another program: a process that closes a database file loses its locks on it
        copy = "import shutil, sys; shutil.copytree(*sys.argv[1:])"
        subprocess.run([sys.executable, "-c", copy, str(source), str(folder)], check=True)
    with_log.close()
    assert (folder / "knowledge.sqlite-wal").stat().st_size > 0
    return folder


def _documents(numbers: Sequence[int]) -> list[Document]:
    return [
        Document(f"/made/{i}", f"Made {i}", kb_driver.text_of(f"/made/{i}", i)) for i in numbers
    ]


# readers beside a writer


def readers(folder: Path, seconds: float) -> report.Row:
    """Eight readers, and a writer that adds, edits, deletes, embeds and builds meanwhile."""
    base, notes, dice = KnowledgeBase.create(folder / "base"), folder / "notes", random.Random(0)
    versions = {f"/made/{i}": 0 for i in range(50)}
    draft = notes.with_suffix(".draft")
    command = [*_DRIVER, "read", str(base.folder), str(notes)]
    running: list[subprocess.Popen[str]] = []
    began, n_commits = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for uri in dice.sample(sorted(versions), 5):
            versions[uri] += 1
        base.add_documents(
            Document(uri, f"Made {uri}", kb_driver.text_of(uri, v)) for uri, v in versions.items()
        )
        draft.write_text(json.dumps([base.show().commit, versions]))
        os.replace(draft, notes)
        if not running:
            running = [
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=_ENVIRONMENT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(N_READERS)
            ]
        base.add_documents([Document(f"/more/{n_commits}", "More", "version 1. Something more.")])
        base.embed(kb_driver.Encoder())
        if n_commits % 3 == 0:
            base.delete([f"/more/{n_commits}"])
            base.build()
        n_commits += 1
    told = [json.loads(reader.communicate("")[0] or '[0, ["no answer"]]') for reader in running]
    base.close()
    wrong = [line for _, lines in told for line in lines]
    for line in wrong:
        print(line, file=sys.stderr)
    extra = {"seconds": seconds, "reads": sum(n for n, _ in told), "rounds_of_writing": n_commits}
    case = f"1 writer, {N_READERS} readers"
    row = report.Row(case, machine.cores(), "errors and stale reads", "", None, True, extra)
    row.add(len(wrong))
    return row


# an edit


def edit(folder: Path, n_documents: int) -> list[report.Row]:
    """One paragraph of one file among many."""
    library = folder / "library"
    library.mkdir(parents=True)
    for i in range(n_documents):
        path = library / f"{i}.txt"
        path.write_text(kb_driver.text_of(path.as_posix(), 1), "utf-8")
        os.utime(path, (1_600_000_000, 1_600_000_000))
    case = f"1 of {n_documents:,} files"
    seconds = report.Row(case, 1, "sync", "s", None, True)
    anew = report.Row(case, 1, "chunks to embed anew", "", None, True)
    base = KnowledgeBase.create(folder / "base")
    base.add([library])
    base.embed(kb_driver.Encoder())
    for version in range(2, 7):
        path = library / f"{n_documents // version}.txt"
        path.write_text(kb_driver.text_of(path.as_posix(), version), "utf-8")
        began = time.perf_counter()
        made = base.sync()
        seconds.add(time.perf_counter() - began)
        assert (made.updated, made.unchanged) == (1, n_documents - 1), made
        anew.add(base.embed(kb_driver.Encoder()))
    base.close()
    return [seconds, anew]


def _note(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line[:100]:<100}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, and with --save keep."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kb_faults",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--kills", type=int, help="how many; without any flag 200, 0 = none")
    parser.add_argument("--flips", type=int, help="how many; without any flag 500")
    parser.add_argument("--readers", type=float, help="seconds; without any flag 60")
    parser.add_argument("--edit", type=int, help="files; without any flag 10,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few of each")
    parser.add_argument("--save", action="store_true", help="keep the result under results/")
    args = parser.parse_args()
    logger.remove()
    names = ("kills", "flips", "readers", "edit")
    if all(getattr(args, name) is None for name in names):
        sizes: tuple[float, ...] = (5, 20, 3, 200) if args.quick else (200, 500, 60, 10_000)
    else:
        sizes = tuple(getattr(args, name) or 0 for name in names)
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory(prefix="kb-faults-") as name:
        folder = Path(name)
        if sizes[0]:
            rows.append(kills(folder / "kills", int(sizes[0]), args.seed))
        if sizes[1]:
            (folder / "flips").mkdir()
            rows.append(flips(folder / "flips", int(sizes[1]), args.seed))
        if sizes[2]:
            (folder / "readers").mkdir()
            rows.append(readers(folder / "readers", sizes[2]))
        if sizes[3]:
            rows += edit(folder / "edit", int(sizes[3]))
    about = machine.describe((), {}) | {"run": {"quick": args.quick, "seed": args.seed}}
    report.publish("kb_faults", about, rows, save=args.save)


if __name__ == "__main__":
    main()
