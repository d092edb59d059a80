"""What a training benchmark learns from: real rows, the same ids in the same order for both sides.

OIG rows of a file of the user's and chatterbot-corpus, mixed; 200 of them are held out. Ours reads
them as any training data. A peer gets what ours computes of them, token ids and labels, in a file:
so tokenizers and templates are no part of a comparison.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from data.datasets import BadRow, Row
from data.datasets.oig import text_of
from data.preparing import prepare
from data.training_rows import open_rows, split
from engine.checkpoints import open_checkpoint
from engine.tokenizer import load_tokenizer
from engine.training.examples import Example, example
from engine.training.feed import Feed
from engine.training.packing import Batch, best_fit

FILE = "oig_grade_school_math.jsonl"
VARIABLE = "SPARSECHAT_BENCH_DATA"
N_HELD_OUT = 200
NOT_TRAINED = -100  # a label that torch's cross-entropy passes over
ONE_IN = 8  # questions of chatterbot-corpus that are held out

# token ids, and beside them the labels: the same ids or NOT_TRAINED
Document = tuple[list[int], list[int]]


class Data(NamedTuple):
    """Files of rows. mixed: to train on, held_out: of the same kind; talk: of chatterbot alone."""

    mixed: Path
    held_out: Path
    talk: Path
    talk_held_out: Path


def oig_file(chosen: Path | None) -> Path:
    """`chosen`, or FILE in the folder that VARIABLE names; FileNotFoundError in one line."""
    if chosen is None and not os.environ.get(VARIABLE, "").strip():
        raise FileNotFoundError(
            f"real OIG rows are needed: name a file with --rows, or in {VARIABLE} a folder that "
            f"has {FILE}"
        )
    path = chosen or Path(os.environ[VARIABLE].strip()) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; --rows names one of OIG rows")
    return path.absolute()


def prepared(oig: Path) -> Data:
    """The files beside the peers, made where they are not there or of other rows."""
    stamp = blake2b(oig.read_bytes(), digest_size=6).hexdigest()
    folder = peers.bench_dir() / "training" / f"rows-{stamp}"
    names = ("mixed", "held-out", "talk", "talk-held-out")
    found = Data(*(folder / f"{name}.jsonl" for name in names))
    if found.talk_held_out.is_file():  # it is written last
        return found
    folder.mkdir(parents=True, exist_ok=True)
    all_talk = folder / "chatterbot.jsonl"
    prepare("chatterbot", all_talk, overwrite=True)
    left, held_out = split(open_rows(f"{oig},{all_talk}"), n=N_HELD_OUT)
    write_rows(found.mixed, left.each())
    write_rows(found.held_out, held_out)
    talk, talk_held_out = by_question(open_rows(str(all_talk)).each())
    write_rows(found.talk, talk)
    write_rows(found.talk_held_out, talk_held_out)
    return found


def write_rows(path: Path, rows: Iterable[Row | BadRow]) -> None:
    """As OIG rows; bad ones are left out."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            if isinstance(row, Row):
                text = text_of(row.turns) if row.turns else row.text
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    part.replace(path)


def by_question(rows: Iterable[Row | BadRow]) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows held out: of a question either all answers or none."""
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        if isinstance(row, Row) and row.turns:
            digest = blake2b(question_of(row).encode(), digest_size=8).digest()
            sides[int.from_bytes(digest) % ONE_IN == 0].append(row)
    return sides


def question_of(row: Row) -> str:
    """Its first turn, without capitals and signs."""
    kept = (c for c in row.turns[0].content.casefold() if c.isalnum() or c.isspace())
    return " ".join("".join(kept).split())


def rows_in(path: Path) -> list[Row]:
    """The rows of a file, in its order."""
    return [row for row in open_rows(str(path)).each() if isinstance(row, Row)]


def batches(
    model: Path, rows: Path, seed: int, tokens_per_step: int, n_steps: int, max_seq_len: int
) -> list[list[Document]]:
    """The documents of the first steps of a run of ours over these rows, step by step."""
    tokenizer = load_tokenizer(open_checkpoint(model))
    assert tokenizer is not None, model
    epochs = 1 + n_steps  # no run is longer than that
    feed = Feed(open_rows(str(rows), seed=seed), tokenizer, max_seq_len, tokens_per_step, epochs)
    return [documents(fed.batch) for fed in islice(feed.batches(), n_steps)]


def documents(batch: Batch) -> list[Document]:
    """A packed batch taken apart."""
    labels = [NOT_TRAINED] * len(batch.token_ids)
    for row, target in zip(batch.rows.tolist(), batch.targets.tolist(), strict=True):
        labels[row + 1] = target
    token_ids, found, start = batch.token_ids.tolist(), [], 0
    for length in batch.lengths:
        end = start + length
        found.append((token_ids[start:end], labels[start:end]))
        start = end
    return found


def document(made: Example) -> Document:
    """An example's ids and labels."""
    pairs = zip(made.token_ids, made.trained, strict=True)
    return made.token_ids, [i if trained else NOT_TRAINED for i, trained in pairs]


def documents_in(model: Path, rows: Path, max_seq_len: int) -> list[Document]:
    """Every row of a file that can be learned from."""
    tokenizer = load_tokenizer(open_checkpoint(model))
    assert tokenizer is not None, model
    found = []
    for row in rows_in(rows):
        try:
            found.append(document(example(row, tokenizer, max_seq_len)))
        except ValueError:
            continue
    return found


def write(path: Path, steps: Sequence[Sequence[Document]]) -> Path:
    """For a peer: its steps, each a list of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(steps), "utf-8")
    return path


def packed(documents: Sequence[Document], length: int, n_rows: int) -> list[list[Document]]:
    """Groups of n_rows rows of at most `length` tokens, each row documents one after the other.

    Best fit, as TRL packs; longer documents are cut. An unfilled last group is left out.
    """
    cut = [(token_ids[:length], labels[:length]) for token_ids, labels in documents]
    rows: list[Document] = []
    for indices in best_fit([len(token_ids) for token_ids, _ in cut], length):
        chosen = [cut[i] for i in indices]
        rows.append(
            (list(chain(*(ids for ids, _ in chosen))), list(chain(*(m for _, m in chosen))))
        )
    return [rows[i : i + n_rows] for i in range(0, len(rows) - n_rows + 1, n_rows)]
