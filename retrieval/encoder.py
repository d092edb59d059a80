"""Texts to vectors: the protocol, where an encoder's files are found, and loading beside the user.

sentence-transformers takes seconds to import, so retrieval/sentences.py is imported by
`load_encoder` only; `EncoderInBackground` does that in a thread while somebody types.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data import catalogue, files, models

Vectors = NDArray[np.float32]
OnProgress = Callable[[int, int], None]  # texts done, texts in all

DEFAULT_ENCODER = "minilm"
_SHA_CHARS = 12


class EncoderMissingError(FileNotFoundError):
    """The encoder cannot be used on this machine; the message names the command that helps."""


class Encoder(Protocol):
    """What search and embedding need. Vectors of two encoders with one id may be compared.

    An encoder that treats questions and passages differently has `encode_query(texts)` too.
    """

    encoder_id: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), dimension) float32, each row of length 1; row i belongs to texts[i]."""
        ...


def load_encoder(name_or_path: str | Path = DEFAULT_ENCODER) -> Encoder:
    """The encoder `name_or_path` from this machine, never from the network. Takes seconds.

    name_or_path  a sentence-transformers folder, a name of data/catalogue.toml, or org/name in
                  the hub cache
    EncoderMissingError when it is not there; ValueError when it is no encoder.
    """
    folder = find_encoder(name_or_path)
    if importlib.util.find_spec("sentence_transformers") is None:
        raise EncoderMissingError(
            "sentence-transformers is not installed, so only words are searched for; "
            "`pip install 'sparsechat[retrieval]'` brings it"
        )
    from retrieval.sentences import SentenceEncoder

    return SentenceEncoder(folder, describe(folder))


def find_encoder(name_or_path: str | Path = DEFAULT_ENCODER) -> Path:
    """The folder of an encoder: a path, what `models pull` fetched, or the hub cache."""
    name = str(name_or_path)
    try:
        found = models.resolve(name)
    except models.ModelNotFoundError as error:
        known = catalogue.find(name)
        if known is None:
            raise EncoderMissingError(str(error)) from error
        if folder := _in_hub_cache(known):
            return folder
        raise EncoderMissingError(
            f"the encoder {known.name} is not installed, so only words are searched for; "
            f"`sparsechat models pull {known.name}` fetches it"
            f" ({files.megabytes(known.size_bytes or 0)})"
        ) from error
    folder = found.path
    if not (folder / "modules.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ValueError(
            f"{folder} is no encoder: modules.json and model.safetensors make one "
            "(pickled weights are not read)"
        )
    return folder


def _in_hub_cache(known: catalogue.RegisteredModel) -> Path | None:
    for source in known.sources:
        if isinstance(source, catalogue.HubSource):
            try:
                return find_encoder(source.repository)
            except EncoderMissingError:
                continue
    return None


def describe(folder: Path) -> str:
    """The encoder_id: name, start of the weights' SHA-256, pooling and maximal length.

    The name comes from config.json, so the same weights have one id wherever they lie.
    """
    config = _json(folder / "config.json")
    name = str(config.get("_name_or_path") or config.get("model_type") or "encoder")
    pooling = _json(folder / "1_Pooling" / "config.json")
    kinds = [key.removeprefix("pooling_mode_") for key, value in pooling.items() if value is True]
    kinds = [kind.removesuffix("_tokens") for kind in kinds] or [str(pooling.get("pooling_mode"))]
    length = _json(folder / "sentence_bert_config.json").get("max_seq_length") or "full"
    digest = files.sha256_of(folder / "model.safetensors")
    # later layers (a projection, say) and prompts change the vectors just as the weights do
    rest = hashlib.sha256(digest.encode())
    for path in sorted(folder.glob("[0-9]_*/*.safetensors")):
        rest.update(files.sha256_of(path).encode())
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
    if any(prompts.values()) or any(folder.glob("[0-9]_*/*.safetensors")):
        rest.update(json.dumps(prompts, sort_keys=True).encode())
        digest = rest.hexdigest()
    return f"{name.rpartition('/')[2]}-{digest[:_SHA_CHARS]}-{'+'.join(kinds)}-{length}"


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


class OwnEncoder:
    """The encoder that a base names, loaded when a search first wants it and then kept."""

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._name: str | None = None
        self._encoder: Encoder | None = None
        self._problem = ""

    def of(self, name: str | None) -> tuple[Encoder | None, str]:
        """The encoder `name`, or None and why it cannot be used; tried once."""
        with self._loading:
            if name is not None and name != self._name:
                self._name, self._encoder, self._problem = name, None, ""
                try:
                    self._encoder = load_encoder(name)
                except (OSError, ValueError) as error:
                    self._problem = str(error)
            return self._encoder, self._problem


class EncoderInBackground:
    """Loads an encoder in a thread, so that the shell's prompt is there at once."""

    def __init__(
        self,
        name_or_path: str | Path = DEFAULT_ENCODER,
        load: Callable[[str | Path], Encoder] = load_encoder,
        on_ready: Callable[[Encoder], None] | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._encoder: Encoder | None = None
        self._on_ready = on_ready
        self._thread = threading.Thread(
            target=self._load, args=(name_or_path, load), name="encoder", daemon=True
        )
        self._thread.start()

    def _load(self, name_or_path: str | Path, load: Callable[[str | Path], Encoder]) -> None:
        try:
            self._encoder = load(name_or_path)
            if self._on_ready:
                self._on_ready(self._encoder)
        except Exception as error:  # kept for whoever asks: nobody sees a traceback of a thread
            self.error = error

    @property
    def is_finished(self) -> bool:
        """Whether the encoder is there or has failed."""
        return not self._thread.is_alive()

    def now(self) -> Encoder | None:
        """The encoder if it has been loaded, at once; `error` tells why it never will be."""
        return self._encoder

    def wait(self, timeout_s: float | None = None) -> Encoder | None:
        """The encoder, waiting for it; raises what loading it raised. None after the timeout."""
        self._thread.join(timeout_s)
        if self.error:
            raise self.error
        return self._encoder
