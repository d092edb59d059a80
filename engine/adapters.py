"""Adapters on disk, in PEFT's layout: LoRA pairs (arXiv:2106.09685) that change a model's matrices.

A folder holds adapter_config.json and adapter_model.safetensors, as PEFT writes and reads them, and
beside them a file of ours that says which model it was trained on. Rows stand in Hugging Face's
order, on disk and in Adapter, whatever the model that an adapter came from or goes to. A module
that holds several matrices has one pair there (engine/fused_pairs.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import peft_config
from engine.architectures import ARCHITECTURES, architecture, layout
from engine.checkpoints._json import read_object
from engine.checkpoints._names import canonical_names
from engine.checkpoints._safetensors import read_safetensors
from engine.config import DecoderConfig
from engine.fused_pairs import Pairs, fused, joint_name, module_of, modules_in, names_in, split
from engine.head_rows import in_halves, interleaved, n_heads_of, require_whole_rotation
from engine.packed import replacing_folder
from engine.shapes import matrix_shapes

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
OURS = "sparsechat.json"
MAX_RANK = 256  # as engine/kernels/low_rank.py has room for; not imported, to stay without Numba
_PAIR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight"
)

Floats = NDArray[np.float32]


class Base(NamedTuple):
    """The model that an adapter was trained on."""

    name: str
    fingerprint: str  # SHA-256 of its checkpoint; "" where it is not known
    architecture: str = "llama"


class Adapter(NamedTuple):
    """What is added to a model's products: scale B (A x).

    rank      the highest of all pairs
    matrices  canonical name (engine/weights.py) -> A (rank, n_in), B (n_out, rank), float32; of a
              fused module the names joined, as in engine/fused_pairs.py
    """

    name: str
    rank: int
    scale: float
    matrices: Pairs
    base_fingerprint: str = ""  # SHA-256 of the checkpoint that it was trained on; "" = unknown
    path: Path | None = None
    base_name: str = ""

    @property
    def n_weights(self) -> int:
        """Numbers in all pairs."""
        return sum(a.size + b.size for a, b in self.matrices.values())


def read_adapter(folder: str | Path) -> Adapter:
    """Read a folder in PEFT's layout; its scales become one, the others are part of B.

    FileNotFoundError and ValueError say in one line what is missing or not supported.
    """
    folder = Path(folder)
    config = peft_config.read_config(folder)
    ours = _ours(folder)
    tensors = _tensors(folder)
    names = _canonical([module for module, _ in tensors], ours.architecture, folder / WEIGHTS)
    scales, matrices = {}, {}
    for module, name in names.items():
        a, b = (tensors.get((module, side)) for side in "AB")
        if a is None or b is None:
            raise ValueError(f"{folder / WEIGHTS}: {module} has only one of lora_A and lora_B")
        most = MAX_RANK * len(names_in(name))
        _check_pair(folder / WEIGHTS, module, a, b, config.rank_of(module), most)
        matrices[name] = a, b
        scales[name] = config.scale_of(module, a.shape[0])
    scale = max(set(scales.values()), key=list(scales.values()).count)
    for name, (a, b) in matrices.items():
        if scales[name] != scale:
            matrices[name] = a, b * np.float32(scales[name] / scale)
    rank = max(a.shape[0] for a, _ in matrices.values())
    base = ours.name or config.base
    return Adapter(folder.name, rank, scale, matrices, ours.fingerprint, folder, base)


def write_adapter(folder: str | Path, adapter: Adapter, base: Base) -> Path:
    """Write the adapter as PEFT does; the folder is whole or as it was. ValueError when it holds
    something else than an adapter."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    if folder.exists() and not (folder / peft_config.NAME).is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something else than an adapter; name another folder")
    modules = {name: module_of(name, base.architecture) for name in adapter.matrices}
    ranks = {modules[name]: a.shape[0] for name, (a, _) in adapter.matrices.items()}
    every = modules_in({name.split(".")[1] for name in adapter.matrices}, base.architecture)
    tensors = {}
    for name, (a, b) in adapter.matrices.items():
        for side, values in (("A", a), ("B", b)):
            key = f"base_model.model.{modules[name]}.lora_{side}.weight"
            tensors[key] = np.ascontiguousarray(values, np.float32)
    config = peft_config.plain_config(ranks, adapter.rank, adapter.scale, every, base.name)
    config["fan_in_fan_out"] = layout(base.architecture).transposed
    ours = {"version": 1, "name": adapter.name, "base": base._asdict()}
    with replacing_folder(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        for file, value in ((peft_config.NAME, config), (OURS, ours)):
            (temporary / file).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return folder


def trained_adapter(
    name: str, matrices: Mapping[str, tuple[Any, Any]], scale: float, config: DecoderConfig
) -> Adapter:
    """An adapter from pairs whose rows stand as in a model of `config`."""
    found = {key: (a, np.asarray(b, np.float32)) for key, (a, b) in matrices.items()}
    if _rows_are_moved(config):
        for key, (a, b) in found.items():
            if n_heads := n_heads_of(key, config):
                found[key] = a, in_halves(b, n_heads)
    return in_modules(Adapter(name, 0, scale, found), config)


def in_modules(adapter: Adapter, config: DecoderConfig) -> Adapter:
    """With pairs of whole modules, as they are written, where rows are in Hugging Face's order."""
    pairs = fused(adapter.matrices, config)
    return adapter._replace(matrices=pairs, rank=max(a.shape[0] for a, _ in pairs.values()))


def pairs_for(adapter: Adapter, config: DecoderConfig) -> Pairs:
    """A pair for each matrix, with rows as in a model of `config`; ValueError where they do not fit
    there."""
    try:
        pairs = split(adapter.matrices, config)
    except ValueError as error:
        raise ValueError(f"the adapter {adapter.name}: {error}") from None
    _require_fits(adapter.name, pairs, config)
    if not _rows_are_moved(config):
        return pairs
    return {
        name: (a, interleaved(b, n_heads) if (n_heads := n_heads_of(name, config)) else b)
        for name, (a, b) in pairs.items()
    }


def _rows_are_moved(config: DecoderConfig) -> bool:
    """Whether rows of wq and wk stand otherwise than in Hugging Face's files."""
    if config.rope.interleaved == layout(config.architecture).interleaved:
        return False
    require_whole_rotation(config)
    return True


def require_base(adapter: Adapter, fingerprint: str) -> None:
    """ValueError when it says that it was trained on another checkpoint."""
    if adapter.base_fingerprint in ("", fingerprint):
        return
    trained = f"{adapter.base_name or 'another model'} ({adapter.base_fingerprint[:12]})"
    file = adapter.path / OURS if adapter.path else None
    way_out = f'; taking "base" out of {file} lets its shapes decide' if file else ""
    raise ValueError(
        f"the adapter {adapter.name} was trained on {trained}, this model is "
        f"{fingerprint[:12]}{way_out}"
    )


def _require_fits(adapter: str, pairs: Pairs, config: DecoderConfig) -> None:
    shapes = matrix_shapes(config)
    for name, (a, b) in pairs.items():
        if name not in shapes:
            raise ValueError(
                f"the adapter {adapter} changes {name}, which this model of "
                f"{config.n_layers} layers does not have; it belongs to another model"
            )
        if a.shape[0] > MAX_RANK:
            raise ValueError(
                f"the adapter {adapter} has rank {a.shape[0]} for {name}; at most {MAX_RANK} are "
                "supported"
            )
        n_out, n_in = shapes[name]
        if (b.shape[0], a.shape[1]) != (n_out, n_in):
            raise ValueError(
                f"the adapter {adapter} takes {name} for {b.shape[0]} x {a.shape[1]}, this "
                f"model has {n_out} x {n_in}; it belongs to another model"
            )


def _ours(folder: Path) -> Base:
    """What we wrote of the model; empty when the file is not there."""
    path = folder / OURS
    if not path.is_file():
        return Base("", "", "")
    found = read_object(path).get("base") or {}
    if not isinstance(found, dict):
        raise ValueError(f"{path}: base must be an object, got {found!r:.60}")
    values = [found.get(key, "") for key in Base._fields]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{path}: base must hold texts, got {found!r:.120}")
    return Base(*values)


def _tensors(folder: Path) -> dict[tuple[str, str], Floats]:
    """(module, "A" or "B") -> values; ValueError for tensors that belong to no pair."""
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / PICKLE).is_file():
            raise ValueError(
                f"{folder}: only {PICKLE}, a pickle, which can run code and is never loaded; save "
                "it with PEFT once more, as safetensors"
            )
        raise FileNotFoundError(f"{path} is missing; fetch the adapter again")
    found = {}
    for key, tensor in read_safetensors(path).items():
        match = _PAIR.fullmatch(key)
        if match is None or len(tensor.shape) != 2:
            raise ValueError(
                f"{path}: tensor {key[:120]!r} of shape {tensor.shape} belongs to no pair of "
                "lora_A and lora_B; only those are supported"
            )
        values = tensor.float32()
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {key[:120]!r} holds NaN or infinite values")
        found[match["module"], match["side"]] = values
    if not found:
        raise ValueError(f"{path}: holds no tensors")
    return found


