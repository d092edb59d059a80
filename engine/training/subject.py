"""What a run trains and on what: model file, tokenizer, rows, held-out batches, fixed prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.datasets import BadRow, Row
from data.mixture import parse_mixture
from data.models import resolve
from data.training_rows import Rows, open_rows, split
from engine.cache_dir import cache_dir
from engine.checkpoints import Checkpoint, open_checkpoint
from engine.config import DecoderConfig
from engine.fingerprint import fingerprint
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.training.evaluation import prompt_of
from engine.training.examples import Example, example, longest_row
from engine.training.feed import Feed
from engine.training.packing import WINDOW, Batch, pack
from engine.training.settings import TrainSettings

MAX_HELD_OUT = 200  # of the rows to train on
MAX_VAL_ROWS = 2000  # of a file of their own


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that is read of files before the first step.

    model_name, path  as it was asked for, and where it is
    fingerprint       SHA-256 of the checkpoint
    stop_ids          end an answer
    prompts           token ids of the fixed prompts
    """

    model_name: str
    path: Path
    checkpoint: Checkpoint
    config: DecoderConfig
    fingerprint: str
    tokenizer: Tokenizer
    rows: Rows
    feed: Feed
    val_batches: list[Batch]
    n_val_rows: int
    prompts: list[list[int]]


def open_subject(settings: TrainSettings, warn: Callable[[str], None]) -> Subject:
    """ValueError and OSError in one line for what is missing or does not fit."""
    found = resolve(settings.model)
    checkpoint = open_checkpoint(found.path)
    config = checkpoint.decoder_config()
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer is None:
        raise ValueError(f"{found.path} has no tokenizer, so no text can be learned from")
    max_seq_len = longest_row(settings, config)
    rows, held_out = _rows(settings, warn)
    examples = _examples(held_out, tokenizer, max_seq_len)
    window = settings.max_in_memory_batches or WINDOW
    feed = Feed(
        rows, tokenizer, max_seq_len, settings.tokens_per_batch, settings.epochs, window,
        _BadRows(warn),
    )  # fmt: skip
    prompts = [prompt for one in examples if (prompt := prompt_of(one))]
    return Subject(
        found.name,
        found.path,
        checkpoint,
        config,
        fingerprint(checkpoint, cache_dir()),
        tokenizer,
        rows,
        feed,
        list(pack(examples, settings.tokens_per_batch)),
        len(examples),
        prompts[: settings.samples],
    )


def absolute_paths(settings: TrainSettings) -> TrainSettings:
    """The settings with paths that hold in any working folder, so that a run can be resumed."""
    model = Path(settings.model).expanduser()
    return settings.changed(
        data=_absolute(settings.data),
        val_data=None if settings.val_data is None else _absolute(settings.val_data),
        model=str(model.absolute()) if model.exists() else settings.model,
    )


def _absolute(spec: str) -> str:
    sources = parse_mixture(spec)
    return ",".join(
        str(Path(path).expanduser().absolute()) + ("" if weight is None else f":{weight!r}")
        for path, weight in sources
    )


def _rows(settings: TrainSettings, warn: Callable[[str], None]) -> tuple[Rows, list[Row]]:
    """The rows to train on, and those that are held out."""
    rows = open_rows(settings.data, settings.kind, settings.seed, settings.loss)
    if settings.val_data is None:
        if not settings.val_share:
            return rows, []
        return split(rows, settings.val_share, MAX_HELD_OUT, settings.seed)
    source = open_rows(settings.val_data, settings.kind, settings.seed, settings.loss)
    held_out: list[Row] = []
    for row in source.epoch(0):
        if len(held_out) == MAX_VAL_ROWS:
            warn(f"only {MAX_VAL_ROWS:,} of the {source.n_rows:,} rows of val_data are evaluated")
            break
        if isinstance(row, Row):
            held_out.append(row)
    return rows, held_out


def _examples(rows: list[Row], tokenizer: Tokenizer, max_seq_len: int) -> list[Example]:
    examples = []
    for row in rows:
        try:
            examples.append(example(row, tokenizer, max_seq_len))
        except ValueError:
            continue  # `train check` counts them
    return examples


class _BadRows:
    """Warns of the first few rows that cannot be learned from, then of nothing more."""

    SHOWN = 3

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn, self._seen = warn, set[str]()

    def __call__(self, bad: BadRow) -> None:
        if bad.origin in self._seen or len(self._seen) > self.SHOWN:
            return
        self._seen.add(bad.origin)
        if len(self._seen) > self.SHOWN:
            self._warn("more rows are left out; `sparsechat train check` lists them all")
        else:
            self._warn(f"{bad.origin} is left out: {bad.reason}")
