"""The command line's and the config file's share of a run's settings: their names are one.

Nearest wish wins: flag > --config FILE > what training has built in.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from engine.training.settings import (
    BASES,
    LOSSES,
    METHODS,
    OPTIMIZERS,
    SCHEDULES,
    TrainSettings,
    settings_from,
)

POSITIONAL = "data"
CHOICES = {
    "method": METHODS,
    "base": BASES,
    "loss": LOSSES,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
}
GROUPS: dict[str, dict[str, str]] = {
    "what is trained on what": {
        "model": "name of a model, GGUF file or model folder; as for chat",
        "name": "of the run and of what it leaves behind; after DATA and the method",
        "kind": "how rows are written: oig, bolt, messages, alpaca, text; recognised by themselves",
        "loss": "train the answers alone, or all tokens as OpenChatKit does",
        "val_data": "held-out rows in files of their own",
        "val_share": "share of the rows that is held out, 200 at most",
        "max_seq_len": "longer rows are cut; what model and batch can take",
    },
    "method": {
        "method": "an adapter (lora), all weights (full), or those of the last layers",
        "base": "how frozen weights are kept; auto = by what a probe measures",
        "rank": "of the adapter's matrices",
        "alpha": "the adapter's output is scaled by alpha / rank",
        "dropout": "share of the adapter's inputs that is left out, at random",
        "targets": "matrices with an adapter: all, or some of wq,wk,wv,wo,w_gate,w_up,w_down",
        "n_layers": "only the last N layers are trained; all for lora",
    },
    "steps": {
        "epochs": "times that every row is seen",
        "max_steps": "end after N steps",
        "tokens_per_step": "tokens of prompts and answers in a step",
        "accumulate": "batches that a step is computed in: more need less memory",
        "targets_per_step": "collect batches until a step has N trained tokens",
        "learning_rate": "lora 2e-4, full 2e-5, last_layers 5e-5",
        "schedule": "how the learning rate falls",
        "warmup": "share of the run in which it rises",
        "weight_decay": "pulls matrices towards 0",
        "clip": "longest gradient; 0 = any",
        "head_mass": "share of the error that goes back through the vocabulary; 1 = all",
        "optimizer": "adamw8bit keeps its state in a quarter of the memory",
        "seed": "same seed, same run",
        "max_spike": "a loss so far above the usual one skips its step; 0 = none does",
        "max_skipped": "skipped steps in a row that end the run",
        "max_in_memory_batches": "rows that are shuffled and packed together, in batches",
        "checkpointing": "compute activations twice rather than keep them",
        "threads": "to compute with; all cores",
    },
    "what it tells and keeps": {
        "evaluate_every": "steps between evaluations on held-out rows; ten evaluations a run",
        "patience": "evaluations without a better loss that end the run",
        "samples": "held-out prompts that are answered at each evaluation",
        "sample_tokens": "length of these answers",
        "save_every": "steps between checkpoints; with every evaluation",
        "keep": "checkpoints that stay, besides the best one",
        "train_log_backend": "where figures go: print, loguru, wandb, tensorboard, trackio; "
        "several with commas between them",
    },
}  # fmt: skip
_METAVARS = {"int": "N", "float": "X", "str": "TEXT"}
_OWN = {"val_data": "DATA", "model": "NAME", "name": "NAME"}


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """A flag per setting and --config; a flag that is not given leaves no attribute behind."""
    kinds = {field.name: str(field.type) for field in fields(TrainSettings)}
    defaults = {field.name: field.default for field in fields(TrainSettings)}
    for title, helps in GROUPS.items():
        group = parser.add_argument_group(title)
        for name, text in helps.items():
            flag = f"--{name.replace('_', '-')}"
            shown = f"{text}{_built_in(defaults[name])}".replace("%", "%%")
            kind = kinds[name].split(" | ")[0]
            if kind == "bool":
                action = argparse.BooleanOptionalAction
                group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=shown)
                continue
            choices = CHOICES.get(name)
            group.add_argument(
                flag,
                type=_PARSERS[kind],
                choices=choices,
                metavar=None if choices else _OWN.get(name, _METAVARS[kind]),
                default=argparse.SUPPRESS,
                help=shown,
            )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="TOML with settings; flags beat it"
    )


def given(args: argparse.Namespace) -> dict[str, Any]:
    """What flags, DATA and the config file say. ValueError, one line, for a file that cannot be
    read or has a setting that there is not."""
    values: dict[str, Any] = {} if args.config is None else _from_file(args.config)
    known = {field.name for field in fields(TrainSettings)} - {POSITIONAL}
    values |= {name: getattr(args, name) for name in known if hasattr(args, name)}
    if args.data:
        values[POSITIONAL] = args.data[0]
    return values


def complete(values: dict[str, Any]) -> TrainSettings:
    """The settings, with a model and a name where none was given; ValueError in one line."""
    from bot.training.names import free_name

    values = {"model": _default_model(), "method": "lora", **values}
    if "name" not in values:
        values["name"] = free_name(values[POSITIONAL], values["method"])
    return settings_from(values, "train")


def _default_model() -> str:
    from bot.config import read_config

    return read_config({}).settings().model


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--config {path} does not exist") from None
    except OSError as error:
        raise ValueError(f"--config {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"--config {path} is not TOML: {error}") from None
    named = {key.replace("-", "_"): value for key, value in values.items()}
    # kinds and ranges of what is there; what is missing may come from flags
    settings_from({"data": "", "model": "", "name": "", **named}, str(path))
    return named


def _built_in(default: object) -> str:
    if default is None or default is MISSING:
        return ""
    return f" ({'off' if default is False else default})"


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number, got {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number, got {text!r}") from None


_PARSERS: dict[str, Callable[[str], Any]] = {"int": _whole, "float": _number, "str": str}
