"""Byte-level BPE (GPT-2's kind) from GGUF metadata: the merges are in the file."""

from __future__ import annotations

from engine.tokenizer import ggml, spelling
from engine.tokenizer.parts import Parts
from engine.tokenizer.pre_tokenizers import kind_named, pre_tokenizer


def build(vocabulary: ggml.Vocabulary) -> Parts:
    """ValueError for merges that are missing, misshapen or of pieces that are no tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    kind = kind_named(vocabulary.metadata.get("pre"))
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    model = models.BPE(vocab=ids, merges=_merges(vocabulary, ids), ignore_merges=kind.ignore_merges)
    backend = Tokenizer(model)
    if kind.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizer(kind)
    backend.decoder = decoders.ByteLevel()
    return ggml.finished(
        vocabulary,
        backend,
        ggml.named_ids(vocabulary, {}),
        adds_bos=kind.adds_bos,
        spelling=spelling.byte_level,
    )


def _merges(vocabulary: ggml.Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    listed = vocabulary.metadata.get("merges")
    if listed is None:
        raise ValueError("tokenizer.ggml.merges is missing; byte-level BPE cannot do without")
    found = []
    for i, merge in enumerate(listed):
        if not isinstance(merge, str):
            raise ValueError(f"tokenizer.ggml.merges[{i}] is {type(merge).__name__}, not text")
        # from the second character on, because the first may itself be a space
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or not right:
            raise ValueError(f"tokenizer.ggml.merges[{i}] is {merge!r}, not two pieces")
        for piece in (left, right, left + right):
            if piece not in ids:
                raise ValueError(
                    f"tokenizer.ggml.merges[{i}] is {merge!r}, but {piece!r} is no token"
                )
        found.append((left, right))
    return found
