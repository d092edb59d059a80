"""GGUF files: one file with shapes, tokenizer, chat template and quantised weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from engine import architectures
from engine.architectures._gguf import QKV
from engine.checkpoints import RawTensor, _gguf_metadata, sha256_of
from engine.checkpoints._gguf_file import GGUFFile, read_gguf
from engine.checkpoints._names import canonical_names, default_chat_template
from engine.checkpoints._parts import rows_of
from engine.config import DecoderConfig
from engine.shapes import all_shapes

T = TypeVar("T")

_WHOLE = {
    "embedding": "token_embd",
    "position_embedding": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
}
_LAYER = {
    "attention_norm": "attn_norm",
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "attention_post_norm": "post_attention_norm",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm",
    "w_gate": "ffn_gate",
    "w_up": "ffn_up",
    "w_down": "ffn_down",
    "ffn_post_norm": "post_ffw_norm",
}
_PATTERNS = _WHOLE | {f"layers.{{i}}.{ours}": f"blk.{{i}}.{gguf}" for ours, gguf in _LAYER.items()}


def _with_biases(patterns: Mapping[str, str]) -> dict[str, str]:
    return {ours: f"{theirs}.weight" for ours, theirs in patterns.items()} | {
        f"{ours}.bias": f"{theirs}.bias" for ours, theirs in patterns.items()
    }


# canonical name → stored name; the same for every architecture
TENSORS = _with_biases(_PATTERNS)


def fused(modules: Mapping[str, str]) -> dict[str, str]:
    """Canonical name → stored name of what lies with others in one tensor, in its order."""
    return _with_biases(
        {f"layers.{{i}}.{ours}": f"blk.{{i}}.{theirs}" for ours, theirs in modules.items()}
    )


def recognises(path: Path) -> bool:
    """By the magic number, or by the suffix, so that a damaged file is called by its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF" or path.suffix == ".gguf"


def open_path(path: Path) -> GGUFCheckpoint:
    file = read_gguf(path)
    n_parts = file.metadata.get("split.count", 1)
    if n_parts not in (0, 1):
        raise ValueError(
            f"{path}: one of {n_parts} parts of a split model; "
            "join them with `llama-gguf-split --merge`"
        )
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        raise ValueError(f"{path}: general.type is {kind!r}; a file of type 'model' is needed")
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError(f"{path}: general.architecture must be a name, got {architecture!r}")
    return GGUFCheckpoint(file)


class GGUFCheckpoint:
    """See engine.checkpoints.Checkpoint."""

    tokenizer_json: Path | None = None

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self.path = file.path
        self.files = (file.path,)

    @cached_property
    def _stored(self) -> dict[str, str]:
        """Canonical name → stored name. llama.cpp takes fused tensors of any architecture."""
        family = _family(self.config["model_type"])
        modules = QKV | dict(family.fused if family else {})
        found = canonical_names(fused(modules), self._file.tensors)
        return found | canonical_names(TENSORS, self._file.tensors)

    @cached_property
    def parts(self) -> Mapping[str, list[str]]:
        """Stored name → the canonical ones of what lies in it, in its order; as a rule one."""
        found: dict[str, list[str]] = {name: [] for name in self._file.tensors}
        for ours, theirs in self._stored.items():
            found[theirs].append(ours)
        return {stored: names for stored, names in found.items() if names}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        return self._named(_gguf_metadata.config, self._file.metadata, self._file.tensors)

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        return _gguf_metadata.generation_config(self._file.metadata)

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        metadata, ggml = self._file.metadata, self.ggml_tokenizer
        return self._named(_gguf_metadata.tokenizer_config, metadata, ggml)

    @property
    def chat_template(self) -> str | None:
        return default_chat_template(self.tokenizer_config.get("chat_template"))

    @cached_property
    def ggml_tokenizer(self) -> Mapping[str, Any] | None:
        return self._named(_gguf_metadata.ggml_tokenizer, self._file.metadata)

    def tensor_names(self) -> tuple[str, ...]:
        return tuple(self._stored)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """All keys of the file."""
        return self._file.metadata

    @property
    def stored_tensors(self) -> Mapping[str, RawTensor]:
        """All tensors of the file by their stored names."""
        return self._file.tensors

    def tensor(self, canonical_name: str) -> RawTensor:
        if canonical_name not in self._stored:
            raise ValueError(f"{self.path}: tensor {canonical_name!r} is missing")
        stored = self._stored[canonical_name]
        tensor, parts = self._file.tensors[stored], self.parts[stored]
        if len(parts) == 1:
            return tensor
        shapes = self._shapes
        if any(part not in shapes for part in parts):
            raise ValueError(
                f"{self.path}: {stored} holds {', '.join(parts)}, of which its config asks for "
                f"{', '.join(part for part in parts if part in shapes) or 'none'}"
            )
        return rows_of(tensor, [shapes[part][0] for part in parts], parts.index(canonical_name))

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        return all_shapes(self.decoder_config())

    @cached_property
    def _translated(self) -> DecoderConfig:
        model_type = self.config["model_type"]
        self._named(architectures.architecture, model_type)
        if architectures.gguf(model_type) is None:
            raise ValueError(
                f"{self.path}: llama.cpp has no GGUF files of {model_type}; use the Hugging Face "
                "directory that it was made from"
            )
        decoder = self._named(architectures.decoder_config, self.config)
        self._named(_gguf_metadata.refuse_unsupported, self._file.metadata, decoder)
        return decoder

    def kind(self, canonical_name: str) -> str:
        return self._file.tensors[self._stored[canonical_name]].kind

    def decoder_config(self) -> DecoderConfig:
        return self._translated

    def fingerprint(self) -> str:
        return sha256_of(self.files)

    def _named(self, read: Callable[..., T], *args: Any) -> T:
        """read(*args), with the file in front of its error unless it stands there."""
        try:
            return read(*args)
        except ValueError as error:
            text, file = str(error), f"{self.path}: "
            raise ValueError(text if text.startswith(file) else file + text) from None


def _family(model_type: str) -> architectures.Gguf | None:
    """Files of architectures that are not known can be opened; only their config is refused."""
    return architectures.gguf(model_type) if model_type in architectures.ARCHITECTURES else None
