"""Filters whose results can be much larger than their operands: as jinja has them, on a budget."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jinja2.filters import do_indent, make_attrgetter
from jinja2.utils import pass_environment

from engine.templates._budget import (
    RunawayTemplateError,
    checked_format,
    checked_join,
    checked_replace,
)

if TYPE_CHECKING:
    from engine.templates._sandbox import ChatEnvironment

MAX_INDENT = 64


@pass_environment
def join_filter(env: ChatEnvironment, value: Any, d: str = "", attribute: Any = None) -> str:
    items = value if attribute is None else map(make_attrgetter(env, attribute), value)
    return str(d).join(str(item) for item in checked_join(env.budget, str(d), items))


@pass_environment
def replace_filter(
    env: ChatEnvironment, s: Any, old: str, new: str, count: int | None = None
) -> str:
    checked_replace(env.budget, str(s), str(old), str(new))
    return str(s).replace(str(old), str(new), -1 if count is None else count)


@pass_environment
def indent_filter(
    env: ChatEnvironment, s: str, width: int | str = 4, *flags: Any, **named: Any
) -> str:
    margin = len(width) if isinstance(width, str) else width
    if margin > MAX_INDENT:
        raise RunawayTemplateError(f"it indents by {margin}")
    env.budget.reserve(len(s) + (s.count("\n") + 1) * margin)
    return do_indent(s, width, *flags, **named)


@pass_environment
def format_filter(env: ChatEnvironment, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TemplateError("format takes positional or keyword arguments, not both")
    checked_format(env.budget, str(value), [*args, *kwargs.values()])
    return str(value) % (kwargs or args)


@pass_environment
def sum_filter(
    env: ChatEnvironment, iterable: Any, attribute: Any = None, start: float = 0
) -> float:
    items = list(iterable if attribute is None else map(make_attrgetter(env, attribute), iterable))
    if not all(isinstance(item, int | float) for item in [start, *items]):
        raise TemplateError("sum adds numbers only")
    return sum(items, start)


def tojson_filter(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: unlike jinja's own filter, nothing is escaped for HTML."""
    if isinstance(indent, int) and indent > MAX_INDENT:
        raise RunawayTemplateError(f"it indents JSON by {indent}")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


BUDGETED = {
    "format": format_filter,
    "indent": indent_filter,
    "join": join_filter,
    "replace": replace_filter,
    "sum": sum_filter,
    "tojson": tojson_filter,
}
