"""Everything that can be set, in one table: name, type, range, built-in value, one line of help.

Flags, `SPARSECHAT_*` variables, /set and config.toml read this table and share its names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal

from engine.sparsity.knob import DEFAULT as DEFAULT_LEVEL
from engine.sparsity.knob import NAMES as LEVELS
from engine.sparsity.knob import RULE as LEVEL_RULE
from engine.sparsity.knob import parse_level

Value = str | int | float | bool | tuple[str, ...] | None

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Which values one setting takes, and from when on a change of it is felt.

    low and high are inclusive bounds; `above` is an exclusive lower one. felt: in the next turn,
    which may have a value of its own; once it is set; with the next model; with the next start.
    """

    kind: Literal["int", "float", "bool", "text", "texts", "level"]
    help: str
    low: float | None = None
    above: float | None = None
    high: float | None = None
    felt: Literal["turn", "set", "load", "start"] = "turn"
    choices: Callable[[], Sequence[str]] | None = None

    def describe(self) -> str:
        """The values in words: "a number above 0 and at most 1"."""
        if self.kind == "bool":
            return "on or off"
        if self.kind == "level":
            return LEVEL_RULE
        if self.choices is not None:
            return f"one of {', '.join(self.choices())}"
        if self.kind in ("text", "texts"):
            return "text"
        noun = "a whole number" if self.kind == "int" else "a number"
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (("above", self.above), ("from", self.low), ("up to", self.high))
            if bound is not None
        ]
        return " ".join([noun, *bounds])


def _default_model() -> str:
    from data.models import DEFAULT_MODEL

    return DEFAULT_MODEL


def _templates() -> Sequence[str]:
    from engine.templates import TEMPLATES

    return TEMPLATES


def _kv_formats() -> Sequence[str]:
    from engine.kv_formats import KV_FORMATS

    return sorted(KV_FORMATS)


