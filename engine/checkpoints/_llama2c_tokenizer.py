"""llama2.c's tokenizer.bin (tokenizer.py there): pieces of a SentencePiece BPE with their scores.

The longest piece's bytes as uint32, then for each token a float32 score, its bytes' number as
uint32, and the bytes: UTF-8, with spaces for SentencePiece's mark.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.tokenizer.ggml import TokenType
from engine.tokenizer.spelling import BYTE_PIECE, SPACE

UNKNOWN, BOS, EOS = 0, 1, 2  # run.c knows no others
SPELLED = {BOS: "\n<s>\n", EOS: "\n</s>\n"}  # in the file
FIRST_BYTE = 3  # run.c takes the token 3 + b for a byte b that no piece has
MAX_BYTES = 64 << 20  # Llama 3's 128,000 pieces have 2 MB
AGAIN = "get the file again"
_ENTRY = struct.Struct("<fI")


def read_tokenizer(path: Path, n_tokens: int) -> dict[str, Any]:
    """What GGUF metadata would say of the same tokenizer. ValueError (one line)."""
    pieces, scores = _entries(path)
    if len(pieces) != n_tokens:
        raise ValueError(
            f"{path}: {len(pieces)} tokens, the model beside it has {n_tokens}: it is another "
            "model's; put the right tokenizer.bin there, or take this one away"
        )
    if n_tokens < FIRST_BYTE + 256:
        raise ValueError(
            f"{path}: {n_tokens} tokens are too few for the 256 bytes that come before all pieces"
        )
    # older files have the characters U+0000 to U+00FF in place of bytes
    for byte in range(256):
        if pieces[FIRST_BYTE + byte] == chr(byte):
            pieces[FIRST_BYTE + byte] = f"<0x{byte:02X}>"
    pieces[BOS], pieces[EOS] = "<s>", "</s>"
    return {
        "model": "llama",
        "tokens": [piece.replace(" ", SPACE) for piece in pieces],
        "scores": scores,
        "token_type": _types(pieces),
        "add_space_prefix": True,
        "add_bos_token": True,
        "add_eos_token": False,
        "unknown_token_id": UNKNOWN,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }


def _entries(path: Path) -> tuple[list[str], list[float]]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read")
    data = path.read_bytes()
    pieces: list[str] = []
    scores: list[float] = []
    at = 4
    while at < len(data):
        if at + _ENTRY.size > len(data):
            raise ValueError(f"{path}: it ends within token {len(pieces)}; {AGAIN}")
        score, size = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if at + size > len(data):
            raise ValueError(f"{path}: it ends within token {len(pieces)}; {AGAIN}")
        try:
            pieces.append(data[at : at + size].decode())
        except UnicodeDecodeError:
            raise ValueError(f"{path}: token {len(pieces)} is not UTF-8; {AGAIN}") from None
        scores.append(score)
        at += size
    return pieces, scores


def _types(pieces: Sequence[str]) -> list[int]:
    special = {UNKNOWN: TokenType.UNKNOWN, BOS: TokenType.CONTROL, EOS: TokenType.CONTROL}
    return [
        int(special.get(i, TokenType.BYTE if BYTE_PIECE.fullmatch(piece) else TokenType.NORMAL))
        for i, piece in enumerate(pieces)
    ]
