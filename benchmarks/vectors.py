"""How fast, exact and small are vector indexes, and how fast whole searches and the encoder?

    python -m benchmarks.vectors [--only index|search|encode] [--count N] [--quick] [--save]

index    N vectors (a million) in the index that their number asks for. Each is a real one, of the
         leads of Wikipedia, plus noise of 0.6 times its length, so they cluster as real ones do;
         queries are real questions. Memory-bound. A process that does nothing else opens and
         searches it: its resident memory is the figure, file pages included. recall@10 is counted
         against comparing every vector.
search   a base of 100,000 chunks (the leads, several times, with vectors as above): one `look_up`
         after warm-up, encoding included; no search is like another.
encode   the same chunks through ours and through sentence-transformers' own `encode` (batches of
         32, its default), in turns. Compute-bound.

The base of leads, and what is built here, are kept in the folder of the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine, options, peers, questions, report, retrieval
from data import files, wikipedia_leads
from data.documents import Document
from retrieval import KnowledgeBase, evaluation, inverted_lists, load_encoder
from retrieval.backends import backend
from retrieval.encoder import Encoder
from retrieval.store import Store

COUNT = 1_000_000
N_CHUNKS = 100_000
NOISE = 0.6
BLOCK = 10_000
N_QUERIES = 300
N_TEXTS = 640
K = 10
Matrix = NDArray[np.float32]


def real_vectors(encoder: Encoder) -> Matrix:
    """Those of the leads' chunks."""
    base = retrieval.leads_base(encoder)
    with base._reader.view() as (store, _):
        found = np.concatenate([rows for _, rows in store.vectors_after(None)])
    base.close()
    return found


def asked(encoder: Encoder) -> tuple[list[str], Matrix]:
    """Real questions and their vectors."""
    path = questions.path_of("tune")
    texts = [each.question for each in evaluation.read_questions(path)][:N_QUERIES]
    return texts, encoder.encode(texts)


def noisy(real: Matrix, count: int) -> Iterator[tuple[NDArray[np.int64], Matrix]]:
    """`count` vectors with ids from 1, in blocks; the same ones each time."""
    rng = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        rows = real[(np.arange(start, start + n) * 7919) % len(real)]
        noise = rng.standard_normal(rows.shape, np.float32) * (NOISE / rows.shape[1] ** 0.5)
        rows = rows + noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield np.arange(start + 1, start + n + 1), rows


def measure_index(count: int, encoder: Encoder) -> list[report.Row]:
    """Build it once, search it in a process of its own."""
    folder = peers.bench_dir() / "vectors" / f"{count}"
    real, (_, queries) = real_vectors(encoder), asked(encoder)
    if not (folder / "manifest.json").is_file():
        _build(folder, real, count)
    if not (folder / "exact.npy").is_file():
        found = inverted_lists.nearest(queries, (rows for _, rows in noisy(real, count)), K)
        np.save(folder / "exact.npy", found + 1)
        np.save(folder / "queries.npy", queries)
    command = [sys.executable, "-m", "benchmarks.vectors", "--search", str(folder)]
    with machine.Background() as background:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    rows = []
    case = f"{count:,} vectors, {manifest['kind']}"
    for metric, unit, less in (
        ("search p50", "ms", True),
        ("search p95", "ms", True),
        ("recall@10 of exact", "", False),
        ("resident memory", "MB", True),
        ("opened in", "s", True),
    ):
        row = report.Row(case, 1, metric, unit, less_is_better=less, extra=_facts(manifest))
        row.add(result[metric], None, background.load)
        rows.append(row)
    return rows


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("n_lists", "n_probe", "build_s") if key in manifest}


def _build(folder: Path, real: Matrix, count: int) -> None:
    options.note(f"building an index of {count:,} vectors")
    files.private_folder(folder)
    started = time.perf_counter()
    manifest = backend("faiss").build(folder, noisy(real, count), count, real.shape[1])
    manifest["build_s"] = round(time.perf_counter() - started, 1)
    files.write_json(folder / "manifest.json", manifest)


