"""What `sparsechat VERB` can do: one file per verb, found by its name.

A verb's module has a docstring (its first line is shown by `sparsechat --help`),
`add_arguments(parser)` and `run(args) -> int`, the exit code. Only the verb that runs is imported.
The file of a verb that is a word of Python has an underscore behind it: import_.py.

A verb that names a package as `ACTIONS` has actions of its own, `sparsechat train check …`, found
in that package in the same way (bot/training/actions/check.py; from-kb is from_kb.py).
"""

from __future__ import annotations

import ast
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parent


def names(folder: Path = _FOLDER) -> list[str]:
    """All verbs, or the actions in `folder`, alphabetically."""
    return sorted(path.stem.rstrip("_").replace("_", "-") for path in folder.glob("[a-z]*.py"))


def summary(name: str, folder: Path = _FOLDER) -> str:
    """The first line of the verb's docstring, read without importing it."""
    source = (folder / f"{_stem(name)}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def actions_folder(package: str) -> Path:
    """Where the actions of a verb lie that names `package` as its ACTIONS."""
    return _FOLDER.parents[1].joinpath(*package.split("."))


def action(verb: ModuleType, word: str) -> ModuleType | None:
    """The verb's action of that name; None when `word` is none."""
    package: str | None = getattr(verb, "ACTIONS", None)
    if package is None or word not in names(actions_folder(package)):
        return None
    return import_module(f"{package}.{_stem(word)}")


def load(name: str) -> ModuleType:
    """bot/verbs/<name>.py."""
    return import_module(f"{__name__}.{_stem(name)}")


def _stem(name: str) -> str:
    """Of the file of a verb or an action."""
    return name.replace("-", "_") + "_" * iskeyword(name)
