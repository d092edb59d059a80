"""Checkpoints: model files made elsewhere, opened read-only, mapped into memory and never trusted.

A container is one module of this folder, found by its name, with `recognises(path) -> bool` and
`open_path(path) -> Checkpoint`. Modules whose names begin with an underscore are parts of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.checkpoints import _kinds, _mapped
from engine.config import DecoderConfig

__all__ = ["CONTAINERS", "Checkpoint", "RawTensor", "open_checkpoint", "sha256_of"]

CONTAINERS = sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


@dataclass(frozen=True, slots=True, eq=False)
class RawTensor:
    """One tensor as it lies in the file.

    name   as stored
    shape  NumPy order: (n_out, n_in) for matrices
    kind   a ggml type name: "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q6_K", …
    data   (n_bytes,) uint8, read-only, mapped from the file: exactly the tensor's bytes
    source the file, for messages
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    data: npt.NDArray[np.uint8]
    source: str = ""

    def float32(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Rows [start, stop) as float32, (stop - start, *shape[1:]); all rows by default.

        Beyond the result, memory stays at a few MB whatever the size. Values stored as float32 come
        back as a read-only view of the file where its alignment allows that. NaN and infinity are
        passed on. ValueError for rows outside the tensor and for kinds that nothing here can read.
        """
        n_rows = self.shape[0] if self.shape else 1
        stop = n_rows if stop is None else stop
        if not 0 <= start <= stop <= n_rows:
            raise ValueError(f"{self.name} has rows 0 to {n_rows}, asked for {start} to {stop}")
        row = prod(self.shape[1:])
        try:
            values = _kinds.float32(self.data, self.kind, start * row, stop * row)
        except ValueError as error:
            raise ValueError(f"{self.source}: tensor {self.name!r} is {error}") from None
        return values.reshape(stop - start, *self.shape[1:])

    def release(self) -> None:
        """Give the memory of `data` back; it is mapped again where it is read again."""
        _mapped.release(self.data)


class Checkpoint(Protocol):
    """What every container offers. Any of it may raise ValueError: one line, the file in front."""

    @property
    def path(self) -> Path: ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Keys of Hugging Face's config.json, whatever the container; "model_type" among them.

        Ours besides: rope_interleaved (bool), rope_frequency_divisors (list of float) and
        attention_out_bias (bool), which only GGUF sets.
        """

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """Keys of Hugging Face's generation_config.json; may be empty."""

    @property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """Keys of Hugging Face's tokenizer_config.json; may be empty."""

    @property
    def chat_template(self) -> str | None:
        """The default chat template's jinja source."""

    @property
    def tokenizer_json(self) -> Path | None:
        """tokenizer.json, where the checkpoint has one."""

    @property
    def ggml_tokenizer(self) -> Mapping[str, Any] | None:
        """What follows "tokenizer.ggml." in GGUF's keys; None without a vocabulary.

        `tokens` and `merges` are lists of str, `scores` of float, `token_type` of int (the last two
        one per token); everything else is as it stands in the file.
        """

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that weights and shapes come from; the fingerprint is taken over them."""

    def tensor_names(self) -> tuple[str, ...]:
        """Canonical names (engine/config.py) of the tensors present, in no promised order."""

    def tensor(self, canonical_name: str) -> RawTensor:
        """ValueError naming file and tensor when it is missing."""

    def kind(self, canonical_name: str) -> str:
        """The tensor's, without reading it. KeyError when it is missing."""

    def decoder_config(self) -> DecoderConfig:
        """The config translated by engine/architectures."""

    def fingerprint(self) -> str:
        """SHA-256 (hex) over `files`; reads them whole."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file, a Hugging Face directory or a file of llama2.c.

    FileNotFoundError when there is nothing at `path` or a file of it is missing, ValueError (one
    line, the file in front) when it is not a checkpoint or a broken one.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    for name in CONTAINERS:
        container = import_module(f"{__name__}.{name}")
        if container.recognises(path):
            checkpoint: Checkpoint = container.open_path(path)
            return checkpoint
    raise ValueError(f"{path}: {_why_not(path)}")


def _why_not(path: Path) -> str:
    """What to say of a path that no container recognises."""
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.gguf"))
        if inside:
            return f"a directory without config.json; it holds {inside[0]}, name that file instead"
        return "a directory without config.json; a model is a GGUF file or a Hugging Face directory"
    if path.name == "config.json" or path.suffix == ".safetensors":
        return "one file of a Hugging Face directory; name the directory instead"
    if path.suffix == ".bin":
        return "no model of llama2.c; of a Hugging Face directory, name the directory instead"
    return "not a GGUF file; a model is a GGUF file or a Hugging Face directory with config.json"


def sha256_of(files: Sequence[Path]) -> str:
    """SHA-256 (hex) of one file, or of the names and SHA-256 of several in their order."""
    if len(files) == 1:
        with files[0].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{sha256_of([path])}\n".encode())
    return digest.hexdigest()
