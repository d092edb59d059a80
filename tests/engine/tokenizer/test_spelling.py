"""How pieces spell bytes."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

from engine.tokenizer.spelling import BYTE_OF, byte_level, sentencepiece, spelling_of


def test_the_byte_characters_are_gpt2s() -> None:
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert [BYTE_OF[c] for c in "Aé~¡ÿ"] == [0x41, 0xE9, 0x7E, 0xA1, 0xFF]
    assert [BYTE_OF[c] for c in "ĀĊĠġŃ"] == [0x00, 0x0A, 0x20, 0x7F, 0xAD]


def test_pieces_outside_of_the_byte_characters_stand_for_themselves() -> None:
    assert byte_level("Ġa") == b" a"
    assert byte_level("a b") == b"a b"
    assert byte_level("好") == "好".encode()


def test_sentencepiece_spells_spaces_and_bytes() -> None:
    assert sentencepiece("▁a▁") == b" a "
    assert sentencepiece("<0x0A>") == b"\n"
    assert sentencepiece("<0xff>") == b"\xff"
    assert sentencepiece("<0x0A>a") == b"<0x0A>a"


@pytest.mark.parametrize(
    ("decoder", "spelling", "drops"),
    [
        (decoders.ByteLevel(), byte_level, False),
        (decoders.Sequence([decoders.ByteLevel()]), byte_level, False),
        (decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()]), sentencepiece, False),
        (
            decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)]),
            sentencepiece,
            True,
        ),
        (decoders.Metaspace(), sentencepiece, True),
        (decoders.Metaspace(prepend_scheme="never"), sentencepiece, False),
        (None, sentencepiece, False),
    ],
)
def test_the_spelling_follows_from_the_decoder(decoder: Any, spelling: Any, drops: bool) -> None:
    backend = Tokenizer(models.BPE())
    if decoder is not None:
        backend.decoder = decoder
    assert spelling_of(backend) == (spelling, drops)


def test_other_families_are_refused_in_one_line() -> None:
    backend = Tokenizer(models.WordPiece())
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="decodes by WordPiece; this build has byte-level BPE"):
        spelling_of(backend)
