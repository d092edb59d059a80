"""GGUF files for benchmarks: the same model in another block format, and shapes without a model.

Both are made once and kept in the cache folder. The peer gets the very file that we read.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import bench_dir
from benchmarks.shapes import SHAPES, Shape, keys, tensors

KINDS = ("Q4_0", "Q8_0")
_FILE_TYPES = {"Q4_0": 2, "Q8_0": 7}  # general.file_type: what most tensors are


def kind_of(path: Path) -> str:
    """The block format that most bytes of a GGUF file are in, as "Q4_1"."""
    from gguf import GGUFReader

    sizes: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    return sizes.most_common(1)[0][0]


def requantised(source: Path, kind: str) -> Path:
    """The model of `source` with its matrices in `kind`, quantised by the gguf package.

    Metadata are copied. The token embedding and the head are Q8_0, as is usual for 4-bit files of
    small models. The weights are those of the dequantised source, so a second loss is in them:
    good for speed and for comparing two programs on one file, not for judging a format.
    """
    target = _models_dir() / f"{source.stem}-{_digest(source)}.{kind}.gguf"
    if not target.exists():
        _write(target, lambda part: _requantise(source, kind, part))
    return target


def of_shape(name: str, kind: str = "Q4_0") -> Path:
    """A file of the named shape with random weights and no tokenizer."""
    target = _models_dir() / f"{name}.{kind}.gguf"
    if not target.exists():
        _write(target, lambda part: _random(SHAPES[name], kind, part))
    return target


def _models_dir() -> Path:
    folder = bench_dir() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(target: Path, make: Callable[[Path], None]) -> None:
    part = target.with_suffix(f".part{os.getpid()}")
    try:
        make(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _is_table(name: str) -> bool:
    return name in ("token_embd.weight", "output.weight")


def _requantise(source: Path, kind: str, target: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFReader
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(source)
    plan = []
    for tensor in reader.tensors:
        n_in, old = int(tensor.shape[0]), tensor.tensor_type
        block = len(tensor.shape) == 2 and n_in % 32 == 0
        new = GGMLQuantizationType["Q8_0" if _is_table(tensor.name) else kind] if block else old
        plan.append((tensor.name, [int(n) for n in reversed(tensor.shape)], new))

    def arrays() -> Iterator[NDArray[Any]]:
        for tensor, (_, _, new) in zip(reader.tensors, plan, strict=True):
            if new == tensor.tensor_type:
                yield np.ascontiguousarray(tensor.data)
            else:
                values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
                yield quantize(values, new)

    _write_gguf(target, _metadata(reader, _FILE_TYPES[kind]), plan, arrays())


def _metadata(reader: Any, file_type: int) -> list[tuple[str, Any, Any, Any]]:
    """(key, value, type, type of an array's items) of all keys, file_type set to its new value."""
    from gguf import GGUFValueType

    fields = []
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):  # the reader's own view of the file's header
            continue
        items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        value = file_type if field.name == "general.file_type" else field.contents()
        fields.append((field.name, value, field.types[0], items))
    return fields


def _random(shape: Shape, kind: str, target: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFValueType

    types = GGMLQuantizationType
    plan = [
        (name, size, types.F32 if len(size) == 1 else types["Q8_0" if _is_table(name) else kind])
        for name, size in tensors(shape).items()
    ]
    text, uint = GGUFValueType.STRING, GGUFValueType.UINT32
    kinds = {int: uint, float: GGUFValueType.FLOAT32, bool: GGUFValueType.BOOL}
    fields: list[tuple[str, Any, Any, Any]] = [
        ("general.architecture", shape.architecture, text, None),
        ("general.file_type", _FILE_TYPES[kind], uint, None),
        ("tokenizer.ggml.model", "no_vocab", text, None),
    ]
    for key, value in keys(shape).items():
        fields.append((f"{shape.architecture}.{key}", value, kinds[type(value)], None))
    rng = np.random.default_rng(0)
    arrays = (_random_tensor(rng, name, size, new.name) for name, size, new in plan)
    _write_gguf(target, fields, plan, arrays)


def _random_tensor(rng: np.random.Generator, name: str, size: list[int], kind: str) -> NDArray[Any]:
    """Norms are ones and biases zeros; blocks get random integers and a scale that keeps
    activations finite."""
    if len(size) == 1:
        return np.full(size, 0.0 if name.endswith(".bias") else 1.0, np.float32)
    n_out, n_in = size
    n_integers = {"Q4_0": 16, "Q8_0": 32}[kind]  # bytes of integers after the 2 of the scale
    step = {"Q4_0": 4.6, "Q8_0": 74.0}[kind]  # standard deviation of uniform integers
    blocks = rng.integers(0, 256, (n_out, n_in // 32, 2 + n_integers), np.uint8)
    scale = np.float16(1 / (step * np.sqrt(n_in)))
    blocks[:, :, :2] = np.frombuffer(scale.tobytes(), np.uint8)
    return blocks.reshape(n_out, -1)


def _write_gguf(
    target: Path,
    fields: list[tuple[str, Any, Any, Any]],
    plan: list[tuple[str, list[int], Any]],
    arrays: Iterator[NDArray[Any]],
) -> None:
    """Header first, then one tensor after another: a model need not fit in memory twice."""
    from gguf import GGUFWriter
    from gguf.constants import GGML_QUANT_SIZES

    architecture = next(value for key, value, *_ in fields if key == "general.architecture")
    writer = GGUFWriter(target, architecture)
    for key, value, kind, items in fields:
        if key != "general.architecture":  # the writer puts it in by itself
            writer.add_key_value(key, value, kind, items)
    for name, size, kind in plan:
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        n_bytes = int(np.prod(size)) // per_block * block_bytes
        writer.add_tensor_info(name, size, np.dtype(np.float32), n_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for array in arrays:
        writer.write_tensor_data(array)
    writer.close()
