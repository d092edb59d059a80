"""Reading a config.json: every value with its type and range, every fault with its key.

A key that is null counts as missing, as in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ACTIVATIONS: dict[str, Literal["silu", "gelu", "gelu_tanh", "relu"]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
MAX_WHOLE = 2**31 - 1
MAX_NUMBER = 1e18
MAX_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Keys:
    """A JSON object and, for messages, the key that it stands under ("rope_scaling.")."""

    values: Mapping[str, Any]
    prefix: str = ""

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def error(self, key: str, rule: str) -> ValueError:
        got = repr(self.values.get(key))
        return ValueError(
            f"{self.prefix}{key} {rule}, got {got if len(got) <= 80 else got[:79] + '…'}"
        )

    def whole(
        self, key: str, default: int | None = None, least: int = 1, most: int = MAX_WHOLE
    ) -> int:
        """A whole number from `least` to `most`; without a default the key is required."""
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, "must be a whole number")
        if not least <= value <= most:
            raise self.error(key, f"must be from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None, above: float = 0.0) -> float:
        """A number greater than `above` and not absurdly large."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "must be a number")
        if not above < value <= MAX_NUMBER:
            raise self.error(key, f"must be greater than {above:g} and at most {MAX_NUMBER:g}")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return self.number(key) if self.has(key) else None

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers greater than 0; () when it is missing."""
        values = self._get(key, ())
        if not isinstance(values, list | tuple):
            raise self.error(key, "must be a list of numbers")
        for value in values:
            if not isinstance(value, int | float) or not 0 < value <= MAX_NUMBER:
                raise self.error(key, f"must hold numbers greater than 0, not {value!r}")
        return tuple(float(value) for value in values)

    def below(self, key: str) -> Keys:
        """The object at `key`; an empty one when it is missing."""
        value = self._get(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, "must be an object")
        return Keys(value, f"{self.prefix}{key}.")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{self.prefix}{key} is missing")
        return value


def head_dim(keys: Keys, hidden_size: int, n_heads: int) -> int:
    """head_dim where it is given, else hidden_size / n_heads."""
    if keys.has("head_dim"):
        return keys.whole("head_dim")
    if hidden_size % n_heads:
        raise ValueError(
            f"hidden_size {hidden_size} is not a multiple of num_attention_heads {n_heads}, "
            "and head_dim is missing"
        )
    return hidden_size // n_heads


def layer_types(keys: Keys, n_layers: int, is_full: Callable[[int], bool]) -> tuple[int, ...]:
    """The layers that see everything: by layer_types where it is given, else by their number."""
    if not keys.has("layer_types"):
        return tuple(i for i in range(n_layers) if is_full(i))
    kinds = keys.values["layer_types"]
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(k not in known for k in kinds):
        raise keys.error("layer_types", f"must list {n_layers} times one of {', '.join(known)}")
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")


def activation(keys: Keys) -> Literal["silu", "gelu", "gelu_tanh", "relu"]:
    value = keys.values.get("hidden_act") or "silu"
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise keys.error("hidden_act", f"must be one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[value]
