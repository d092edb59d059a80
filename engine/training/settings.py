"""What a run is asked to do: one frozen record that the command line, files and run.json share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

METHODS = ("lora", "full", "last_layers", "feed_forward")
BASES = ("auto", "int8", "int16", "q4", "bf16", "f32")
LOSSES = ("answers", "all")
SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw", "adamw8bit")
# what worked for small models; full fine-tuning moves all weights and needs less
LEARNING_RATES = {"lora": 2e-4, "full": 2e-5, "last_layers": 5e-5, "feed_forward": 5e-5}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run.

    data, val_data     files, folders or "a.jsonl:2,b.jsonl:1" (data.training_rows); kind: how their
                       rows are written, None = recognised. Without val_data, val_share of the rows
                       (at most 200) is held out.
    model, name        a checkpoint's path or short name; the run's, and its result's, name
    method, base       engine.training.methods; how the frozen weights are kept, "auto" = as the
                       probe finds. rank, alpha, dropout, targets, n_layers are the method's.
    loss               "answers", or "all" tokens
    epochs, max_steps  whichever ends first; an epoch is all rows once
    tokens_per_step    of prompt and answer, in `accumulate` batches of equal size
    targets_per_step   trained tokens that a step collects from batches instead (BOLT's batch_size)
    learning_rate      None = by method. warmup: share of the run in which it rises to that
    clip               largest norm of the gradient; 0 = off
    head_mass          share of |p - y| that goes back through the vocabulary, the likeliest first:
                       0.999 is a tenth of its columns; 1.0 = all
    max_seq_len        longer rows are cut; None = what the model and a batch can take
    evaluate_every     steps; 0 = after each epoch, None = ten times a run
    save_every         steps; None = with every evaluation, and after ten minutes without one
    keep               how many step checkpoints stay, besides the best and the last
    samples            fixed prompts answered at each evaluation, of sample_tokens each
    max_spike          a step whose loss is so many nats above the median of the last 32 is skipped;
                       0 = off. After max_skipped skipped steps in a row the run stops.
    patience           evaluations without a better loss after which the run ends; None = never
    max_in_memory_batches  batches' worth of rows that are held and packed together
    checkpointing      compute activations twice rather than keep them
    """

    data: str
    model: str
    name: str
    kind: str | None = None
    val_data: str | None = None
    val_share: float = 0.02
    method: str = "lora"
    base: str = "auto"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = "all"
    n_layers: int | None = None
    loss: str = "answers"
    epochs: int = 1
    max_steps: int | None = None
    tokens_per_step: int = 2048
    accumulate: int = 1
    targets_per_step: int | None = None
    learning_rate: float | None = None
    schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    head_mass: float = 0.999
    optimizer: str = "adamw"
    seed: int = 0
    max_seq_len: int | None = None
    evaluate_every: int | None = None
    save_every: int | None = None
    keep: int = 2
    samples: int = 3
    sample_tokens: int = 48
    max_spike: float = 2.0
    max_skipped: int = 3
    patience: int | None = None
    max_in_memory_batches: int | None = None
    checkpointing: bool = False
    train_log_backend: str = "print"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                value, names = getattr(self, name), ", ".join(allowed)
                raise ValueError(f"{name} must be one of {names}, got {value!r}")
        for name, (low, high, is_open) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            too_low = value <= low if is_open else value < low
            # written so that NaN is refused, too
            if too_low or not low <= value <= high:
                raise ValueError(f"{name} must be {_range(low, high, is_open)}, got {value}")
        if self.tokens_per_step % self.accumulate:
            raise ValueError(
                f"tokens_per_step {self.tokens_per_step} is not a multiple of accumulate "
                f"{self.accumulate}; the batches of a step have one size"
            )

    @property
    def tokens_per_batch(self) -> int:
        """The budget that documents are packed to: what is computed at once."""
        return self.tokens_per_step // self.accumulate

    @property
    def peak_learning_rate(self) -> float:
        """learning_rate, or the method's."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate

    def method_settings(self) -> dict[str, Any]:
        """What the methods read."""
        names = ("rank", "alpha", "dropout", "targets", "n_layers")
        return {name: getattr(self, name) for name in names}

    def changed(self, **values: Any) -> TrainSettings:
        """A copy with other values; ValueError for an unknown name."""
        _require_known(values, "train")
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; settings_from reads it."""
        return asdict(self)


_CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "base": BASES,
    "loss": LOSSES,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
}
_INFINITE = float("inf")
_RANGES: dict[str, tuple[float, float, bool]] = {  # (lowest, highest, lowest is excluded)
    "val_share": (0, 0.5, False),
    "rank": (1, 4096, False),
    "alpha": (0, 1e6, True),
    "dropout": (0, 0.95, False),
    "n_layers": (1, _INFINITE, False),
    "epochs": (1, _INFINITE, False),
    "max_steps": (1, _INFINITE, False),
    "tokens_per_step": (16, 1 << 24, False),
    "accumulate": (1, 1 << 16, False),
    "targets_per_step": (1, _INFINITE, False),
    "learning_rate": (0, 10, True),
    "warmup": (0, 1, False),
    "weight_decay": (0, 10, False),
    "clip": (0, _INFINITE, False),
    "head_mass": (0.5, 1, False),
    "seed": (0, (1 << 63) - 1, False),
    "max_seq_len": (2, _INFINITE, False),
    "evaluate_every": (0, _INFINITE, False),
    "save_every": (1, _INFINITE, False),
    "keep": (1, _INFINITE, False),
    "samples": (0, 100, False),
    "sample_tokens": (1, 4096, False),
    "max_spike": (0, _INFINITE, False),
    "max_skipped": (1, _INFINITE, False),
    "patience": (1, _INFINITE, False),
    "max_in_memory_batches": (1, _INFINITE, False),
    "threads": (1, 256, False),
}


def settings_from(values: Mapping[str, Any], where: str = "train") -> TrainSettings:
    """Settings of a file or of keywords. ValueError, beginning with `where`, for an unknown name, a
    missing one or a value of another kind."""
    _require_known(values, where)
    for field in fields(TrainSettings):
        if field.name in ("data", "model", "name") and field.name not in values:
            raise ValueError(f"{where}: {field.name!r} is missing")
        if field.name in values:
            _require_kind(where, field.name, str(field.type), values[field.name])
    return TrainSettings(**values)


def _require_known(values: Mapping[str, Any], where: str) -> None:
    known = [field.name for field in fields(TrainSettings)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise ValueError(f"{where}: unknown setting {key!r}{hint}")


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "None": (type(None),),
}  # fmt: skip


def _require_kind(where: str, name: str, annotation: str, value: Any) -> None:
    wanted = annotation.split(" | ")
    allowed = tuple(kind for one in wanted for kind in _KINDS[one])
    if not isinstance(value, allowed) or (isinstance(value, bool) and "bool" not in wanted):
        kinds = " or ".join(one for one in wanted if one != "None")
        raise ValueError(f"{where}: {name} must be {kinds}, got {value!r}")


def _range(low: float, high: float, is_open: bool) -> str:
    if high == _INFINITE:
        return f"above {low:g}" if is_open else f"at least {low:g}"
    return f"in {'(' if is_open else '['}{low:g}, {high:g}]"
