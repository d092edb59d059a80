"""The pickles of a folder, and what their tensors are called in a Hugging Face directory.

pytorch_model.bin             one, or several with an index: Hugging Face's own names
pytorch_embs.pt, pytorch_0.pt … pytorch_lm_head.pt
                              what OpenChatKit's prepare.py leaves: a module's own names
prank_0_checkpoint.pt …       what its training leaves, a file for each stage of the pipeline:
                              modules in their order, numbered anew in each file. How many layers
                              a stage has is read from the files, not asked for
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from engine.checkpoints._json import read_object
from engine.importing.expected import Expected

SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_LAYER = re.compile(r"pytorch_(\d+)\.pt")
_STAGE = re.compile(r"prank_(\d+)_checkpoint\.pt")
_EMBEDDING, _HEAD = "pytorch_embs.pt", "pytorch_lm_head.pt"
_EARLY = ("embedding", "position_embedding")


class Place(NamedTuple):
    """One tensor of a pickle; name: Hugging Face's, or None for what nothing here is called."""

    name: str | None
    key: str
    path: Path
    shape: tuple[int, ...]
    kind: str
    n_bytes: int


def find_paths(folder: Path) -> tuple[str, tuple[Path, ...]]:
    """What the pickles are, and all of them. ValueError, FileNotFoundError in one line."""
    if (folder / INDEX).is_file():
        return "pytorch_model.bin", tuple(folder / name for name in _indexed(folder))
    if (folder / SINGLE).is_file():
        return "pytorch_model.bin", (folder / SINGLE,)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    layers = sorted((int(m[1]), name) for name in files if (m := _LAYER.fullmatch(name)))
    stages = {int(m[1]): name for name in files if (m := _STAGE.fullmatch(name))}
    if layers or _EMBEDDING in files or _HEAD in files:
        names = [_EMBEDDING, *(name for _, name in layers), _HEAD]
        return "OpenChatKit's layers", _all_there(folder, names)
    if stages:
        names = [
            stages.get(i, f"prank_{i}_checkpoint.pt") for i in range(min(max(stages), 9999) + 1)
        ]
        return "OpenChatKit's stages", _all_there(folder, names)
    raise ValueError(f"{folder}: {_why_not(folder, files)}")


def _all_there(folder: Path, names: Iterable[str]) -> tuple[Path, ...]:
    paths = tuple(folder / name for name in names)
    if missing := [path.name for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{folder}: {', '.join(missing[:5])} {'are' if missing[1:] else 'is'} missing; nothing "
            "was written"
        )
    return paths


def _why_not(folder: Path, files: list[str]) -> str:
    if any(name.endswith(".safetensors") for name in files) and "config.json" in files:
        return f"is a model as it is; `sparsechat --model {folder}` opens it"
    if "latest" in files and (inside := sorted(folder.glob("checkpoint_*"))):
        return f"a folder of checkpoints; name one of them, such as {inside[-1].name}"
    return (
        "nothing to import: neither pytorch_model.bin, nor OpenChatKit's pytorch_embs.pt or "
        "prank_0_checkpoint.pt; GGUF and llama2.c files are opened as they are"
    )


def _indexed(folder: Path) -> list[str]:
    index = folder / INDEX
    weight_map = read_object(index, unique_keys=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map is missing or empty")
    for shard in weight_map.values():
        # a plain name: no folders, so that an index cannot reach outside its directory
        is_name = isinstance(shard, str) and PurePosixPath(shard).name == shard
        if not is_name or "\\" in shard or not shard.endswith((".bin", ".pt", ".pth")):
            raise ValueError(f"{index}: {str(shard)[:80]!r} is not the name of a pickle beside it")
    names = sorted(set(weight_map.values()))
    _all_there(folder, names)
    return names


def named(kind: str, places: Iterable[Place], want: Expected) -> list[Place]:
    """With Hugging Face's names."""
    if kind == "pytorch_model.bin":
        return list(places)
    if kind == "OpenChatKit's layers":
        return [place._replace(name=_of_layer_file(place, want)) for place in places]
    return _of_stages(list(places), want)


def _of_layer_file(place: Place, want: Expected) -> str | None:
    if layer := _LAYER.fullmatch(place.path.name):
        return _in_layer(place.key, int(layer[1]), want)
    return _outside(place.key, place.path.name == _EMBEDDING, want)


def _in_layer(key: str, layer: int, want: Expected) -> str | None:
    """Of a layer's own name for a tensor; buffers, too."""
    prefix = next(p for ours, p in want.table.items() if ours.startswith("layers."))
    return f"{prefix.partition('{i}')[0]}{layer}.{key}"


def _outside(key: str, is_early: bool, want: Expected) -> str | None:
    """Of a tensor before the layers, or behind them."""
    for ours, theirs in want.table.items():
        if ours.startswith("layers.") or (ours.partition(".")[0] in _EARLY) != is_early:
            continue
        if theirs == key or theirs.endswith(f".{key}"):
            return theirs
    return None


def _of_stages(places: list[Place], want: Expected) -> list[Place]:
    """The modules of all stages, one behind another: the embedding, layers, the head."""
    modules: dict[tuple[Path, int], list[Place]] = {}
    for place in places:
        word, _, key = place.key.partition(".")
        if not word.isdecimal() or not key:
            raise ValueError(
                f"{place.path}: {place.key[:80]!r} does not begin with a module's number"
            )
        modules.setdefault((place.path, int(word)), []).append(place._replace(key=key))
    _require_contiguous(modules)
    found: list[Place] = []
    layer = 0
    for (_, number), inside in sorted(modules.items(), key=lambda item: _order(item[0])):
        is_early = _is_early({place.key for place in inside}, want)
        for place in inside:
            key = place.key
            if is_early is None:
                name = _in_layer(key, layer, want)
            else:
                name = _outside(key, is_early, want)
            found.append(place._replace(name=name, key=f"{number}.{key}"))
        layer += is_early is None
    return found


def _is_early(keys: Iterable[str], want: Expected) -> bool | None:
    """Whether a module is the embedding (True), the head (False) or a layer (None).

    OPT's layers and its head both have a final_layer_norm, so that one name does not tell.
    """
    of_layers = {theirs.partition("{i}.")[2] for theirs in want.table.values()}
    places = {key: [is_early for is_early in (True, False) if _outside(key, is_early, want)]
              for key in keys}  # fmt: skip
    if any(key in of_layers and not places[key] for key in places):
        return None
    return next((found[0] for found in places.values() if found), None)


def _order(module: tuple[Path, int]) -> tuple[int, int]:
    stage = _STAGE.fullmatch(module[0].name)
    assert stage is not None
    return int(stage[1]), module[1]


def _require_contiguous(modules: Mapping[tuple[Path, int], object]) -> None:
    """A gap would move all later layers to other places."""
    for path in {path for path, _ in modules}:
        numbers = sorted(number for other, number in modules if other == path)
        if numbers != list(range(len(numbers))):
            gap = next(i for i, number in enumerate(numbers) if i != number)
            raise ValueError(f"{path}: module {gap} is missing; nothing was written")
