"""GGUF files: F32, F16, BF16, Q8_0, Q4_0 or Q4_1.

From a GGUF file all its keys and foreign tensors are taken over, so that the new file says of
itself what the old one did. From a Hugging Face directory they are written as llama.cpp reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.checkpoints import RawTensor, _kinds
from engine.checkpoints._gguf_file import raw_metadata
from engine.checkpoints._gguf_metadata import INTERLEAVED_ROPE
from engine.checkpoints._names import by_stored
from engine.checkpoints._parts import joined
from engine.checkpoints.gguf import TENSORS, GGUFCheckpoint, fused
from engine.export import floats, gguf_file
from engine.export.gguf_keys import family_of, keys_of, vectors_of
from engine.export.source import Source

Progress = Callable[[str, float], None]

# format: kind of matrices, and general.file_type
FORMATS = {
    "f32": ("F32", 0),
    "f16": ("F16", 1),
    "bf16": ("BF16", 32),
    "q8_0": ("Q8_0", 7),
    "q4_0": ("Q4_0", 2),
    "q4_1": ("Q4_1", 3),
}
_BLOCK = 32  # numbers that share a scale


class _Tensor(NamedTuple):
    """What is to stand in the file: canonical tensors, one after another, by their rows."""

    stored: str
    names: Sequence[str]
    shape: tuple[int, ...]
    kind: str


def write_file(
    out: BinaryIO, source: Source, format_name: str, name: str, on_progress: Progress | None = None
) -> None:
    """name: general.name of a file that is not made from one. ValueError for what GGUF has no words
    for."""
    report = on_progress or (lambda stage, fraction: None)
    kind, file_type = FORMATS[format_name]
    if isinstance(source.checkpoint, GGUFCheckpoint):
        tensors = _as_in(source.checkpoint, source, kind)
        foreign = _foreign(source.checkpoint, tensors)
        keys = raw_metadata(source.checkpoint.path)
        if "general.alignment" in keys:
            keys["general.alignment"] = gguf_file.encoded("general.alignment", gguf_file.ALIGNMENT)
        neighbours = source.config.rope.interleaved
    else:
        tensors = _as_llama_cpp(source, kind)
        foreign = [_vector(*item) for item in vectors_of(source.config).items()]
        raw = {t.stored: RawTensor(t.stored, t.shape, t.kind, _NOTHING) for t in tensors}
        written = keys_of(source, name, raw | {tensor.name: tensor for tensor in foreign})
        keys = {key: gguf_file.encoded(key, value) for key, value in written.items()}
        neighbours = family_of(source.config).name in INTERLEAVED_ROPE
    for key, value in (("general.file_type", file_type), ("general.quantization_version", 2)):
        keys[key] = gguf_file.encoded(key, value)
    entries = [_entry(source, tensor, kind, neighbours) for tensor in tensors]
    entries += [_entry_of(tensor.name, tensor) for tensor in foreign]
    gguf_file.write(out, keys, entries, partial(report, "writing weights"))


_NOTHING: NDArray[np.uint8] = np.empty(0, np.uint8)


def _as_in(checkpoint: GGUFCheckpoint, source: Source, kind: str) -> list[_Tensor]:
    """The tensors of a file that the decoder needs, fused where they are."""
    needed = (item for item in checkpoint.parts.items() if all(n in source.shapes for n in item[1]))
    return [_tensor(source, stored, names, kind) for stored, names in needed]


def _as_llama_cpp(source: Source, kind: str) -> list[_Tensor]:
    """As its converters write them."""
    family, shapes = family_of(source.config), source.shapes
    table = TENSORS | fused(family.fused)
    wanted = dict.fromkeys(shapes)
    for i in range(source.config.n_layers):
        wanted |= dict.fromkeys(f"layers.{i}.{matrix}.bias" for matrix in family.biases)
    if family.head == "own":
        wanted["head"] = None
    return [
        _tensor(source, stored, names, kind) for stored, names in by_stored(table, wanted).items()
    ]


def _tensor(source: Source, stored: str, names: Sequence[str], kind: str) -> _Tensor:
    shapes = [_shape(source, name) for name in names]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return _Tensor(stored, names, shape, kind_of(names[0], shape, kind))


def _shape(source: Source, name: str) -> tuple[int, ...]:
    """Of a tensor of the decoder, or of what llama.cpp wants beside."""
    if name in source.shapes:
        return source.shapes[name]
    matrix = "embedding" if name == "head" else name.removesuffix(".bias")
    shape = source.shapes[matrix]
    return shape if name == "head" else shape[:1]


def kind_of(name: str, shape: tuple[int, ...], kind: str) -> str:
    """What a tensor is stored as where matrices are `kind`."""
    if len(shape) == 1 or name == "position_embedding":
        return "F32"
    if kind.startswith("Q4") and name in ("embedding", "head"):
        kind = "Q8_0"  # 4 bits cost most where each row is a token
    return "F16" if kind.startswith("Q") and shape[1] % _BLOCK else kind


def _entry(source: Source, tensor: _Tensor, kind: str, neighbours: bool) -> gguf_file.Entry:
    as_it_is = _as_it_is(source, tensor, kind)
    if as_it_is is not None:
        return _entry_of(tensor.stored, as_it_is)
    n_bytes = _n_bytes(tensor.shape, tensor.kind)
    make = partial(_made, source, tensor, neighbours)
    type_id = gguf_file.TYPE_IDS[tensor.kind]
    return gguf_file.Entry(tensor.stored, tensor.shape, type_id, n_bytes, make)


def _as_it_is(source: Source, tensor: _Tensor, kind: str) -> RawTensor | None:
    """The checkpoint's own tensor where nothing would change it but its being made anew."""
    checkpoint = source.checkpoint
    if not isinstance(checkpoint, GGUFCheckpoint) or any(map(source.is_changed, tensor.names)):
        return None
    own = checkpoint.stored_tensors[tensor.stored]
    if own.shape != tensor.shape:
        return None  # the error is made where it is read
    smaller = tensor.names[0] in ("embedding", "head") and kind.startswith("Q4")
    fits = smaller and own.kind[0] == "Q" and own.data.size <= _n_bytes(own.shape, tensor.kind)
    return own if own.kind == tensor.kind or fits else None


