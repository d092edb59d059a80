"""Jinja as transformers sets it up for chat templates, on a budget.

What a template may call is an allow-list: the text, list and mapping methods and the filters that
chat templates use, less those whose cost does not follow from the sizes of their operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from engine.templates._budget import (
    Budget,
    RunawayTemplateError,
    checked_format,
    checked_join,
    checked_operands,
    checked_replace,
)
from engine.templates._filters import BUDGETED

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal "
        "isdigit islower isnumeric isspace istitle isupper join lower lstrip partition "
        "removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines "
        "startswith strip swapcase title upper".split()
    ),
    dict: frozenset("copy get items keys values".split()),
    list: frozenset("copy count index".split()),
    tuple: frozenset("count index".split()),
    range: frozenset("count index".split()),
}
FILTERS = frozenset(
    "abs attr batch capitalize count d default dictsort e escape first float forceescape format "
    "groupby indent int items join last length list lower map max min reject rejectattr replace "
    "reverse round safe select selectattr slice sort string sum title tojson trim truncate unique "
    "upper urlencode wordcount".split()
)
MAX_FILTER_NUMBER = 10_000  # widths, lengths and counts given to a filter


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """One template's environment; `rendering` gives it the budget of one rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationBlock, loopcontrols],
            finalize=self.checked,
            # constant folding would run operations at compile time, where no budget is open
            optimized=False,
        )
        self._budget = Budget(0)
        every = {**self.filters, **BUDGETED}
        self.filters = {name: _bounded(self, every[name]) for name in FILTERS}
        del self.globals["lipsum"]
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
            dict=_TemplateDict(),
            namespace=_TemplateNamespace,
        )

    @contextmanager
    def rendering(self, n_chars: int) -> Iterator[None]:
        """Bound what happens inside by a budget for `n_chars` characters of conversation."""
        before, self._budget = self._budget, Budget(n_chars)
        try:
            yield
        finally:
            self._budget = before

    @property
    def budget(self) -> Budget:
        return self._budget

    def checked(self, value: Any) -> Any:
        """Literals, operands of output, results: counted, or refused."""
        return self._budget.checked(value)

    def tick(self) -> bool:
        """One turn of a loop, one call of a macro or block. True."""
        self._budget.step()
        return True

    def joined(self, *parts: Any) -> str:
        """The `~` operator."""
        return self.concat([str(self.checked(part)) for part in parts])

    def concat(self, parts: Iterable[str]) -> str:
        """Asked by generated code wherever buffered text is put together."""
        listed = list(parts)
        self._budget.reserve(sum(map(len, listed)))
        text: str = self.checked("".join(listed))
        return text

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        checked_operands(self._budget, operator, left, right)
        return self.checked(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # underscored names, because keyword arguments of the template's calls pass through
        args = _checked_arguments(__self._budget, __obj, args, kwargs)
        return __self.checked(super().call(__context, __obj, *args, **kwargs))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        counted: nodes.Template = _Counting().visit(tree)
        counted.set_environment(self)
        return counted


def _checked_arguments(
    budget: Budget, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """The arguments of a call. Refused are bound methods that are not on the list, and those calls
    of them that would explode."""
    # jinja wraps str.format to keep fields away from internals
    method = getattr(called, "__wrapped__", called)
    if not isinstance(method, BuiltinMethodType | MethodType):
        return args
    owner: Any = method.__self__
    name = method.__name__
    allowed = next((names for kind, names in METHODS.items() if isinstance(owner, kind)), None)
    if allowed is None and isinstance(method, MethodType):
        return args  # of an object that the template was given on purpose: loop, namespace, …
    if allowed is None or name not in allowed:
        raise SecurityError(f"it calls {type(owner).__name__}.{name}, which chat templates may not")
    if name == "replace" and len(args) >= 2:
        checked_replace(budget, owner, *map(str, args[:2]))
    elif name == "join" and args:
        return (checked_join(budget, owner, args[0]), *args[1:])
    elif name == "format":
        checked_format(budget, owner, [*args, *kwargs.values()])
    return args


def _bounded(environment: ChatEnvironment, apply: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `apply` with operands and result counted."""

    @wraps(apply)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, str | list | tuple | dict):
                environment.checked(value)
        for number in (*args[1:], *kwargs.values()):
            if isinstance(number, int) and abs(number) > MAX_FILTER_NUMBER:
                raise RunawayTemplateError(f"it passes {number} to a filter")
        return environment.checked(apply(*args, **kwargs))

    return bounded


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 200 or any(char.isdigit() for char in format):
        raise RunawayTemplateError("it formats a date at length")
    return datetime.now().strftime(format)


class _TemplateDict:
    """`dict` for templates: makes mappings, gives no way to the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _TemplateNamespace(Namespace):
    """`namespace` for templates, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # `self` in *args, so that a template may have an attribute of that name
        for name in dict(*args[1:], **kwargs):
            _check_name(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        # the contents of namespaces are not counted where they are nested
        return "<Namespace>"


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"it stores {name!r} in a namespace; no name may begin with '_'")


class GenerationBlock(Extension):
    """`{% generation %}` marks what the assistant wrote; rendering passes it through."""

    tags = {"generation"}  # noqa: RUF012  # jinja's own way to declare them

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # a scope of its own, as in transformers, where the block is a call
        return nodes.Scope(body, lineno=line)


class _Counting(NodeTransformer):
    """Has loops, macros and blocks count their turns, and literals their size."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.test is not None:
            node.test = nodes.And(_tick(node), node.test, lineno=node.lineno)
        return self.visit_Macro(node)

    def visit_Macro(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_tick(node), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_CallBlock = visit_Block = visit_Macro

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _call("checked", [node], node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" else _call("checked", [node], node)


def _tick(at: nodes.Node) -> nodes.Expr:
    """One call of `tick`. The name is copied into the generated code, parentheses and all: a Call
    node would go through the sandbox, at five times the time."""
    return nodes.EnvironmentAttribute("tick()", lineno=at.lineno)


def _call(method: str, arguments: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    """A call of the environment's own `method`, which no template can name or shadow."""
    target = nodes.EnvironmentAttribute(method, lineno=at.lineno)
    return nodes.Call(target, arguments, [], None, None, lineno=at.lineno)


def compiled(source: str) -> tuple[ChatEnvironment, Template]:
    """The environment and the template in it. jinja2's TemplateSyntaxError for wrong syntax."""
    environment = ChatEnvironment()
    with environment.rendering(len(source)):
        return environment, environment.from_string(source)
