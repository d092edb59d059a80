"""GGUF files: F32, F16, BF16, Q8_0, Q4_0 or Q4_1.

From a GGUF file all its keys and foreign tensors are taken over, so that the new file says of
itself what the old one did. From a Hugging Face directory they are written as llama.cpp reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine.checkpoints import RawTensor, _kinds
from engine.checkpoints._gguf_file import raw_metadata
from engine.checkpoints._gguf_metadata import INTERLEAVED_ROPE
from engine.checkpoints.gguf import TENSORS, GGUFCheckpoint
from engine.export import floats, gguf_file
from engine.export.gguf_keys import ARCHITECTURES, frequency_divisors, keys_of
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


def write_file(
    out: BinaryIO, source: Source, format_name: str, name: str, on_progress: Progress | None = None
) -> None:
    """name: general.name of a file that is not made from one. ValueError for what GGUF has no words
    for."""
    report = on_progress or (lambda stage, fraction: None)
    kind, file_type = FORMATS[format_name]
    if isinstance(source.checkpoint, GGUFCheckpoint):
        keys = raw_metadata(source.checkpoint.path)
        if "general.alignment" in keys:
            keys["general.alignment"] = gguf_file.encoded("general.alignment", gguf_file.ALIGNMENT)
        neighbours = source.config.rope.interleaved
    else:
        keys = {key: gguf_file.encoded(key, value) for key, value in keys_of(source, name).items()}
        neighbours = ARCHITECTURES[source.config.architecture] in INTERLEAVED_ROPE
    for key, value in (("general.file_type", file_type), ("general.quantization_version", 2)):
        keys[key] = gguf_file.encoded(key, value)
    entries = [*_entries(source, kind, neighbours), *_foreign(source)]
    gguf_file.write(out, keys, entries, partial(report, "writing weights"))


def kind_of(source: Source, name: str, kind: str) -> str:
    """What a tensor is stored as where matrices are `kind`."""
    shape = source.shapes[name]
    if len(shape) == 1:
        return "F32"
    if kind.startswith("Q4") and name in ("embedding", "head"):
        kind = "Q8_0"  # 4 bits cost most where each row is a token
    return "F16" if kind.startswith("Q") and shape[1] % _BLOCK else kind


def _entries(source: Source, kind: str, neighbours: bool) -> Iterator[gguf_file.Entry]:
    for name, shape in source.shapes.items():
        stored, wanted = _stored_name(name), kind_of(source, name, kind)
        as_it_is = _as_it_is(source, name, kind, neighbours)
        if as_it_is is not None:
            type_id = _type_id(as_it_is.kind)
            yield gguf_file.Entry(
                stored, shape, type_id, as_it_is.data.size, partial(_bytes_of, as_it_is)
            )
            continue
        n_bytes = _n_bytes(shape, wanted)
        make = partial(_made, source, name, wanted, neighbours)
        yield gguf_file.Entry(stored, shape, gguf_file.TYPE_IDS[wanted], n_bytes, make)


def _as_it_is(source: Source, name: str, kind: str, neighbours: bool) -> RawTensor | None:
    """The checkpoint's own tensor where nothing would change it but its being made anew."""
    wanted = kind_of(source, name, kind)
    is_gguf = isinstance(source.checkpoint, GGUFCheckpoint)
    if not is_gguf or source.is_changed(name) or source.config.rope.interleaved != neighbours:
        return None
    tensor = source.checkpoint.tensor(name)
    smaller = name in ("embedding", "head") and kind.startswith("Q4") and tensor.kind[0] == "Q"
    fits = smaller and tensor.data.size <= _n_bytes(tensor.shape, wanted)
    return tensor if tensor.kind == wanted or fits else None


def _n_bytes(shape: tuple[int, ...], kind: str) -> int:
    found = _kinds.by_name(kind)
    assert found is not None
    return prod(shape) // found.n_weights * found.n_bytes


def _made(source: Source, name: str, kind: str, neighbours: bool) -> NDArray[np.uint8]:
    values = source.tensor(name, neighbours)
    if kind in floats.N_BYTES:
        try:
            return floats.packed(values, kind)
        except OverflowError as error:
            raise ValueError(f"{_stored_name(name)}: {error}; write f32 or bf16") from None
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    quantised: NDArray[np.uint8] = quantize(values, GGMLQuantizationType[kind])
    return quantised.reshape(-1)


def _foreign(source: Source) -> Iterator[gguf_file.Entry]:
    """Tensors that are no weights of the decoder: the divisors of rotary frequencies, or what else
    a GGUF file has."""
    checkpoint = source.checkpoint
    if not isinstance(checkpoint, GGUFCheckpoint):
        divisors = frequency_divisors(source.config)
        if divisors is not None:
            data = divisors.view(np.uint8)
            yield gguf_file.Entry("rope_freqs.weight", divisors.shape, 0, data.size, lambda: data)
        return
    ours = {_stored_name(name) for name in source.shapes}
    for name, tensor in checkpoint.stored_tensors.items():
        if name not in ours:
            size, type_id = tensor.data.size, _type_id(tensor.kind)
            yield gguf_file.Entry(name, tensor.shape, type_id, size, partial(_bytes_of, tensor))


def _bytes_of(tensor: RawTensor) -> NDArray[np.uint8]:
    return tensor.data


def _type_id(kind: str) -> int:
    if kind in gguf_file.TYPE_IDS:
        return gguf_file.TYPE_IDS[kind]
    from gguf.constants import GGMLQuantizationType

    return int(GGMLQuantizationType[kind])


def _stored_name(name: str) -> str:
    if not name.startswith("layers."):
        return TENSORS[name]
    _, layer, rest = name.split(".", 2)
    return TENSORS[f"layers.{{i}}.{rest}"].format(i=layer)
