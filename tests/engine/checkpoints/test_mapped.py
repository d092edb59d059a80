"""Memory of mapped files: taken as they are read, given back on request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoints import RawTensor, _mapped, open_checkpoint
from engine.weights import load_weights

ROWS = 16384  # of 64 float32: 4 MB a matrix

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is in memory")


@pytest.fixture
def large(write_gguf: Callable[..., Path]) -> Path:
    """A GGUF file with a matrix of 4 MB."""
    from tests.engine.checkpoints.conftest import llama_tensors

    tensors = llama_tensors(np.random.default_rng(0))
    tensors["token_embd.weight"] = np.ones((ROWS, 64), np.float32)
    return write_gguf(None, tensors)


def resident_kb(path: Path) -> int:
    """Of a mapped file."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            here = words[-1] == str(path)
        elif here and words[0] == "Rss:":
            found += int(words[1])
    return found


@linux
def test_released_tensor_leaves_memory_and_reads_the_same_again(large: Path) -> None:
    tensor = open_checkpoint(large).tensor("embedding")
    before = tensor.float32().copy()
    assert resident_kb(large) > 4000
    tensor.release()
    assert resident_kb(large) < 1000
    assert (tensor.float32() == before).all()


@linux
def test_packing_leaves_nothing_of_the_file_in_memory(large: Path) -> None:
    checkpoint = open_checkpoint(large)
    load_weights(checkpoint, checkpoint.decoder_config(), "q8", large.with_name("packed"))
    assert resident_kb(large) < 1000


def test_release_of_memory_that_is_not_mapped_does_nothing() -> None:
    data = np.arange(40, dtype=np.uint8)
    RawTensor("own", (10,), "F32", data).release()
    RawTensor("bytes", (1,), "F32", np.frombuffer(b"abcd", np.uint8)).release()
    assert (data == np.arange(40)).all()


def test_release_of_an_empty_run_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcd")
    data = np.frombuffer(_mapped.map_file(path), np.uint8)
    _mapped.release(data[2:2])
    _mapped.release(data[1:])
    assert data.tobytes() == b"abcd"
