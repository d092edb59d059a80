"""Compressed files (.gz, .zst), known by their first bytes whatever their names are."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SUFFIXES = (".gz", ".zst", ".zstd")
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20
# zstd packs zeros 32,000-fold, and what a piece holds is unpacked at once: 128 MB at worst
_PIECE = 1 << 12
# what `zstd --long=31` asks of a reader; by itself the library stops at 128 MB
_MAX_WINDOW_BYTES = 1 << 31


class DamagedError(ValueError):
    """The compressed data ends too early or is wrong; in a few words."""


def is_compressed(beginning: bytes) -> bool:
    """Does a file with these first bytes (four or more) go through `unpacked`?"""
    return beginning.startswith((_GZIP, _ZSTD))


def inner_name(name: str) -> str:
    """The name without the suffix of compression: "a.jsonl.gz" is "a.jsonl"."""
    suffix = next((s for s in SUFFIXES if name.casefold().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def unpacked(path: Path) -> Iterator[bytes]:
    """The content of the compressed file, block by block.

    DamagedError after what could be read; ValueError when a package is missing.
    """
    with path.open("rb") as file:
        is_gzip = file.read(4).startswith(_GZIP)
        file.seek(0)
        yield from _gunzipped(file) if is_gzip else _unzstd(file)


def _gunzipped(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacker:
        try:
            while block := unpacker.read1(_BLOCK):
                yield block
        except EOFError as error:
            raise _torn() from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _wrong(error) from error


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise ValueError(
            "the package zstandard is missing; "
            "python -m pip install 'sparsechat[train]' installs it"
        ) from error
    library = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    # its stream_reader takes a torn file for a whole one; this object knows the end of a frame
    unpacker, piece = library.decompressobj(), file.read(_PIECE)
    is_between_frames = True
    try:
        while piece:
            if block := unpacker.decompress(piece):
                yield block
            is_between_frames = unpacker.eof
            piece = (unpacker.unused_data if unpacker.eof else b"") or file.read(_PIECE)
            if unpacker.eof and piece:
                unpacker = library.decompressobj()
    except zstandard.ZstdError as error:
        raise _wrong(error) from error
    if not is_between_frames:
        raise _torn()


def _torn() -> DamagedError:
    return DamagedError("it ends in the middle of its compressed data")


def _wrong(error: Exception) -> DamagedError:
    return DamagedError(f"its compressed data is damaged ({error})")