def _set(default: Value, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class Settings:
    """One value for everything that can be set. None means "as the model has it"."""

    model: str = field(
        default_factory=_default_model,
        metadata={"rule": Rule("text", "name of a model, GGUF file or model folder", felt="load")},
    )
    # OpenChatKit stops at 128, which cuts most answers of today's chat models
    max_tokens: int = _set(512, Rule("int", "longest answer, in tokens", low=1))
    temperature: float = _set(
        0.6, Rule("float", "0 takes the likeliest token, above 1 gets wild", low=0, high=100)
    )
    top_k: int = _set(40, Rule("int", "sample from the k likeliest tokens; 0 = all", low=0))
    top_p: float = _set(
        1.0, Rule("float", "sample from the smallest set reaching p; 1 = all", above=0, high=1)
    )
    min_p: float = _set(
        0.0, Rule("float", "drop tokens less likely than p times the best", low=0, high=1)
    )
    repetition_penalty: float = _set(
        1.0, Rule("float", "above 1 makes repeated tokens less likely", above=0, high=100)
    )
    seed: int | None = _set(
        None, Rule("int", "same seed, same text; not set = a new one per answer", low=0)
    )
    beams: int = _set(1, Rule("int", "beams to search; 1 = sample", low=1, high=64))
    length_penalty: float = _set(0.0, Rule("float", "beam search: above 0 prefers longer answers"))
    lookup: bool = _set(True, Rule("bool", "draft from the text so far: same answer, faster"))
    exact_prompt: bool = _set(
        False, Rule("bool", "all digits for long prompts too, at half their speed")
    )
    stop: tuple[str, ...] = _set((), Rule("texts", r"end the answer at this text (\n = new line)"))
    system: str | None = _set(None, Rule("text", "system prompt; not set = the template's own"))
    template: str | None = _set(
        None, Rule("text", "chat template; not set = the model's own", choices=_templates)
    )
    sample: bool = _set(True, Rule("bool", "off = greedy: always the likeliest token"))
    stream: bool = _set(True, Rule("bool", "show the answer as it is made"))
    threads: int | None = _set(
        None,
        Rule("int", "threads to compute with; not set = all cores", low=1, high=256, felt="set"),
    )
    sparsity: str | float = _set(
        DEFAULT_LEVEL,
        Rule("level", "what a token may skip: auto, off, exact, balanced, fast, 0-0.9", felt="set"),
    )
    adapter: str | None = _set(
        None, Rule("text", "adapter of the model: a name or a folder; off = none", felt="set")
    )
    max_seq_len: int | None = _set(
        None, Rule("int", "context length in tokens; not set = the model's", low=2, felt="load")
    )
    kv_cache: str | None = _set(
        None,
        Rule(
            "text", "how keys and values are kept; not set = f16", felt="load", choices=_kv_formats
        ),
    )
    kb: str | None = _set(
        None, Rule("text", "knowledge base to answer from; off = none", felt="set")
    )
    k: int = _set(3, Rule("int", "passages to answer from", low=1, high=20))
    w: int = _set(5, Rule("int", "neighbours that a passage takes in, each side", low=0, high=50))
    w_th: float = _set(0.5, Rule("float", "how alike a neighbour must be (cosine)", low=-1, high=1))
    search_mode: Literal["hybrid", "dense", "lexical"] = _set(
        "hybrid", Rule("text", "how to search", choices=lambda: ("hybrid", "dense", "lexical"))
    )
    evidence_tokens: int = _set(
        512, Rule("int", "room for passages in the prompt, in tokens", low=50, high=100_000)
    )
    require_evidence: bool = _set(False, Rule("bool", "answer from passages or not at all"))
    saved_kv_mb: int = _set(
        2000,
        Rule("int", "disk for what saved sessions need not compute again, in MB; 0 = none", low=0),
    )
    history: bool = _set(True, Rule("bool", "keep what is typed in a history file", felt="start"))
    plain: bool = _set(
        False, Rule("bool", "no line editor, no colour, no moving text", felt="start")
    )


@cache
def rules() -> dict[str, Rule]:
    """The rule of every setting, in the order in which they are shown."""
    return {item.name: item.metadata["rule"] for item in fields(Settings)}


def setting_name(word: str) -> str:
    """`top-k`, `--top_k`, `TOP_K` → "top_k"; ValueError naming the nearest when there is none."""
    name = word.strip().lstrip("-").replace("-", "_").lower()
    if name not in rules():
        raise ValueError(f"there is no setting {word!r}{nearest(name, list(rules()))}")
    return name


def nearest(word: str, names: Sequence[str]) -> str:
    """ "; did you mean 'top_p'?" or "", to be put behind a message."""
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse(name: str, value: object) -> Value:
    """Check one value, as text (flag, variable, /set) or as config.toml and JSON have it.

    ValueError names the setting, the value and the rule.
    """
    rule = rules()[name]
    try:
        parsed: Value = _PARSERS[rule.kind](value)
    except (TypeError, ValueError):
        raise _refusal(name, rule, value) from None
    if isinstance(parsed, int | float) and not _within(rule, parsed):
        raise _refusal(name, rule, value)
    if rule.choices is not None and parsed not in rule.choices():
        raise _refusal(name, rule, value)
    return parsed


def show(value: Value) -> str:
    """A value as /hyperparameters prints it and /set takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == ():
        return "not set"
    if isinstance(value, tuple):
        return " ".join(repr(text) for text in value)
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


def _refusal(name: str, rule: Rule, value: object) -> ValueError:
    given = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
    hint = nearest(value, LEVELS) if rule.kind == "level" and isinstance(value, str) else ""
    return ValueError(f"{name} takes {rule.describe()}, got {given}{hint}")


def _within(rule: Rule, number: float) -> bool:
    return (
        math.isfinite(number)
        and (rule.low is None or number >= rule.low)
        and (rule.above is None or number > rule.above)
        and (rule.high is None or number <= rule.high)
    )


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    number = int(value)
    if number >= 2**63:
        raise ValueError
    return number


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    """Text is typed by a person, who writes a new line as `\\n`; a list comes from a file."""
    if isinstance(value, str):
        parts = [_unescape(value)]
    elif isinstance(value, list | tuple):
        parts = [_text(item) for item in value]
    else:
        raise TypeError
    if not all(parts):
        raise ValueError
    return tuple(parts)


def _unescape(text: str) -> str:
    pieces, escaped = [], False
    for char in text:
        if escaped:
            pieces.append(_ESCAPES.get(char, "\\" + char))
        elif char != "\\":
            pieces.append(char)
        escaped = char == "\\" and not escaped
    return "".join(pieces) + ("\\" if escaped else "")


_PARSERS: dict[str, Any] = {
    "int": _whole,
    "float": _number,
    "bool": _switch,
    "text": _text,
    "texts": _texts,
    "level": parse_level,
}
