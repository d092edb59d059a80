"""From the name of a model to its files: `resolve` looks on the disk only, `pull` fetches."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import catalogue, files, hub_cache, paths, records
from .catalogue import HubSource, RegisteredModel
from .records import InstalledModel

DEFAULT_MODEL = catalogue.default_name()
IMPORTED = "import.json"  # what an import leaves in a model's folder


class ModelNotFoundError(FileNotFoundError):
    """No such model on this machine; the message names the nearest ones and the pull command."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on the disk. `path` is what engine.load takes; `source` says how it was found:
    "path", "trained", "imported", "installed" or "hub cache"."""

    name: str
    path: Path
    source: str


def registry() -> list[RegisteredModel]:
    """The named models, the default first."""
    return catalogue.models()


def installed() -> list[InstalledModel]:
    """The models that `pull` has fetched, by name."""
    return records.all_installed()


def remove(name: str) -> list[Path]:
    """Delete what `pull` fetched for the installed model `name`.

    Returns the other files in its folder, which stay. ModelNotFoundError when it is not installed.
    """
    model = records.find(name)
    if model is None:
        raise ModelNotFoundError(f"no model {name!r} is installed{_nearest(name, _installed())}")
    return records.remove(model)


def imported(name: str) -> ResolvedModel | None:
    """The model that an import made under this name."""
    return next((m for m in trained() if m.name == name and m.source == "imported"), None)


def remove_imported(model: ResolvedModel) -> list[Path]:
    """Delete what the import wrote. Returns the other files in its folder, which stay."""
    record = json.loads((model.path / IMPORTED).read_text(encoding="utf-8"))
    names = [name for name in record.get("files", []) if Path(str(name)).name == name]
    files.delete(*(model.path / name for name in names), model.path / IMPORTED)
    kept = sorted(model.path.iterdir())
    if not kept:
        model.path.rmdir()
    return kept


def pull(
    name: str,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    *,
    force: bool = False,
) -> InstalledModel:
    """Fetch a registered model, or org/name[/file.gguf][@revision] from the hub. Uses the network.

    on_progress  hears (what is being done, bytes done, bytes in all or None)
    on_note      hears single lines: waiting for another pull, a source failed
    force        fetch it even when it is installed; otherwise that returns at once
    Raises ModelNotFoundError, data.DownloadError (a line per source), data.DiskFullError, OSError.
    KeyboardInterrupt keeps the partial download: the next pull goes on from there.
    """
    model = catalogue.find(name) or catalogue.hub_model(name)
    if model is None:
        raise ModelNotFoundError(
            f"no model {name!r} to pull{_nearest(name, [m.name for m in registry()])}; "
            "the hub's are named org/name or org/name/file.gguf"
        )
    if not force and (present := records.find(model.name)):
        return present
    from . import pulls

    return pulls.fetch_model(
        model,
        on_progress or (lambda stage, done, total: None),
        on_note or (lambda line: None),
        force=force,
    )


def resolve(name: str) -> ResolvedModel:
    """Find a model on this machine, never on the network.

    In this order: a GGUF or llama2.c file or a Hugging Face directory; a model trained here; an
    installed one; org/name[@revision] (or org/name/file.gguf) in the hub cache; the unique
    beginning of an installed or registered name. Raises ModelNotFoundError, and ValueError when the
    name leads to something else than one model.
    """
    name = name.strip()
    if not name:
        raise ModelNotFoundError("the name of the model is empty; `sparsechat models list`")
    return (
        _at_path(name)
        or _trained_as(name)
        or _installed_as(name)
        or _in_hub_cache(name)
        or _by_prefix(name)
    )


def trained() -> list[ResolvedModel]:
    """The models that training or an import left in the models' folder, by name."""
    try:
        # a leading full stop: what is being written
        folders = sorted(p for p in paths.models_dir().glob("[!.]*") if p.is_dir())
    except OSError:
        return []
    return [found for folder in folders if (found := _trained_in(folder))]


def _trained_as(name: str) -> ResolvedModel | None:
    return next((model for model in trained() if model.name == name), None)


def _trained_in(folder: Path) -> ResolvedModel | None:
    """What a folder holds that `pull` did not make."""
    if (folder / records.RECORD).exists() or catalogue.find(folder.name):
        return None
    if hub_cache.is_model_directory(folder):
        how = "imported" if (folder / IMPORTED).is_file() else "trained"
        return ResolvedModel(folder.name, folder, how)
    files_in = sorted(folder.glob("*.gguf"))
    return ResolvedModel(folder.name, files_in[0], "trained") if len(files_in) == 1 else None


