"""What `train sparsify` asks for beside the settings of every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

LESS_ROWS = 0.2  # than the goal: what the product leaves out alone
OWN_TEXTS = ""  # as `data`: what the model itself answers to prompts.py
RESULTS = ("q8_0", "q4_1", "q4_0", "f16", "f32")  # of engine.export
# with the loss of a step near 1 and some hundred steps; rates that fall to 0 at the end
LEARNING_RATES = {"lora": 5e-4, "feed_forward": 2e-4}
# of a TrainSettings, where the caller does not say otherwise
DEFAULTS: Mapping[str, Any] = {
    "method": "feed_forward",
    "base": "f32",  # the teacher is the frozen model: it should be the model itself
    "epochs": 4,
    "tokens_per_step": 1024,
    "warmup": 0.05,
    "val_share": 0.06,
    "samples": 0,  # a text is written by the engine in the report, at its own sparsity
    "max_spike": 0.0,  # the loss rises while the thresholds do
}


@dataclass(frozen=True, slots=True)
class SparsifySettings:
    """How a model is taught to be sparse.

    goal         share of every feed-forward's neurons that a token leaves out at the end
    rows         of these, the share that the gate alone leaves out, so that their rows of `up` are
                 not read either; the others are left out by their product, which loses much less.
                 None: LESS_ROWS below the goal, nothing in models without gates
    start        the share that is left out at the first step. Not 0: without a loss, AdamW's first
                 steps would follow roundings
    ramp, fixed  shares of the run: what is left out rises to the goal until `ramp`, thresholds
                 follow the activations until `fixed` and stay from there on
    dense_share  of the documents that the student reads densely, to stay where it was
    hidden       weight of the hidden states' distance, relative to their size, beside the KL
    match        hidden states are compared after every match-th layer
    control      train densely on the same rows' own tokens instead, to see what the data alone does
    questions, answer_tokens, temperature   of the texts that the model writes for itself
    result       format of the GGUF file that is written
    """

    goal: float = 0.7
    rows: float | None = None
    start: float = 0.3
    ramp: float = 0.3
    fixed: float = 0.7
    dense_share: float = 0.25
    hidden: float = 1.0
    match: int = 3
    control: bool = False
    questions: int | None = None
    answer_tokens: int = 192
    temperature: float = 0.7
    result: str = "q8_0"

    def __post_init__(self) -> None:
        if self.result not in RESULTS:
            raise ValueError(f"result must be one of {', '.join(RESULTS)}, got {self.result!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")
        if self.rows is not None and self.rows > self.goal:
            raise ValueError(f"rows must be at most the goal, {self.goal:g}, got {self.rows}")
        if self.fixed < self.ramp:
            raise ValueError(
                f"fixed {self.fixed} lies before ramp {self.ramp}; thresholds are fixed at the goal"
            )

    @property
    def rows_left_out(self) -> float:
        """`rows` of a model with gates."""
        return max(0.0, round(self.goal - LESS_ROWS, 9)) if self.rows is None else self.rows

    def share_at(self, done: float) -> float:
        """What is left out when so much of the run is done."""
        risen = min(1.0, done / self.ramp) if self.ramp else 1.0
        return min(self.start, self.goal) * (1 - risen) + self.goal * risen

    def as_dict(self) -> dict[str, Any]:
        """For JSON; settings_from reads it."""
        return asdict(self)


_RANGES: dict[str, tuple[float, float]] = {
    "goal": (0.05, 0.95),
    "rows": (0, 0.95),
    "start": (0, 0.95),
    "ramp": (0, 1),
    "fixed": (0, 1),
    "dense_share": (0, 0.9),
    "hidden": (0, 1000),
    "match": (1, 1000),
    "questions": (1, 1_000_000),
    "answer_tokens": (8, 4096),
    "temperature": (0, 5),
}


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run as sparsify wants them where `values` says nothing else."""
    found = {**DEFAULTS, "data": OWN_TEXTS, **values}
    if found.get("learning_rate") is None:
        found["learning_rate"] = LEARNING_RATES.get(str(found["method"]))
    return found


def settings_from(values: Mapping[str, Any], where: str = "sparsify") -> SparsifySettings:
    """ValueError, beginning with `where`, for an unknown name or a value of another kind."""
    kinds = {field.name: str(field.type) for field in fields(SparsifySettings)}
    for key, value in values.items():
        if key not in kinds:
            near = get_close_matches(key, kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(kinds)}"
            raise ValueError(f"{where}: unknown setting {key!r}; {hint}")
        if not isinstance(value, _KINDS[kinds[key]]) or (
            isinstance(value, bool) and kinds[key] != "bool"
        ):
            raise ValueError(f"{where}: {key} must be {kinds[key]}, got {value!r}")
    return SparsifySettings(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "float": (int, float), "int": (int,), "str": (str,), "bool": (bool,),
    "int | None": (int, type(None)), "float | None": (int, float, type(None)),
}  # fmt: skip
