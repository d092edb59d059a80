"""llama2.c's model files (https://github.com/karpathy/llama2.c, export.py): a header of seven whole
numbers and the weights of a Llama one behind another, in one of three versions.

    0  "legacy", which run.c reads: float32, and tables of cos and sin, which nothing reads any
       more. vocab_size below 0 says that the head is a matrix of its own
    1  float32 behind a header of 256 bytes that begins with a magic number
    2  likewise, matrices as int8 in groups that share a float32 scale; a matrix's scales behind it

The arithmetic is fixed: Llama 2, rotation of neighbours with theta 10000, RMS norms with 1e-5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import architectures
from engine.checkpoints import RawTensor, sha256_of
from engine.checkpoints._llama2c_tokenizer import BOS, EOS, read_tokenizer
from engine.checkpoints._mapped import map_file
from engine.config import DecoderConfig

MAGIC = (0x616B3432).to_bytes(4, "little")  # "ak42", read as a number
HEADER_BYTES = 256  # of versions 1 and 2
NORM_EPS, ROPE_THETA = 1e-5, 10_000.0
TOKENIZER = "tokenizer.bin"
_NUMBERS = struct.Struct("<7i")
_MOST = (1 << 20, 1 << 20, 10_000, 1 << 16, 1 << 16, 1 << 24, 1 << 24)  # of each number
_BLOCK = 32  # of Q8_0
_LAYER = ("wq", "wk", "wv", "wo", "w_gate", "w_down", "w_up")


class Header(NamedTuple):
    """The numbers of a file, in their order, and what stands beside them."""

    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    max_seq_len: int
    own_head: bool
    version: int = 0
    group: int = 0  # numbers that share a scale: version 2

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.n_heads

    def packed(self) -> bytes:
        """All that stands before the weights; of versions 0 and 1."""
        sign = -1 if self.own_head and self.version == 0 else 1
        numbers = _NUMBERS.pack(*self[:5], sign * self.vocab_size, self.max_seq_len)
        if self.version == 0:
            return numbers
        head = MAGIC + struct.pack("<i", self.version) + numbers + bytes([not self.own_head])
        return head.ljust(HEADER_BYTES, b"\0")


def in_order(header: Header) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Canonical names and shapes as they follow one another; "" is what nothing reads."""
    hidden, inner, layers = header.hidden_size, header.intermediate_size, range(header.n_layers)
    n_kv = header.n_kv_heads * header.head_dim
    shapes = {"w_gate": (inner, hidden), "w_down": (hidden, inner), "w_up": (inner, hidden)}
    shapes |= {"wq": (hidden, hidden), "wk": (n_kv, hidden), "wv": (n_kv, hidden)}
    shapes["wo"] = (hidden, hidden)
    rows = (header.vocab_size, hidden)

    def of_all(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        return ((f"layers.{i}.{name}", shape) for i in layers)

    if header.version == 0:
        yield "embedding", rows
        yield from of_all("attention_norm", (hidden,))
        for name in _LAYER[:4]:
            yield from of_all(name, shapes[name])
        yield from of_all("ffn_norm", (hidden,))
        for name in _LAYER[4:]:
            yield from of_all(name, shapes[name])
        yield "final_norm", (hidden,)
        yield "", (header.max_seq_len, header.head_dim)
    else:
        yield from of_all("attention_norm", (hidden,))
        yield from of_all("ffn_norm", (hidden,))
        yield "final_norm", (hidden,)
        yield "embedding", rows
        for name in _LAYER:
            yield from of_all(name, shapes[name])
    if header.own_head:
        yield "head", rows


def recognises(path: Path) -> bool:
    """By the magic number, or by numbers that a model can have; in a file of another name they must
    also give its size."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head[:4] == MAGIC:
        return True
    header = _legacy_header(head)
    if header is None:
        return False
    return path.suffix.casefold() == ".bin" or path.stat().st_size == _n_bytes(header)


def open_path(path: Path) -> Llama2cCheckpoint:
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    header = _header(head) if head[:4] == MAGIC else _legacy_header(head)
    if isinstance(header, str) or header is None:
        raise ValueError(f"{path}: {header or 'its header has no numbers of a model'}")
    size, expected = path.stat().st_size, _n_bytes(header)
    if size != expected:
        raise ValueError(
            f"{path}: {size:,} bytes, but a llama2.c file (version {header.version}) of "
            f"{header.n_layers} layers, {header.hidden_size} wide, with {header.vocab_size} tokens "
            f"has {expected:,}; get the file again"
        )
    return Llama2cCheckpoint(path, header)


def _legacy_header(head: bytes) -> Header | None:
    """None where the numbers cannot be those of a model."""
    if len(head) < _NUMBERS.size:
        return None
    numbers = list(_NUMBERS.unpack_from(head))
    own_head = numbers[5] < 0
    numbers[5] = abs(numbers[5])
    return Header._make([*numbers, own_head, 0, 0]) if _fault(numbers) is None else None


def _header(head: bytes) -> Header | str:
    """Of versions 1 and 2, or what is wrong with it."""
    if len(head) < HEADER_BYTES:
        return f"the header of {HEADER_BYTES} bytes is cut off; get the file again"
    version, *numbers, shared, group = struct.unpack_from("<i7iBi", head, 4)
    if version not in (1, 2):
        return f"version {version} of llama2.c's format; this build reads 0, 1 and 2"
    if fault := _fault(numbers):
        return fault
    if shared not in (0, 1):
        return f"the flag of a shared head is {shared}, not 0 or 1; get the file again"
    found = Header._make([*numbers, not shared, version, 0])
    if version == 1:
        return found
    sizes = [prod(shape) for _, shape in in_order(found) if len(shape) == 2]
    if not 0 < group <= found.hidden_size or any(size % group for size in sizes):
        return f"groups of {group} numbers do not divide its matrices; get the file again"
    return found._replace(group=group)


def _fault(numbers: list[int]) -> str | None:
    """The rule that the seven numbers of a header break."""
    names = Header._fields[:7]
    for name, number, most in zip(names, numbers, _MOST, strict=True):
        if not 1 <= number <= most:
            return f"{name} is {number}, it must be from 1 to {most}"
    hidden, n_heads, n_kv_heads = numbers[0], numbers[3], numbers[4]
    if hidden % n_heads or hidden // n_heads % 2:
        return f"hidden_size {hidden} is not {n_heads} heads of an even size"
    if n_heads % n_kv_heads:
        return f"n_heads {n_heads} is not a multiple of n_kv_heads {n_kv_heads}"
    return None


def _n_bytes(header: Header) -> int:
    start = HEADER_BYTES if header.version else _NUMBERS.size
    return start + sum(_size(header, shape) for _, shape in in_order(header))


def _size(header: Header, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor with its scales."""
    n = prod(shape)
    return n + n // header.group * 4 if header.group and len(shape) == 2 else 4 * n


class Llama2cCheckpoint:
    """See engine.checkpoints.Checkpoint."""

    tokenizer_json: Path | None = None
    chat_template: str | None = None

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.files = (path,)
        data = np.frombuffer(map_file(path), np.uint8)
        at = HEADER_BYTES if header.version else _NUMBERS.size
        self._places: dict[str, tuple[tuple[int, ...], NDArray[np.uint8]]] = {}
        for name, shape in in_order(header):
            size = _size(header, shape)
            if name:
                self._places[name] = shape, data[at : at + size]
            at += size

    @cached_property
    def config(self) -> Mapping[str, Any]:
        header = self.header
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": header.hidden_size,
            "intermediate_size": header.intermediate_size,
            "num_hidden_layers": header.n_layers,
            "num_attention_heads": header.n_heads,
            "num_key_value_heads": header.n_kv_heads,
            "vocab_size": header.vocab_size,
            "max_position_embeddings": header.max_seq_len,
            "hidden_act": "silu",
            "rms_norm_eps": NORM_EPS,
            "rope_theta": ROPE_THETA,
            "tie_word_embeddings": not header.own_head,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        }

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """run.c ends a text where the next one would begin."""
        return {"bos_token_id": BOS, "eos_token_id": [EOS, BOS]}

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        if self.ggml_tokenizer is None:
            return {}
        return {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

    @cached_property
    def ggml_tokenizer(self) -> Mapping[str, Any] | None:
        file = self.path.parent / TOKENIZER
        return read_tokenizer(file, self.header.vocab_size) if file.is_file() else None

    def tensor_names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def tensor(self, canonical_name: str) -> RawTensor:
        if canonical_name not in self._places:
            raise ValueError(f"{self.path}: tensor {canonical_name!r} is missing")
        shape, data = self._places[canonical_name]
        kind = self.kind(canonical_name)
        if self.header.group and len(shape) == 2:
            kind, data = self._dequantised(shape, data, kind)
        return RawTensor(canonical_name, shape, kind, data, str(self.path))

    def kind(self, canonical_name: str) -> str:
        """Q8_0 where groups are cut into its blocks."""
        shape, _ = self._places[canonical_name]
        sizes = self.header.group or 1, shape[-1]
        is_cut = len(shape) == 2 and not any(size % _BLOCK for size in sizes)
        return "Q8_0" if is_cut else "F32"

    def _dequantised(
        self, shape: tuple[int, ...], data: NDArray[np.uint8], kind: str
    ) -> tuple[str, NDArray[np.uint8]]:
        """As Q8_0, scales rounded to float16, or as F32, where float16 ends as well."""
        group, n = self.header.group, prod(shape)
        q, scales = data[:n].view(np.int8), np.frombuffer(data[n:].tobytes(), np.float32)
        with np.errstate(over="ignore"):
            halves = scales.astype(np.float16)
        if kind == "F32" or np.isinf(halves).any():
            values = q.reshape(-1, group) * scales[:, None]
            return "F32", values.view(np.uint8).reshape(-1)
        blocks = np.empty((n // _BLOCK, 2 + _BLOCK), np.uint8)
        blocks[:, :2] = np.repeat(halves, group // _BLOCK).view(np.uint8).reshape(-1, 2)
        blocks[:, 2:] = q.view(np.uint8).reshape(-1, _BLOCK)
        return "Q8_0", blocks.reshape(-1)

    def decoder_config(self) -> DecoderConfig:
        """The rotation pairs neighbours, which no key of config.json says."""
        try:
            found = architectures.decoder_config(self.config)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        return replace(found, rope=replace(found.rope, interleaved=True))

    def fingerprint(self) -> str:
        return sha256_of(self.files)
