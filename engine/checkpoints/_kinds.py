"""How numbers are stored: the sizes of ggml's types and their values as float32.

Six kinds are read here, so that common files never need the gguf package (50 ms to import); all
others go through that package's dequantiser. A block is a run of weights that share a scale.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

SLAB = 1 << 18  # weights decoded at once: 1 MB of float32 and some MB of temporaries


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    n_weights: int  # per block
    n_bytes: int  # per block


NATIVE = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    8: Kind("Q8_0", 32, 34),
    30: Kind("BF16", 1, 2),
}
_BY_NAME = {kind.name: kind for kind in NATIVE.values()}

_Q4_0 = np.dtype([("d", "<f2"), ("q", "u1", (16,))])
_Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", (16,))])
_Q8_0 = np.dtype([("d", "<f2"), ("q", "i1", (32,))])

if sys.byteorder != "little":
    raise ImportError("checkpoints are little-endian and mapped as they are; this machine is not")


@cache
def _from_gguf_package() -> dict[int, Kind]:
    from gguf.constants import GGML_QUANT_SIZES

    return {int(t): Kind(t.name, *GGML_QUANT_SIZES[t]) for t in GGML_QUANT_SIZES}


def by_id(type_id: int) -> Kind | None:
    """The kind that a GGUF file calls `type_id`; None when there is no such type."""
    return NATIVE.get(type_id) or _from_gguf_package().get(type_id)


def by_name(name: str) -> Kind | None:
    return _BY_NAME.get(name) or {k.name: k for k in _from_gguf_package().values()}.get(name)


def float32(
    data: npt.NDArray[np.uint8], name: str, start: int, stop: int
) -> npt.NDArray[np.float32]:
    """Weights [start, stop) of a tensor's bytes. data (n_bytes,) uint8 → (stop - start,) float32.

    A read-only view of `data` when it holds float32 already and is aligned, else a new array.
    """
    kind = by_name(name)
    if kind is None:
        raise ValueError(f"stored as {name}, which is not a type this build reads")
    if kind.name == "F32":
        view = data[start * 4 : stop * 4].view(np.float32)
        return view if view.flags.aligned else view.copy()
    first, last = start // kind.n_weights, -(-stop // kind.n_weights)
    blocks = data[first * kind.n_bytes : last * kind.n_bytes]
    out = np.empty((last - first) * kind.n_weights, dtype=np.float32)
    step = max(1, SLAB // kind.n_weights)
    # hostile scales are NaN or infinite: the values are passed on, the warnings are not
    with np.errstate(all="ignore"):
        for at in range(0, last - first, step):
            slab = blocks[at * kind.n_bytes : (at + step) * kind.n_bytes]
            out[at * kind.n_weights : (at + step) * kind.n_weights] = _decode(slab, kind.name)
    offset = first * kind.n_weights
    return out[start - offset : stop - offset]


def _decode(slab: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.float32]:
    """Whole blocks, one after the other: (n_bytes,) uint8 → (n_weights,) float32."""
    if name == "F16":
        return slab.view(np.float16).astype(np.float32)
    if name == "BF16":
        return (slab.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if name == "Q8_0":
        q8 = slab.view(_Q8_0)
        return _flat(q8["d"].astype(np.float32)[:, None] * q8["q"])
    if name == "Q4_0":
        q4 = slab.view(_Q4_0)
        return _flat(q4["d"].astype(np.float32)[:, None] * (_nibbles(q4["q"]) - np.float32(8)))
    if name == "Q4_1":
        q4 = slab.view(_Q4_1)
        scale, least = q4["d"].astype(np.float32), q4["m"].astype(np.float32)
        return _flat(scale[:, None] * _nibbles(q4["q"]) + least[:, None])
    return _decode_with_gguf_package(slab, name)


def _nibbles(q: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(n, 16) bytes → (n, 32): the low halves of all bytes, then the high ones."""
    out = np.empty((len(q), 32), dtype=np.float32)
    out[:, :16] = q & 0x0F
    out[:, 16:] = q >> 4
    return out


def _decode_with_gguf_package(slab: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.float32]:
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        # one row: the package works through groups of 16 rows in a Python loop
        values = dequantize(slab.reshape(1, -1), GGMLQuantizationType[name])
    except NotImplementedError:
        raise ValueError(f"stored as {name}, which the gguf package cannot dequantise") from None
    return _flat(values)


def _flat(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).ravel()
