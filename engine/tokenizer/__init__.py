"""Tokenizers, built from a checkpoint's own files; safe to feed with text from anyone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.tokenizer.detokenizer import Detokenizer
from engine.tokenizer.parts import Parts
from engine.tokenizer.tokenizer import Tokenizer, tokenizer_from

__all__ = ["Detokenizer", "Tokenizer", "load_tokenizer"]


class TokenizerSource(Protocol):
    """What is read of an engine.checkpoints.Checkpoint."""

    @property
    def path(self) -> Path: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def generation_config(self) -> Mapping[str, Any]: ...
    @property
    def tokenizer_config(self) -> Mapping[str, Any]: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def tokenizer_json(self) -> Path | None: ...
    @property
    def ggml_tokenizer(self) -> Mapping[str, Any] | None: ...


def load_tokenizer(checkpoint: TokenizerSource) -> Tokenizer | None:
    """The checkpoint's tokenizer: from tokenizer.json, GGUF metadata or tokenizer.model.

    None when the checkpoint carries none; ValueError (one line, beginning with the path) when it is
    broken or of a kind that is not supported.
    """
    try:
        parts = _parts_of(checkpoint)
        return None if parts is None else tokenizer_from(parts, checkpoint)
    except ValueError as error:
        raise ValueError(f"{checkpoint.path}: {error}") from None


def _parts_of(checkpoint: TokenizerSource) -> Parts | None:
    from engine.tokenizer import ggml, huggingface, sentencepiece_model

    if checkpoint.tokenizer_json is not None:
        return huggingface.parts_from_json(
            checkpoint.tokenizer_json, checkpoint.tokenizer_config, checkpoint.config
        )
    metadata = checkpoint.ggml_tokenizer
    model_file = checkpoint.path / "tokenizer.model"
    if metadata is None and model_file.is_file():
        flags = {
            key: value
            for key, value in checkpoint.tokenizer_config.items()
            if key in ("add_bos_token", "add_eos_token") and isinstance(value, bool)
        }
        metadata = {**sentencepiece_model.metadata_from_model(model_file), **flags}
    return None if metadata is None else ggml.parts_from_ggml(metadata)
