"""How the pieces of a vocabulary spell bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

SPACE = "▁"  # SentencePiece's stand-in for a space
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_characters() -> dict[str, int]:
    """GPT-2's character for each byte: itself where printable, else the next from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    found = {chr(byte): byte for byte in printable}
    return found | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_characters()


def byte_level(piece: str) -> bytes:
    """The bytes of a piece in GPT-2's spelling; a piece that is not in it stands for itself."""
    try:
        return bytes([BYTE_OF[char] for char in piece])
    except KeyError:
        return piece.encode()


def sentencepiece(piece: str) -> bytes:
    """`▁` is a space, `<0x0A>` a byte."""
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


def spelling_of(backend: tokenizers.Tokenizer) -> tuple[Callable[[str], bytes], bool]:
    """The spelling that a tokenizer's decoder undoes, and whether decoding drops one first space.

    ValueError for the decoders of other families than byte-level and SentencePiece.
    """
    parts = list(_decoders(backend.decoder))
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return byte_level, False
    if kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        return sentencepiece, any(_drops_space(part) for part in parts)
    raise ValueError(
        f"its tokenizer decodes by {', '.join(sorted(kinds))}; this build has byte-level BPE and "
        "SentencePiece"
    )


def _drops_space(decoder: dict[str, Any]) -> bool:
    if decoder["type"] == "Metaspace":
        return bool(decoder.get("prepend_scheme", "always") != "never")
    return bool(decoder["type"] == "Strip" and decoder.get("start") and decoder["content"] == " ")


def _decoders(decoder: Any) -> Iterator[dict[str, Any]]:
    """The decoder's description, sequences flattened; nothing when there is none."""
    if decoder is None:
        return
    waiting = [json.loads(decoder.__getstate__())]
    while waiting:
        part = waiting.pop(0)
        if part["type"] == "Sequence":
            waiting = part["decoders"] + waiting
        else:
            yield part
