"""llama2.c's files (engine/checkpoints/llama2c.py): a model and the tokenizer.bin beside it.

llama2.c computes one thing, Llama 2 in float32; what differs from that is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from struct import pack
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from engine.checkpoints import Checkpoint, open_checkpoint
from engine.checkpoints._llama2c_tokenizer import BOS, EOS, FIRST_BYTE, SPELLED
from engine.checkpoints.llama2c import NORM_EPS, ROPE_THETA, TOKENIZER, Header, in_order
from engine.config import DecoderConfig, Rope
from engine.export import checking
from engine.export.checking import Logits, Report
from engine.export.ggml_tokenizer import ggml_keys
from engine.export.source import Source
from engine.packed import share
from engine.rope import rotation_table
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.spelling import SPACE

FORMATS = {"llama2c": 0, "llama2c-v1": 1}  # versions of the header
_KEYS = "tokenizer.ggml."
_ELSEWHERE = "write a GGUF file or a directory instead"
_SIZES = (
    *("architecture", "vocab_size", "hidden_size", "intermediate_size", "n_layers", "n_heads"),
    *("n_kv_heads", "max_seq_len", "tied_head"),
)
Progress = Callable[[str, float], None]


def to_llama2c(
    path: str | Path,
    source: Source,
    logits: Logits,
    format_name: str = "llama2c",
    *,
    on_progress: Progress | None = None,
) -> Report:
    """Write a file that llama2.c runs, and tokenizer.bin beside it where there is a tokenizer.

    logits       of the model in memory: token ids -> (T, vocab_size)
    format_name  llama2c, which run.c reads, or llama2c-v1
    ValueError when llama2.c does not compute this model, or the result does not give the logits;
    nothing is left then.
    """
    path = Path(path).absolute()
    report = on_progress or (lambda stage, fraction: None)
    header = header_of(source.config, FORMATS[format_name])
    vocabulary = tokenizer_bin(source.checkpoint, header.vocab_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        with temporary.open("wb") as out:
            write_file(out, source, header, report)
            os.fsync(out.fileno())
        written = [temporary]
        if vocabulary is not None:
            written.insert(0, Path(folder) / TOKENIZER)
            written[0].write_bytes(vocabulary)
        report("checking", 0.0)
        found = _checked(temporary, source, logits)
        for file in written:
            share(file)
            os.replace(file, path.parent / file.name)
    return found._replace(path=path, format=format_name)


def header_of(config: DecoderConfig, version: int) -> Header:
    """ValueError naming what llama2.c does not compute."""
    is_its_eps = math.isclose(config.norm_eps, NORM_EPS, rel_tol=1e-6)  # GGUF has float32
    plain = DecoderConfig(
        **{name: getattr(config, name) for name in _SIZES},
        head_dim=config.hidden_size // config.n_heads,
        norm_eps=config.norm_eps if is_its_eps else NORM_EPS,
        rope=Rope(ROPE_THETA, interleaved=config.rope.interleaved),
    )
    for field in fields(config):
        if getattr(config, field.name) != getattr(plain, field.name):
            raise ValueError(
                f"llama2.c computes Llama 2 only, with {_words(field.name, plain)}; this model has "
                f"{_words(field.name, config)}; {_ELSEWHERE}"
            )
    return Header(
        config.hidden_size,
        config.intermediate_size,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        config.vocab_size,
        config.max_seq_len,
        own_head=not config.tied_head,
        version=version,
    )


def _words(name: str, config: DecoderConfig) -> str:
    value = getattr(config, name)
    if isinstance(value, Rope):
        scaling = "" if value.scaling.kind == "none" else f", {value.scaling.kind} scaling"
        part = "" if value.fraction == 1 else f", {value.fraction:g} of each head"
        divided = ", divided frequencies" if value.frequency_divisors else ""
        return f"rope theta {value.theta:g}{scaling}{part}{divided}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def write_file(
    out: BinaryIO, source: Source, header: Header, on_progress: Progress | None = None
) -> None:
    """One tensor in memory at a time."""
    report = on_progress or (lambda stage, fraction: None)
    out.write(header.packed())
    places = list(in_order(header))
    for i, (name, _) in enumerate(places):
        report("writing weights", i / len(places))
        if name:
            values = source.tensor(name, neighbours=True)
            out.write(np.ascontiguousarray(values, np.float32).data)
            continue
        positions = np.arange(header.max_seq_len)
        cos, sin = rotation_table(Rope(ROPE_THETA), header.head_dim, positions, 0, 1)
        out.write(np.ascontiguousarray(cos).data)
        out.write(np.ascontiguousarray(sin).data)


def tokenizer_bin(checkpoint: Checkpoint, n_tokens: int) -> bytes | None:
    """None without a tokenizer; ValueError where run.c would cut texts in another way."""
    found = ggml_keys(checkpoint, n_tokens)
    keys = {key.removeprefix(_KEYS): value for key, value in found.items() if key.startswith(_KEYS)}
    if "tokens" not in keys:
        return None
    _require_like_llama(keys, n_tokens)
    pieces = [token.replace(SPACE, " ") for token in keys["tokens"]]
    for i, spelled in SPELLED.items():
        pieces[i] = spelled
    data = [piece.encode() for piece in pieces]
    entries = (
        pack("<fI", score, len(piece)) + piece
        for score, piece in zip(keys["scores"], data, strict=True)
    )
    return pack("<I", max(map(len, data))) + b"".join(entries)


def _require_like_llama(keys: Mapping[str, Any], n_tokens: int) -> None:
    if keys.get("model") != "llama" or "scores" not in keys:
        raise ValueError(
            f"its tokenizer is {keys.get('model')!r} of GGUF's kinds; llama2.c has SentencePiece's "
            f"BPE ('llama') only; {_ELSEWHERE}"
        )
    tokens = keys["tokens"]
    bytes_there = tokens[FIRST_BYTE : FIRST_BYTE + 256] == [f"<0x{b:02X}>" for b in range(256)]
    ids = keys.get("bos_token_id", BOS), keys.get("eos_token_id", EOS)
    if len(tokens) != n_tokens or not bytes_there or ids != (BOS, EOS):
        raise ValueError(
            f"its tokenizer has {len(tokens)} tokens for {n_tokens} rows, begins texts with "
            f"{ids[0]} and ends them with {ids[1]}; llama2.c takes a token for each row, {BOS} and "
            f"{EOS}, and the 256 bytes from {FIRST_BYTE} on; {_ELSEWHERE}"
        )


def _checked(written: Path, source: Source, logits: Logits) -> Report:
    """See checking.check; a chat template has no place in these files."""
    checkpoint = open_checkpoint(written)
    config = checkpoint.decoder_config()
    expected = load_tokenizer(source.checkpoint)
    _require_same_tokens(load_tokenizer(checkpoint), expected)
    ids = checking.probe_ids(expected, config.vocab_size, config.max_seq_len)
    found = checking.compared(logits(ids), checking.logits_of(checkpoint, ids))
    report = Report(written, "f32", written.stat().st_size, len(ids), *found)
    checking.require_close(report)
    return report


def _require_same_tokens(found: Tokenizer | None, expected: Tokenizer | None) -> None:
    if expected is None:
        return
    for _, content in checking.TALK:
        if found is None or found.encode(content) != expected.encode(content):
            raise ValueError(f"llama2.c would cut {content[:40]!r} into other tokens; {_ELSEWHERE}")
