"""What an architecture's Hugging Face checkpoint holds: names and shapes as they are stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from engine import architectures
from engine.checkpoints._names import pattern_of, prefixed
from engine.config import DecoderConfig
from engine.shapes import all_shapes

# what modules save beside their weights: masks, positions, frequencies
_BUFFERS = re.compile(
    r"(^|\.)(attn|attention|self_attn)\.(attention\.)?(bias|masked_bias)$"
    r"|(^|\.)rotary_emb\.\w+$|(^|\.)(position_ids|embed_positions|inv_freq)$"
)


@dataclass(frozen=True)
class Expected:
    """Stored names of one checkpoint.

    config   the decoder that its config.json describes
    table    canonical name -> stored name, of one layer for all
    shapes   stored name -> shape, of everything that must be there
    tied     stored name of a head that may be there, but repeats the embedding; None: none may
    """

    config: DecoderConfig
    table: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    tied: str | None
    embedding: str

    def is_known(self, name: str) -> bool:
        """Whether the architecture has such a tensor, be it with another config."""
        return pattern_of(name) in self._patterns or name in self._patterns

    @property
    def _patterns(self) -> Collection[str]:
        return set(self.table.values())

    def is_buffer(self, name: str) -> bool:
        """Whether it is no weight, and made anew by whoever needs it."""
        return not self.is_known(name) and _BUFFERS.search(name) is not None


def expected(config: Mapping[str, Any], stored: Collection[str] = ()) -> Expected:
    """Of a config.json. `stored`: the names that are there, which tell how they begin."""
    model_type = config.get("model_type")
    decoder = architectures.decoder_config(config)
    table = dict(architectures.architecture(model_type).TENSORS)
    if stored:
        table = dict(prefixed(table, stored))
    own = architectures.layout(model_type)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in all_shapes(decoder).items():
        their = stored_name(table, name)
        before = own.first_position if name == "position_embedding" else 0
        rows = shapes.get(their, (before,))[0] + shape[0]  # parts of one tensor
        shapes[their] = (rows, *shape[1:])
    if own.transposed:
        of_layers = {pattern for ours, pattern in table.items() if ours.startswith("layers.")}
        for name, shape in shapes.items():
            if pattern_of(name) in of_layers:
                shapes[name] = shape[::-1]
    tied = table["head"] if decoder.tied_head and "head" in table else None
    return Expected(decoder, table, shapes, tied, table["embedding"])


def stored_name(table: Mapping[str, str], name: str) -> str:
    """Of a canonical name."""
    pattern = pattern_of(name)
    number = name.split(".")[1] if pattern != name else ""
    return table[pattern].replace("{i}", number)
