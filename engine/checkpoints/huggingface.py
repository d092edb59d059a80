"""Hugging Face directories: config.json, safetensors in one file or in shards, tokenizer files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from engine import architectures
from engine.architectures import layout
from engine.checkpoints import RawTensor, sha256_of
from engine.checkpoints._json import MAX_TEMPLATE_BYTES, read_object, read_text
from engine.checkpoints._names import (
    canonical_names,
    default_chat_template,
    prefixed,
    sharing,
)
from engine.checkpoints._parts import is_transposed, rows_of, shifted, transposed
from engine.checkpoints._safetensors import N_BYTES, read_safetensors
from engine.config import DecoderConfig
from engine.shapes import all_shapes

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def recognises(path: Path) -> bool:
    return (path / "config.json").is_file()


def open_path(path: Path) -> HuggingFaceCheckpoint:
    config = read_object(path / "config.json")
    if isinstance(quantized := config.get("quantization_config"), dict):
        raise ValueError(
            f"{path / 'config.json'}: weights quantised by {quantized.get('quant_method')!r} are "
            "not read; use the original checkpoint or a GGUF file"
        )
    return HuggingFaceCheckpoint(path, config, *_read_weights(path))


def _read_weights(path: Path) -> tuple[dict[str, RawTensor], tuple[Path, ...]]:
    """The tensors by stored name and the files that hold them."""
    if (path / SINGLE).is_file():
        return read_safetensors(path / SINGLE), (path / SINGLE,)
    if (path / INDEX).is_file():
        return _read_shards(path)
    if any((path / name).is_file() for name in PICKLES):
        raise ValueError(
            f"{path}: only pytorch_model.bin, a pickle, which can run code and is never loaded as "
            f"a model; `sparsechat import {path}` makes safetensors of it once, safely"
        )
    raise FileNotFoundError(f"{path}: neither {SINGLE} nor {INDEX}; download the checkpoint again")


def _read_shards(path: Path) -> tuple[dict[str, RawTensor], tuple[Path, ...]]:
    index = path / INDEX
    weight_map = read_object(index, unique_keys=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map is missing or empty")
    for shard in weight_map.values():
        # a plain name: no folders, so that an index cannot reach outside its directory
        if (
            not isinstance(shard, str)
            or PurePosixPath(shard).name != shard
            or "\\" in shard
            or not shard.endswith(".safetensors")
        ):
            raise ValueError(
                f"{index}: {str(shard)[:80]!r} is not the name of a safetensors file beside it"
            )
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path / missing[0]} is missing, one of {len(names)} shards that {INDEX} names; "
            "download it again"
        )
    shards = {name: read_safetensors(path / name) for name in names}
    tensors = {}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise ValueError(f"{path / shard}: tensor {name[:80]!r} is missing, {INDEX} names it")
        tensors[name] = shards[shard][name]
    return tensors, tuple(path / name for name in names)


class HuggingFaceCheckpoint:
    """See engine.checkpoints.Checkpoint."""

    ggml_tokenizer: Mapping[str, Any] | None = None

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, RawTensor],
        weight_files: tuple[Path, ...],
    ) -> None:
        self.path = path
        self.config = config
        self.files = (path / "config.json", *weight_files)
        self._tensors = tensors

    @cached_property
    def _stored(self) -> dict[str, str]:
        """Canonical name → stored name."""
        stored = canonical_names(self._table, self._tensors)
        if self.config.get("tie_word_embeddings") is True and "head" in stored:
            stored.setdefault("embedding", stored["head"])  # tied, and saved under the other name
        return stored

    @cached_property
    def _table(self) -> Mapping[str, str]:
        """Canonical name → stored name, of one layer for all."""
        return prefixed(self._architecture().TENSORS, self._tensors)

    def _architecture(self) -> Any:
        try:
            return architectures.architecture(self.config.get("model_type"))
        except ValueError as error:
            raise ValueError(f"{self.path / 'config.json'}: {error}") from None

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        return self._optional("generation_config.json")

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        return self._optional("special_tokens_map.json") | self._optional("tokenizer_config.json")

    def _optional(self, name: str) -> dict[str, Any]:
        file = self.path / name
        return read_object(file) if file.is_file() else {}

    @cached_property
    def chat_template(self) -> str | None:
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return read_text(file, MAX_TEMPLATE_BYTES)
        return default_chat_template(self.tokenizer_config.get("chat_template"))

    @property
    def tokenizer_json(self) -> Path | None:
        file = self.path / "tokenizer.json"
        return file if file.is_file() else None

    def tensor_names(self) -> tuple[str, ...]:
        return tuple(self._stored)

    def kind(self, canonical_name: str) -> str:
        return self._tensors[self._stored[canonical_name]].kind

    def stored_tensor(self, name: str) -> RawTensor:
        """By its stored name."""
        return self._tensors[name]

    def tensor(self, canonical_name: str) -> RawTensor:
        if canonical_name not in self._stored:
            raise ValueError(f"{self.path}: tensor {canonical_name!r} is missing")
        return self._as_canonical(canonical_name, self.stored(canonical_name))

    def stored(self, canonical_name: str) -> RawTensor:
        """The whole tensor that a canonical one is, or is part of, as it lies in the file."""
        tensor = self._tensors[self._stored[canonical_name]]
        if tensor.kind not in N_BYTES or not len(tensor.data):
            raise ValueError(
                f"{tensor.source}: tensor {tensor.name!r} holds {tensor.shape} of {tensor.kind}; "
                f"weights are read from {', '.join(N_BYTES)}"
            )
        return tensor

    def _as_canonical(self, name: str, tensor: RawTensor) -> RawTensor:
        """The stored tensor, or its part, as the decoder has it."""
        stored = tensor
        own = layout(self.config["model_type"])
        if is_transposed(name, len(tensor.shape), own):
            tensor = transposed(tensor)
        if own.norm_offset and name.endswith("_norm"):
            tensor = shifted(tensor, own.norm_offset)
        if own.first_position and name == "position_embedding":
            tensor = rows_of(tensor, (own.first_position, self._shapes[name][0]), 1)
        parts = sharing(self._table, name)
        if len(parts) > 1:
            sizes = [self._shapes[part][0] for part in parts]
            head_dim = self._translated.head_dim if own.by_head else 0
            tensor = rows_of(tensor, sizes, parts.index(name), head_dim)
        if not np.may_share_memory(tensor.data, stored.data):
            stored.release()  # a copy was made
        return tensor

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        return all_shapes(self._translated)

    @cached_property
    def _translated(self) -> DecoderConfig:
        try:
            return architectures.decoder_config(self.config)
        except ValueError as error:
            raise ValueError(f"{self.path / 'config.json'}: {error}") from None

    def decoder_config(self) -> DecoderConfig:
        self._architecture()
        decoder = self._translated
        # transformers does not tie what was saved twice with different values, whatever the config
        if decoder.tied_head and "head" in self._stored and not self._head_repeats_embedding():
            return replace(decoder, tied_head=False)
        return decoder

    def _head_repeats_embedding(self) -> bool:
        head, embedding = self.tensor("head"), self.tensor("embedding")
        same = head.kind == embedding.kind and np.array_equal(head.data, embedding.data)
        head.release()
        embedding.release()
        return same

    def fingerprint(self) -> str:
        return sha256_of(self.files)
