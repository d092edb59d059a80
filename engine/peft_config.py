"""adapter_config.json of PEFT (https://huggingface.co/docs/peft): what it says of a LoRA's scales.

Whatever would change the arithmetic and is not done here is refused by name, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.checkpoints._json import read_object

NAME = "adapter_config.json"
# keys that ask for more than pairs of matrices, unless they are absent or false
_UNSUPPORTED = {
    "use_dora": "DoRA (use_dora)",
    "use_qalora": "QALoRA (use_qalora)",
    "use_bdlora": "block-diagonal LoRA (use_bdlora)",
    "modules_to_save": "whole modules beside the pairs (modules_to_save)",
    "trainable_token_indices": "trained tokens (trainable_token_indices)",
    "target_parameters": "parameters that are no layers (target_parameters)",
    "layer_replication": "layers that stand there twice (layer_replication)",
    "lora_bias": "biases of pairs (lora_bias)",
    "alora_invocation_tokens": "adapters that begin in the middle of a text (aLoRA)",
    "arrow_config": "a mixture of adapters (arrow_config)",
}
# of the other use_… and …_config keys, those that change nothing once training is over
_HARMLESS = {"use_rslora", "eva_config", "velora_config", "loftq_config", "megatron_config"}
# these begin from changed weights of the model, which PEFT stores nowhere
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class PeftConfig(NamedTuple):
    """What reading the pairs needs; patterns are by module names or ends of them."""

    path: Path
    rank: int
    alpha: float
    rank_pattern: Mapping[str, Any]
    alpha_pattern: Mapping[str, Any]
    by_root: bool  # scale = alpha / sqrt(rank): use_rslora
    base: str  # base_model_name_or_path

    def rank_of(self, module: str) -> int:
        """What A of this module must have as rows."""
        return _whole(self, "rank_pattern", _for_module(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str, rank: int) -> float:
        """What B A is multiplied with."""
        alpha = _number(self, "alpha_pattern", _for_module(self.alpha_pattern, module, self.alpha))
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def read_config(folder: Path) -> PeftConfig:
    """FileNotFoundError without the file, ValueError for what is no plain LoRA."""
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no {NAME}; an adapter is a folder in PEFT's layout with that file and "
            "adapter_model.safetensors"
        )
    keys = read_object(path)
    if keys.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type is {keys.get('peft_type')!r}; only LORA is read")
    for key, value in keys.items():
        variant = key.startswith("use_") or key.endswith("_config")
        if value and (key in _UNSUPPORTED or (variant and key not in _HARMLESS)):
            raise ValueError(f"{path}: {_UNSUPPORTED.get(key, key[:60])} is not supported")
    if (bias := keys.get("bias", "none")) != "none":
        raise ValueError(f"{path}: trained biases (bias = {bias!r}) are not supported")
    start = keys.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ValueError(
            f"{path}: init_lora_weights {start!r} changed the model's own weights, which are not "
            "in the adapter; convert it with PEFT to a plain LoRA"
        )
    found = PeftConfig(
        path,
        rank=0,
        alpha=0.0,
        rank_pattern=_pattern(path, keys, "rank_pattern"),
        alpha_pattern=_pattern(path, keys, "alpha_pattern"),
        by_root=bool(keys.get("use_rslora")),
        base=str(keys.get("base_model_name_or_path") or ""),
    )
    return found._replace(
        rank=_whole(found, "r", keys.get("r")),
        alpha=_number(found, "lora_alpha", keys.get("lora_alpha")),
    )


def plain_config(
    modules: Mapping[str, int], rank: int, scale: float, every: set[str], base: str
) -> dict[str, Any]:
    """The keys that PEFT needs for pairs of these modules, name: rank; scale is one for all.

    every  module of the layers that have pairs
    """
    short = sorted({name.rpartition(".")[2] for name in modules})
    meant = {name for name in every if name.rpartition(".")[2] in short}
    others = {name: r for name, r in modules.items() if r != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": _tidy(scale * rank),
        "lora_dropout": 0.0,
        # by their last names where these mean no others; PEFT would else make empty pairs
        "target_modules": short if meant == modules.keys() else sorted(modules),
        "rank_pattern": others,
        "alpha_pattern": {name: _tidy(scale * r) for name, r in others.items()},
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
    }


def _for_module(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT takes the first key that matches as a regular expression the whole name or its end."""
    for key, value in pattern.items():
        plain = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if module == plain or (module.endswith(f".{plain}") and not key.startswith("^")):
            return value
    return default


def _pattern(path: Path, keys: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = keys.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {name} must be an object, got {found!r:.60}")
    for key in found:
        plain = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not plain.replace(".", "").replace("_", "").isalnum():
            raise ValueError(
                f"{path}: {name} has the expression {key[:60]!r}; only names of modules are read"
            )
    return found


def _whole(config: PeftConfig, name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{config.path}: {name} must be a whole number from 1, got {value!r:.60}")
    return value


def _number(config: PeftConfig, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{config.path}: {name} must be a number, got {value!r:.60}")
    return float(value)


def _tidy(number: float) -> float | int:
    """32 instead of 32.0: PEFT's own files have whole numbers."""
    return int(number) if number == int(number) else number