def _canonical(modules: list[str], known: str, path: Path) -> dict[str, str]:
    """Module -> name of its pair, by the architecture that is `known`, else by whichever knows all.

    Adapters of a model without its head leave the first word ("model.") out.
    """
    wanted, most = dict.fromkeys(modules), dict[str, list[str]]()
    for name in [known] if known in ARCHITECTURES else sorted(ARCHITECTURES):
        table = architecture(name).TENSORS
        for prefix in ("", table["embedding"].split(".")[0] + "."):
            stored = canonical_names(table, (f"{prefix}{module}.weight" for module in wanted))
            back: dict[str, list[str]] = {}
            for ours, theirs in stored.items():
                module = theirs.removeprefix(prefix).removesuffix(".weight")
                back.setdefault(module, []).append(ours)
            if len(back) == len(wanted):
                _refuse_ends(back, path)
                return {module: joint_name(back[module]) for module in wanted}
            most = max(most, back, key=len)
    unknown = next(module for module in wanted if module not in most)
    raise ValueError(
        f"{path}: no architecture of this build has a matrix {unknown[:120]!r}; known are "
        f"{', '.join(sorted(ARCHITECTURES))}"
    )


def _refuse_ends(names: Mapping[str, list[str]], path: Path) -> None:
    for module, (name, *_) in names.items():
        if not name.startswith("layers.") or name.endswith("_norm"):
            raise ValueError(
                f"{path}: {module} is adapted; only the linear layers between embedding and head "
                "can be"
            )


def _check_pair(path: Path, module: str, a: Floats, b: Floats, rank: int, most: int) -> None:
    if a.shape[0] != b.shape[1]:
        raise ValueError(f"{path}: {module} has lora_A of {a.shape} and lora_B of {b.shape}")
    if a.shape[0] != rank:
        raise ValueError(f"{path}: {module} has rank {a.shape[0]}, {peft_config.NAME} says {rank}")
    if rank > most:
        raise ValueError(f"{path}: {module} has rank {rank}; at most {most} are supported")
