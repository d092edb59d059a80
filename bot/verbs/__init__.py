"""What `sparsechat VERB` can do: one file per verb, found by its name.

A verb's module has a docstring (its first line is shown by `sparsechat --help`),
`add_arguments(parser)` and `run(args) -> int`, the exit code. Only the verb that runs is imported.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All verbs, alphabetically."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def summary(name: str) -> str:
    """The first line of the verb's docstring, read without importing it."""
    source = (_FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def load(name: str) -> ModuleType:
    """bot/verbs/<name>.py."""
    return import_module(f"{__name__}.{name}")
