"""How much work and text a chat template may cause: its code comes with the model, from anyone.

Jinja's sandbox keeps templates away from Python's internals but not from an endless job: nested
loops, macros that call themselves twice, strings doubled forty times. Here every value that a
template makes has a bounded size, so that each single operation is short, and the number of
operations is bounded too. A deadline stands behind both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

MAX_STEPS = 1_000_000  # loop turns, calls and operations; an ordinary chat takes some hundreds
MAX_SIZE = 4_000_000  # characters of one value, plus four times the conversation's
MAX_WORK = 64_000_000  # characters made in all, plus sixty-four times the conversation's
DEADLINE_S = 5.0
MAX_INT_BITS = 4096
ITEM_SIZE = 16  # what an item counts besides its characters: looking at it takes time too
# widths of thousands, or given as a value, are no formatting
WIDE_FIELD = re.compile(r"\d{4,}|\*|\{[^{}]+\{")


class RunawayTemplateError(Exception):
    """The template asked for more than a conversation can need."""


class Budget:
    """What is left for one rendering of a conversation of `n_chars` characters."""

    def __init__(self, n_chars: int) -> None:
        self.max_size = MAX_SIZE + 4 * n_chars
        self._steps = MAX_STEPS + n_chars
        self._work = MAX_WORK + 64 * n_chars
        self._deadline = time.monotonic() + DEADLINE_S + n_chars * 1e-5

    def step(self) -> None:
        """Count one operation."""
        self._steps -= 1
        if self._steps < 0:
            raise RunawayTemplateError(f"it loops for more than {MAX_STEPS:,} steps")
        if time.monotonic() > self._deadline:
            raise RunawayTemplateError(f"it takes longer than {DEADLINE_S:g} seconds")

    def reserve(self, size: int) -> None:
        """Refuse a value of `size` characters before it is made."""
        if size > self.max_size:
            raise RunawayTemplateError(f"it makes a value of {size:,} characters")

    def checked(self, value: Any) -> Any:
        """`value` as it is, once counted as one step and by its size."""
        self.step()
        size = len(value) if isinstance(value, str) else self.size(value)
        self.reserve(size)
        self._work -= size
        if self._work < 0:
            raise RunawayTemplateError(f"it makes more than {MAX_WORK:,} characters of text")
        return value

    def size(self, value: Any) -> int:
        """Characters in `value` with all that it contains, each as often as it is contained.

        Counting ends shortly after the limit.
        """
        total, waiting = 0, [value]
        while waiting and total <= self.max_size:
            item = waiting.pop()
            total += ITEM_SIZE
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, int):
                if item.bit_length() > MAX_INT_BITS:
                    raise RunawayTemplateError("it computes with absurdly large numbers")
            elif isinstance(item, Mapping):
                waiting.extend(item.keys())
                waiting.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                waiting.extend(item)
        return total


def checked_operands(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Refuse `left operator right` when its result would be too large to make."""
    if operator == "*":
        for sequence, factor in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(factor, int):
                budget.reserve(budget.size(sequence) * max(factor, 0))
    elif operator == "+" and isinstance(left, str) and isinstance(right, str):
        budget.reserve(len(left) + len(right))
    elif operator == "**" and isinstance(right, int) and abs(right) > 1000:
        raise RunawayTemplateError("it computes with absurdly large numbers")
    elif operator == "%" and isinstance(left, str):
        checked_format(budget, left, right)


def checked_format(budget: Budget, template: str, values: Any) -> None:
    """Refuse formatting `values` into a %- or {}-style `template` when that may grow too large."""
    if WIDE_FIELD.search(template):
        raise RunawayTemplateError("it formats text into a very wide field")
    n_fields = template.count("%") + template.count("{")
    budget.reserve(len(template) + n_fields * (budget.size(values) + 1000))


def checked_replace(budget: Budget, text: str, old: str, new: str) -> None:
    """Refuse `text.replace(old, new)` when the result would be too large."""
    budget.reserve(len(text) + text.count(old) * len(new))


def checked_join(budget: Budget, separator: str, items: Iterable[Any]) -> list[Any]:
    """`items` as a list, unless joining them with `separator` would be too large."""
    listed = list(items)
    budget.reserve(budget.size(listed) + len(separator) * len(listed))
    return listed