def search_folder(folder: Path) -> dict[str, float]:
    """What the process with the index measures."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    queries, exact = np.load(folder / "queries.npy"), np.load(folder / "exact.npy")
    started = time.perf_counter()
    index = backend("faiss").open(folder, manifest)
    opened = time.perf_counter() - started
    seconds, recall = [], []
    for query, wanted in zip(queries, exact, strict=True):
        started = time.perf_counter()
        found, _ = index.search(query[None], K)
        seconds.append(time.perf_counter() - started)
        recall.append(len(set(found[0]) & set(wanted)) / K)
    p50, p95 = np.percentile(np.array(seconds) * 1000, (50, 95))
    return {
        "search p50": float(p50),
        "search p95": float(p95),
        "recall@10 of exact": float(np.mean(recall)),
        "resident memory": _peak_mb(),
        "opened in": opened,
    }


def _peak_mb() -> float:
    """Of this process since it began (ru_maxrss would begin with the parent's)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def measure_search(n_chunks: int, encoder: Encoder) -> list[report.Row]:
    """`look_up` in every mode on a base of n_chunks."""
    folder = peers.bench_dir() / "knowledge" / f"chunks-{n_chunks}"
    if not (folder.parent / f"{folder.name}.complete").is_file():
        _fill(folder, n_chunks, encoder)
    base = KnowledgeBase.open(folder, encoder)
    texts, _ = asked(encoder)
    rows = []
    for mode in retrieval.MODES:
        for text in texts[:20]:
            base.look_up(text, mode=mode)  # type: ignore[arg-type]
        seconds, parts = [], dict[str, list[float]]()
        with machine.Background() as background:
            for text in texts[20:]:
                started = time.perf_counter()
                found = base.look_up(text, mode=mode)  # type: ignore[arg-type]
                seconds.append(time.perf_counter() - started)
                for part, value in found.timings.items():
                    parts.setdefault(part, []).append(value * 1000)
        for percent in (50, 95):
            row = report.Row(f"{n_chunks:,} chunks, {mode}", 1, f"query p{percent}", "ms",
                             less_is_better=True)  # fmt: skip
            row.extra = {f"{part} ms": float(np.median(ms)) for part, ms in parts.items()}
            row.add(float(np.percentile(np.array(seconds) * 1000, percent)), None, background.load)
            rows.append(row)
    base.close()
    return rows


def _fill(folder: Path, n_chunks: int, encoder: Encoder) -> None:
    """A base whose texts are the leads' and whose vectors are noisy ones."""
    options.note(f"making a base of {n_chunks:,} chunks")
    files.private_folder(folder.parent)
    if not folder.is_dir():
        KnowledgeBase.create(folder).close()
    base = KnowledgeBase.open(folder)
    copy = 0
    while (left := n_chunks - base.show().n_chunks) > 0:
        base.add_documents(_copies(copy, left))
        copy += 1
    real = real_vectors(encoder)
    with Store.open(folder, write=True) as store:
        store.use_encoder(encoder.encoder_id, encoder.dimension, "minilm")
        for _, rows in noisy(real, 2 * n_chunks):
            batch = store.unembedded(len(rows))
            if not batch:
                break
            store.put_vectors([sha for sha, _ in batch], rows[: len(batch)])
    base.build()
    base.close()
    (folder.parent / f"{folder.name}.complete").touch()


def _copies(copy: int, n_chunks: int) -> Iterator[Document]:
    """The leads with a word of their own, until about n_chunks chunks."""
    for article in wikipedia_leads.leads():
        if n_chunks <= 0:
            return
        text = f"{article.text} Edition {copy}."
        n_chunks -= 1 + len(text) // 400
        yield Document(f"{article.uri}#{copy}", article.title, text, (), article.metadata)


def measure_encode(encoder: Encoder, rounds: int) -> list[report.Row]:
    """Chunks a second, and the time of a single question."""
    base = retrieval.leads_base(encoder)
    with base._reader.view() as (store, _):
        ids = np.random.default_rng(0).permutation(store.state().last_chunk_id)[:N_TEXTS] + 1
        texts = [f"{chunk.title}: {chunk.text}" for chunk in store.chunks(ids)]
    base.close()
    model: Any = encoder._model  # type: ignore[attr-defined]
    row = report.Row(f"{len(texts)} chunks", machine.cores(), "encoding", "chunks/s",
                     peer_name="sentence-transformers")  # fmt: skip
    for _ in range(rounds):
        with machine.Background() as background:
            ours = _rate(texts, lambda: encoder.encode(texts))
            theirs = _rate(texts, lambda: model.encode(
                texts, normalize_embeddings=True, show_progress_bar=False))  # fmt: skip
        row.add(ours, theirs, background.load)
    one = report.Row("a question", 1, "encoding p50", "ms", less_is_better=True,
                     peer_name="sentence-transformers")  # fmt: skip
    short = asked(encoder)[0][:100]
    for _ in range(rounds):
        with machine.Background() as background:
            ours = _each(lambda text: encoder.encode([text]), short)
            theirs = _each(lambda text: model.encode([text], show_progress_bar=False), short)
        one.add(ours, theirs, background.load)
    return [row, one]


def _rate(texts: Sequence[str], encode: Any) -> float:
    started = time.perf_counter()
    encode()
    return len(texts) / (time.perf_counter() - started)


def _each(encode: Any, texts: Sequence[str]) -> float:
    seconds = []
    for text in texts:
        started = time.perf_counter()
        encode(text)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1000


def main() -> None:
    """Measure, print, and with --save keep."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vectors", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", choices=("index", "search", "encode"))
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help="vectors of `index`")
    parser.add_argument("--search", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small, not for quoting")
    parser.add_argument("--save", action="store_true", help="keep the result under results/")
    args = parser.parse_args()
    if args.search:
        print(json.dumps(search_folder(Path(args.search))))
        return
    encoder = load_encoder()
    count, n_chunks = (60_000, 20_000) if args.quick else (args.count, N_CHUNKS)
    rows: list[report.Row] = []
    if args.only in (None, "index"):
        rows += measure_index(count, encoder)
    if args.only in (None, "search"):
        rows += measure_search(n_chunks, encoder)
    if args.only in (None, "encode"):
        rows += measure_encode(encoder, 2 if args.quick else 5)
    name = f"vectors-{args.only}" if args.only else "vectors"
    report.publish(name, retrieval.about(quick=args.quick), rows, save=args.save)


if __name__ == "__main__":
    main()