def _n_bytes(shape: tuple[int, ...], kind: str) -> int:
    found = _kinds.by_name(kind)
    assert found is not None
    return prod(shape) // found.n_weights * found.n_bytes


def _made(source: Source, tensor: _Tensor, neighbours: bool) -> NDArray[np.uint8]:
    values = joined([_values(source, name, neighbours) for name in tensor.names])
    if tensor.kind in floats.N_BYTES:
        try:
            return floats.packed(values, tensor.kind)
        except OverflowError as error:
            raise ValueError(f"{tensor.stored}: {error}; write f32 or bf16") from None
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    quantised: NDArray[np.uint8] = quantize(values, GGMLQuantizationType[tensor.kind])
    return quantised.reshape(-1)


def _values(source: Source, name: str, neighbours: bool) -> NDArray[np.float32]:
    if name in source.shapes:
        return source.tensor(name, neighbours)
    if name == "head":
        return source.tensor("embedding", neighbours)
    return np.zeros(_shape(source, name), np.float32)


def _vector(name: str, values: NDArray[np.float32]) -> RawTensor:
    return RawTensor(name, values.shape, "F32", values.view(np.uint8))


def _foreign(checkpoint: GGUFCheckpoint, tensors: Sequence[_Tensor]) -> list[RawTensor]:
    """What else a GGUF file has."""
    ours = {tensor.stored for tensor in tensors}
    return [raw for name, raw in checkpoint.stored_tensors.items() if name not in ours]


def _entry_of(name: str, tensor: RawTensor) -> gguf_file.Entry:
    type_id = _type_id(tensor.kind)
    return gguf_file.Entry(name, tensor.shape, type_id, tensor.data.size, lambda: tensor.data)


def _type_id(kind: str) -> int:
    if kind in gguf_file.TYPE_IDS:
        return gguf_file.TYPE_IDS[kind]
    from gguf.constants import GGMLQuantizationType

    return int(GGMLQuantizationType[kind])
