"""tokenizer.model, SentencePiece's own file (OpenLlama has no other), read without its library.

It is a protocol buffer: fields as (number, wire type) with a payload each. Only the few that decide
about token ids are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.tokenizer.ggml import TokenType

# field numbers of sentencepiece_model.proto
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, TYPE = 1, 2, 3
MODEL_TYPE, UNK_ID, BOS_ID, EOS_ID, PAD_ID = 3, 40, 41, 42, 43
CHARSMAP, ADD_PREFIX, REMOVE_SPACES = 2, 3, 4
UNIGRAM, BPE = 1, 2


def metadata_from_model(path: Path) -> dict[str, Any]:
    """What GGUF metadata would say of the same tokenizer.

    ValueError for a broken file and for model types other than BPE and unigram.
    """
    data = path.read_bytes()
    try:
        pieces, trainer, normalizer = [], {}, {}
        for number, value in _fields(data):
            if number == PIECES:
                pieces.append(dict(_fields(value)))
            elif number == TRAINER:
                trainer = dict(_fields(value))
            elif number == NORMALIZER:
                normalizer = dict(_fields(value))
        tokens = [piece[PIECE].decode() for piece in pieces]
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, struct.error):
        raise ValueError(f"{path.name} is no SentencePiece model; fetch it again") from None
    models = {UNIGRAM: "t5", BPE: "llama"}
    model_type = trainer.get(MODEL_TYPE, UNIGRAM)
    if model_type not in models:
        raise ValueError(
            f"{path.name} has SentencePiece's model type {model_type}; 1 and 2 are read"
        )
    ids = {"unknown": (UNK_ID, 0), "bos": (BOS_ID, 1), "eos": (EOS_ID, 2), "padding": (PAD_ID, -1)}
    found = {f"{name}_token_id": _signed(trainer.get(n, d)) for name, (n, d) in ids.items()}
    return {
        "model": models[model_type],
        "tokens": tokens,
        "scores": [_float(piece.get(SCORE, b"\0\0\0\0")) for piece in pieces],
        "token_type": [piece.get(TYPE, TokenType.NORMAL) for piece in pieces],
        "add_space_prefix": bool(normalizer.get(ADD_PREFIX, 1)),
        "remove_extra_whitespaces": bool(normalizer.get(REMOVE_SPACES, 1)),
        "precompiled_charsmap": normalizer.get(CHARSMAP, b""),
        **{key: token_id for key, token_id in found.items() if token_id >= 0},
    }


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """(number, payload) in order: int for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire not in (1, 2, 5):
            raise TypeError(f"wire type {wire}")
        size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
        if at + size > len(data):
            raise IndexError("the file ends within a field")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise TypeError("a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _float(payload: bytes) -> float:
    return float(struct.unpack("<f", payload)[0])
