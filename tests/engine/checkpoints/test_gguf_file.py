"""engine/checkpoints/_gguf_file.py: files that lie about themselves, built byte by byte."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

from engine.checkpoints._gguf_file import read_gguf
from engine.checkpoints.gguf import open_path

Q8_0 = int(GGMLQuantizationType.Q8_0)
U32, BOOL, STRING, ARRAY = 4, 7, 8, 9


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def array(item_type: int, *items: bytes, count: int | None = None) -> bytes:
    n = len(items) if count is None else count
    return struct.pack("<IQ", item_type, n) + b"".join(items)


def key(name: str | bytes, type_id: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", type_id) + value


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def tensor(
    name: str | bytes, dims: Sequence[int], type_id: int = 0, offset: int = 0, n_dims: int = -1
) -> bytes:
    n_dims = len(dims) if n_dims < 0 else n_dims
    return (
        text(name)
        + u32(n_dims)
        + b"".join(struct.pack("<Q", n) for n in dims)
        + struct.pack("<IQ", type_id, offset)
    )


def gguf_bytes(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    counts: tuple[int, int] | None = None,
    head: bytes = b"GGUF\x03\0\0\0",
) -> bytes:
    arch = key("general.architecture", STRING, text("llama"))
    n_tensors, n_keys = counts or (len(tensors), len(keys) + 1)
    raw = head + struct.pack("<QQ", n_tensors, n_keys) + arch + b"".join([*keys, *tensors])
    return raw + bytes(-len(raw) % 32) + data if tensors else raw


def nested_arrays(depth: int) -> bytes:
    return struct.pack("<IQ", ARRAY, 1) * depth + array(U32, u32(7))


KIB = bytes(1024)
LIES = {
    "no bytes": (b"", "an empty file"),
    "html": (b"<!DOCTYPE html>", "not a GGUF file: it begins with b'<!DO'"),
    "big-endian": (gguf_bytes(head=b"GGUF\0\0\0\3"), "a big-endian GGUF file"),
    "version 1": (gguf_bytes(head=b"GGUF\1\0\0\0"), "GGUF version 1; this build reads versions 2"),
    "version 4": (gguf_bytes(head=b"GGUF\4\0\0\0"), "GGUF version 4"),
    "2**60 tensors": (gguf_bytes(counts=(2**60, 1)), "claims 1,152,921,504,606,846,976 tensors"),
    "2**60 keys": (gguf_bytes(counts=(0, 2**60)), "claims 1,152,921,504,606,846,976 keys"),
    "60,000 keys": (gguf_bytes(counts=(0, 60_000)), "ends inside key 1: 8 bytes wanted"),
    "60,000 tensors": (gguf_bytes(counts=(60_000, 1)), "ends inside the name of tensor 0"),
    "empty key": (gguf_bytes([key("", U32, u32(0))]), "key 1 is 0 bytes long, 1 to 65,535"),
    "long key": (
        gguf_bytes([struct.pack("<Q", 2**62)]),
        "key 1 is 4,611,686,018,427,387,904 bytes long",
    ),
    "key not UTF-8": (gguf_bytes([key(b"\xff\xfe", U32, u32(0))]), "key 1 is not UTF-8"),
    "key twice": (
        gguf_bytes([key("a\nb", U32, u32(0)), key("a\nb", U32, u32(0))]),
        r"key 'a\nb' stands there twice",
    ),
    "value type 13": (gguf_bytes([key("a", 13, u32(0))]), "a has type 13; GGUF has types 0 to 12"),
    "bool 2": (gguf_bytes([key("a", BOOL, b"\2")]), "a must be 0 or 1, got 2"),
    "long string": (gguf_bytes([key("a", STRING, struct.pack("<Q", 2**63))]), "ends inside a: "),
    "long array": (gguf_bytes([key("a", ARRAY, array(U32, count=2**62))]), "ends inside a: "),
    "long array of strings": (
        gguf_bytes([key("a", ARRAY, array(STRING, count=2**61))]),
        "a claims 2,305,843,009,213,693,952 items",
    ),
    "long string in an array": (
        gguf_bytes([key("a", ARRAY, array(STRING, text("x"), struct.pack("<Q", 2**63)))]),
        "ends inside a",
    ),
    "array of type 13": (gguf_bytes([key("a", ARRAY, array(13))]), "a has items of type 13"),
    "arrays in arrays": (
        gguf_bytes([key("a", ARRAY, nested_arrays(2000))]),
        "a[0][0][0] nests arrays more than 3 deep",
    ),
    "alignment 0": (
        gguf_bytes([key("general.alignment", U32, u32(0))]),
        "general.alignment is 0; a power of two up to 1,048,576",
    ),
    "alignment 33": (gguf_bytes([key("general.alignment", U32, u32(33))]), "alignment is 33;"),
    "alignment 2**31": (
        gguf_bytes([key("general.alignment", U32, u32(2**31))]),
        "alignment is 2147483648;",
    ),
    "alignment in words": (
        gguf_bytes([key("general.alignment", STRING, text("wide"))]),
        "alignment is 'wide';",
    ),
    "no dimensions": (gguf_bytes(tensors=[tensor("w", ())], data=KIB), "has 0 dimensions"),
    "65 dimensions": (
        gguf_bytes(tensors=[tensor("w", (1,) * 65)], data=KIB),
        "tensor 'w' has 65 dimensions, 1 to 4 are allowed",
    ),
    "2**32 - 1 dimensions": (
        gguf_bytes(tensors=[tensor("w", (1,), n_dims=2**32 - 1)], data=KIB),
        "tensor 'w' has 4,294,967,295 dimensions",
    ),
    "2**63 weights": (
        gguf_bytes(tensors=[tensor("w", (2**63,))], data=KIB),
        "tensor 'w' of shape (9223372036854775808,) ends at byte 36,893,488,147,419,103,360",
    ),
    # modulo 2**64 these are 4 weights
    "product wraps around": (
        gguf_bytes(tensors=[tensor("w", (4194305, 4194305, 211106198978564))], data=KIB),
        "tensor 'w' of shape (211106198978564, 4194305, 4194305) ends at byte ",
    ),
    "offset wraps around": (
        gguf_bytes(tensors=[tensor("w", (4,), offset=2**64 - 32)], data=KIB),
        "tensor 'w' of shape (4,) ends at byte 18,446,744,073,709,551,",
    ),
    "empty tensor": (gguf_bytes(tensors=[tensor("w", (0, 4))], data=KIB), "'w' is empty"),
    "tensor type 31": (
        gguf_bytes(tensors=[tensor("w", (32,), 31)], data=KIB),
        "tensor 'w' has type 31, which is not a type this build knows",
    ),
    "half a block": (
        gguf_bytes(tensors=[tensor("w", (48, 2), Q8_0)], data=KIB),
        "tensor 'w' has rows of 48 weights, not a multiple of Q8_0's block of 32",
    ),
    "misaligned": (
        gguf_bytes(tensors=[tensor("w", (4,), offset=8)], data=KIB),
        "tensor 'w' lies at 8, not a multiple of 32",
    ),
    "overlap": (
        gguf_bytes(tensors=[tensor("w", (9,)), tensor("v", (4,), offset=32)], data=KIB),
        "tensor 'v' overlaps tensor 'w'",
    ),
    "tensor twice": (
        gguf_bytes(tensors=[tensor("w", (4,)), tensor("w", (4,), offset=32)], data=KIB),
        "tensor 'w' stands there twice",
    ),
    "long tensor name": (
        gguf_bytes(tensors=[tensor("w" * 65, (4,))], data=KIB),
        "the name of tensor 0 is 65 bytes long, 1 to 64 are allowed",
    ),
    "architecture is a number": (
        gguf_bytes().replace(
            key("general.architecture", STRING, text("llama")),
            key("general.architecture", U32, u32(1)),
        ),
        "general.architecture must be a name, got 1",
    ),
}


@pytest.mark.parametrize(("raw", "message"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused_with_one_line_and_little_memory(
    tmp_path: Path, raw: bytes, message: str
) -> None:
    path = tmp_path / "lies.gguf"
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            open_path(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line
    assert peak < 1 << 20


def test_the_same_bytes_without_a_lie_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    keys = [key("list", ARRAY, array(ARRAY, array(STRING, text("a")), array(BOOL, b"\1")))]
    tensors = [tensor("w", (4, 2)), tensor("v", (64,), Q8_0, offset=32)]
    path.write_bytes(gguf_bytes(keys, tensors, bytes(32 + 68)))
    file = read_gguf(path)
    assert dict(file.metadata) == {"general.architecture": "llama", "list": [["a"], [True]]}
    assert file.tensors["w"].shape == (2, 4)
    assert file.tensors["v"].kind == "Q8_0"
    assert len(file.tensors["v"].data) == 68
