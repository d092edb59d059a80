"""engine/checkpoints/_safetensors.py: headers that lie, and headers that do not."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from engine.checkpoints._safetensors import read_safetensors


def safetensors_bytes(header: object, data: bytes = b"", n_header: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if n_header is None else n_header) + raw + data


def entry(
    start: object = 0, stop: object = 16, shape: object = (4,), dtype: object = "F32"
) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


N16 = bytes(16)
LIES = {
    "7 bytes": (bytes(7), "7 bytes, a safetensors file has at least 8"),
    "header of 2**63": (
        safetensors_bytes({}, n_header=2**63),
        "claims a header of 9,223,372,036,854,775,808 bytes",
    ),
    "header beyond the file": (safetensors_bytes({}, n_header=3), "claims a header of 3 bytes"),
    "no JSON": (safetensors_bytes(b"{'a'}"), "header: not JSON at line 1, column 2"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "the header is not UTF-8"),
    "a list": (safetensors_bytes([]), "header: a JSON object is needed, got list"),
    "deep": (safetensors_bytes(b'{"a":' + b"[" * 100_000), "header: JSON nested too deeply"),
    "long number": (safetensors_bytes(b'{"a":' + b"9" * 5000 + b"}"), "header: Exceeds the limit"),
    "key twice": (
        safetensors_bytes(b'{"a": 1, "b": 2, "a": 3}'),
        "header: key 'a' stands there twice",
    ),
    "entry is a number": (safetensors_bytes({"w": 3}), "'w' has no data_offsets of two whole"),
    "no offsets": (safetensors_bytes({"w": {}}), "'w' has no data_offsets of two whole"),
    "negative": (safetensors_bytes({"w": entry(-4, 12)}, N16), "'w' has no data_offsets of two"),
    "fractions": (safetensors_bytes({"w": entry(0.5, 16)}, N16), "'w' has no data_offsets of"),
    "booleans": (safetensors_bytes({"w": entry(False, 16)}, N16), "'w' has no data_offsets of"),
    "backwards": (safetensors_bytes({"w": entry(16, 0)}, N16), "'w' lies at 16 to 0 of 16 bytes"),
    "beyond the file": (safetensors_bytes({"w": entry(4, 20)}, N16), "'w' lies at 4 to 20 of 16"),
    "2**60": (safetensors_bytes({"w": entry(0, 2**60)}, N16), "'w' has no data_offsets of two"),
    "overlap": (
        safetensors_bytes({"w": entry(0, 16), "v": entry(12, 28)}, bytes(28)),
        "tensor 'v' overlaps tensor 'w'",
    ),
    "shape too large": (
        safetensors_bytes({"w": entry(shape=[5])}, N16),
        "tensor 'w' of shape (5,) in F32 has 16 bytes instead of 20",
    ),
    # modulo 2**64 these are 4 weights
    "product wraps around": (
        safetensors_bytes({"w": entry(shape=[4194305, 4194305, 211106198978564])}, N16),
        "tensor 'w' of shape (4194305, 4194305, 211106198978564) in F32 has 16 bytes instead of ",
    ),
    "65 dimensions": (
        safetensors_bytes({"w": entry(shape=[1] * 65)}, N16),
        "tensor 'w' has no shape of at most 8 whole numbers",
    ),
    "shape in words": (safetensors_bytes({"w": entry(shape="4")}, N16), "'w' has no shape of"),
    "dtype is a number": (safetensors_bytes({"w": entry(dtype=4)}, N16), "'w' has no dtype"),
}


@pytest.mark.parametrize(("raw", "message"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused_with_one_line(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ValueError) as error:
        read_safetensors(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line


def test_a_header_of_odd_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = json.dumps({"w": entry(), "e": entry(16, 16, [0])})
    header += " " * (1 - len(header) % 2)
    values = np.arange(4, dtype=np.float32)
    path.write_bytes(safetensors_bytes(header.encode(), values.tobytes()))
    tensors = read_safetensors(path)
    assert_array_equal(tensors["w"].float32(), values)
    assert tensors["e"].shape == (0,)
