"""The key-value cache of a conversation, which remembers the token ids that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig
from engine.kernels.attention import SEGMENT, segment_layout
from engine.key_ranges import KeyRanges
from engine.kv_formats import DEFAULT, kv_format
from engine.rope import is_long

_VERSION = 1  # changes with the meaning of any byte of a segment
_BLOCK = 16  # slots whose keys lie together


class Parts(NamedTuple):
    """Views of a cache's segments, in the numbers of its format; S segments."""

    keys: NDArray[Any]  # (n_layers, n_kv_heads, S, blocks of 16 slots, width, 16)
    values: NDArray[Any]  # (n_layers, n_kv_heads, S, SEGMENT, width)
    scales: NDArray[np.float32]  # (n_layers, n_kv_heads, S, 2 or 0, SEGMENT): of keys, of values


class KVCache:
    """Keys and values of the tokens seen so far: slot i holds token_ids[i].

    data   uint8 (n_layers, n_kv_heads, segments, bytes of a segment); engine/kernels/attention.py
           describes a segment
    Slots beyond len(token_ids) are scratch: beams branch there.

    n_dense  the first so many tokens were computed with nothing skipped
    is_long  keys were turned by the angles for long texts: plan.Rotations.is_long
    """

    def __init__(self, config: DecoderConfig, format_name: str = DEFAULT) -> None:
        kv = kv_format(format_name)
        self._number = kv.NUMBER
        self._width = -(-config.head_dim // 32) * 32
        self._layout = segment_layout(self._width, kv.NUMBER.itemsize, kv.SCALED)
        self._heads = (config.n_layers, config.n_kv_heads)
        self._config = config
        self.is_long = False
        self._used = 0  # segments whose memory is there
        self._skipped_from: int | None = None
        self.format_name = format_name
        self.token_ids: list[int] = []
        self.data = self._empty(0)
        self._ranges: KeyRanges | None = None

    def _empty(self, n_segments: int) -> NDArray[np.uint8]:
        return np.zeros((*self._heads, n_segments, self._layout.size), np.uint8)

    @property
    def layout(self) -> str:
        """Names the format and the meaning of its bytes."""
        return f"{self.format_name}-{_VERSION}"

    @property
    def capacity(self) -> int:
        """How many slots there is room for."""
        return int(SEGMENT * self.data.shape[2])

    @property
    def bytes_per_token(self) -> int:
        """What a token adds."""
        return int(self._layout.size * self._heads[0] * self._heads[1] // SEGMENT)

    @property
    def n_dense(self) -> int:
        return len(self.token_ids) if self._skipped_from is None else self._skipped_from

    def skipped_from(self, n_tokens: int) -> None:
        """Tokens after the first n_tokens skip something, or look back at such that did."""
        self._skipped_from = min(n_tokens, self.n_dense)

    def reserve(self, n_slots: int) -> None:
        """Make room for n_slots; existing slots are kept."""
        n = -(-n_slots // SEGMENT)
        if n > self.data.shape[2]:
            data = self._empty(max(4, n, 2 * self.data.shape[2]))
            data[:, :, : self._used] = self.data[:, :, : self._used]
            self.data = data
        if n > self._used:
            # kernels ask for memory ahead of what they read, and asking for a page that the system
            # has not given yet costs more than all the rest
            self.data[:, :, self._used : n] = 0
            self._used = n

    def parts(self) -> Parts:
        """Views of what is held, and of what lies behind it."""
        return _parts(self.data, self._layout, self._number)

    def common_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading ids are in the cache already."""
        n = 0
        for ours, theirs in zip(self.token_ids, token_ids, strict=False):
            if ours != theirs:
                break
            n += 1
        return n

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first n_tokens."""
        del self.token_ids[n_tokens:]
        if self._skipped_from is not None and n_tokens <= self._skipped_from:
            self._skipped_from = None
        if self._ranges is not None:
            self._ranges.forget(n_tokens)

    def key_ranges(self) -> KeyRanges:
        """Ranges of the keys of all tokens held; made at the first call, then kept up."""
        if self._ranges is None:
            self._ranges = KeyRanges(self.format_name, *self._heads, self._width)
        self._ranges.update(self.data, len(self.token_ids))
        return self._ranges

    def adopt(self, path: Sequence[int], token_ids: Sequence[int]) -> None:
        """Append token_ids, whose rows lie in the slots of `path`: a branch that was chosen."""
        first = len(self.token_ids)
        self.reserve(first + len(path))
        source = np.asarray(path, np.int64)
        target = np.arange(first, first + len(path))
        parts = self.parts()
        (s, i), (t, j) = divmod(source, SEGMENT), divmod(target, SEGMENT)
        keys = parts.keys[:, :, s, i // _BLOCK, :, i % _BLOCK]
        parts.keys[:, :, t, j // _BLOCK, :, j % _BLOCK] = keys
        parts.values[:, :, t, j] = parts.values[:, :, s, i]
        parts.scales[:, :, t, :, j] = parts.scales[:, :, s, :, i]
        self.token_ids.extend(token_ids)

    def export(self, n_tokens: int) -> dict[str, NDArray[Any]]:
        """What restore needs of the first n_tokens, and nothing of later ones; C-contiguous."""
        n = -(-n_tokens // SEGMENT)
        data = self.data[:, :, :n].copy()
        if n_tokens % SEGMENT:
            parts, rest = _parts(data, self._layout, self._number), n_tokens % SEGMENT
            parts.keys[:, :, -1, rest // _BLOCK, :, rest % _BLOCK :] = 0
            parts.keys[:, :, -1, rest // _BLOCK + 1 :] = 0
            parts.values[:, :, -1, rest:] = 0
            parts.scales[:, :, -1, :, rest:] = 0
        return {"segments": data}

    def restore(self, token_ids: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Hold token_ids, with what export gave for them, in place of what was held.

        ValueError, before anything is changed, for arrays of another model or number of tokens.
        """
        n = -(-len(token_ids) // SEGMENT)
        expected = {"segments": (*self._heads, n, self._layout.size)}
        found = {name: array.shape for name, array in arrays.items()}
        if found != expected or arrays["segments"].dtype != np.uint8:
            raise ValueError(f"a cache of {len(token_ids)} tokens needs {expected}, got {found}")
        self.truncate(0)
        self.reserve(len(token_ids))
        self.data[:, :, :n] = arrays["segments"]
        self.token_ids = list(token_ids)
        config = self._config
        self.is_long = is_long(config.rope, len(token_ids), config.max_seq_len)


def _parts(data: NDArray[np.uint8], layout: Any, number: np.dtype[Any]) -> Parts:
    """The views of a cache's segments."""
    heads = data.shape[:3]
    width = layout.value_row // number.itemsize
    end = 2 * layout.values
    keys = data[..., : layout.values].view(number)
    values = data[..., layout.values : end].view(number)
    scales = data[..., end:].view(np.float32)
    return Parts(
        keys.reshape(*heads, SEGMENT // _BLOCK, width, _BLOCK),
        values.reshape(*heads, SEGMENT, width),
        scales.reshape(*heads, -1, SEGMENT),
    )