def _at_path(name: str) -> ResolvedModel | None:
    is_path = _looks_like_path(name)
    try:
        path = Path(name).expanduser()
        if path.is_file() and (path.suffix.casefold() in (".gguf", ".bin") or _has_mark(path)):
            return ResolvedModel(path.stem, path, "path")
        if (path / "config.json").is_file():
            return ResolvedModel(path.resolve().name, path, "path")
        if path.is_dir() and is_path and (file := hub_cache.only_gguf(path, name)):
            return ResolvedModel(file.stem, file, "path")
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # no permission, a name too long, an unknown ~user
        if is_path:
            raise ModelNotFoundError(f"{name} cannot be read: {error}") from error
        return None
    if is_path and exists:
        raise ValueError(
            f"{name} is no model: a GGUF file, a .bin file of llama2.c, or a folder with "
            "config.json and safetensors is one"
        )
    if is_path:
        raise ModelNotFoundError(
            f"there is no file or folder {name}; names of models: `sparsechat models list`"
        )
    return None


def _looks_like_path(name: str) -> bool:
    if catalogue.hub_model(name):  # org/name may as well be a folder: it decides by being there
        return False
    marks = "/" in name or os.sep in name or name.startswith("~") or name in (".", "..")
    return marks or name.casefold().endswith((".gguf", ".bin"))


def _has_mark(path: Path) -> bool:
    """Whether a file begins as GGUF files do, or as llama2.c's."""
    with path.open("rb") as file:
        return file.read(4) in (b"GGUF", b"24ka")


def _installed_as(name: str) -> ResolvedModel | None:
    if model := records.find(name):
        return ResolvedModel(model.name, model.path, "installed")
    if known := catalogue.find(name):
        raise ModelNotFoundError(_not_installed(known))
    return None


def _not_installed(model: RegisteredModel) -> str:
    size = f" ({files.megabytes(model.size_bytes)})" if model.size_bytes else ""
    state = (
        "damaged" if (records.folder_of(model.name) / records.RECORD).exists() else "not installed"
    )
    return f"{model.name} is {state}; `sparsechat models pull {model.name}` fetches it{size}"


def _in_hub_cache(name: str) -> ResolvedModel | None:
    if not (model := catalogue.hub_model(name)):
        return None
    (source,) = model.sources
    assert isinstance(source, HubSource)
    path = hub_cache.find(source.repository, source.revision, source.file)
    if path is None and hub_cache.find_pickles(source.repository, source.revision):
        raise ModelNotFoundError(
            f"{name} is in the hub cache as pickles, which can run code and are never loaded as a "
            f"model; `sparsechat import {name}` makes safetensors of them once, safely"
        )
    return ResolvedModel(name, path, "hub cache") if path else None


def _by_prefix(name: str) -> ResolvedModel:
    # what is here comes first: a name that is not installed cannot be meant by a call that works
    for candidates in (_installed(), [model.name for model in registry()]):
        found = [c for c in candidates if _begins(c, name)]
        if len(found) > 1:
            raise ModelNotFoundError(f"{name!r} may be {_either(found)}; type more of the name")
        if found and (resolved := _installed_as(found[0])):
            return resolved
    if catalogue.hub_model(name):
        raise ModelNotFoundError(
            f"{name} is neither a path, nor installed, nor in the hub cache"
            f"{_nearest(name, _known())}; `sparsechat models pull {name}` fetches it from the hub"
        )
    raise ModelNotFoundError(
        f"no model {name!r}{_nearest(name, _known())}; `sparsechat models pull "
        f"{_close(name, [m.name for m in registry()]) or 'NAME'}` fetches one"
    )


def _begins(candidate: str, name: str) -> bool:
    whole, wanted = candidate.casefold(), name.casefold()
    return whole.startswith(wanted) or whole.rpartition("/")[2].startswith(wanted)


def _installed() -> list[str]:
    return [model.name for model in installed()]


def _known() -> list[str]:
    names = [
        *_installed(),
        *(model.name for model in trained()),
        *(model.name for model in registry()),
        *hub_cache.repositories(),
    ]
    return list(dict.fromkeys(names))


def _nearest(name: str, known: list[str]) -> str:
    """ "; the nearest names are …", or "" when nothing is near."""
    near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.5)
    return f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""


def _close(name: str, known: list[str]) -> str:
    return next(iter(difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.5)), "")


def _either(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
