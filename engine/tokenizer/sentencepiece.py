"""SentencePiece vocabularies from GGUF metadata: BPE by scores ("llama") and unigram ("t5")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.tokenizer import ggml, spelling
from engine.tokenizer.ggml import TokenType
from engine.tokenizer.parts import Parts

MATCHED = (TokenType.NORMAL, TokenType.USER_DEFINED)
# below any sum of scores that a few pieces can reach
UNREACHABLE = -100.0


def build_bpe(vocabulary: ggml.Vocabulary) -> Parts:
    """SentencePiece's BPE joins the neighbours whose union has the best score; here the same is
    spelled out as a list of merges."""
    from tokenizers import Tokenizer, models

    if vocabulary.scores is None:
        raise ValueError("tokenizer.ggml.scores is missing; a SentencePiece vocabulary needs it")
    named = ggml.named_ids(vocabulary, {"bos_token": 1, "eos_token": 2, "unk_token": 0})
    unknown = _unknown(vocabulary, named)
    model = models.BPE(
        vocab={token: i for i, token in enumerate(vocabulary.tokens)},
        merges=merges_by_score(vocabulary, vocabulary.scores),
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
        fuse_unk=True,
        byte_fallback=bool(vocabulary.of_type(TokenType.BYTE)),
    )
    return _finished(vocabulary, Tokenizer(model), named, adds_bos=True)


def build_unigram(vocabulary: ggml.Vocabulary) -> Parts:
    """SentencePiece's unigram model: the segmentation whose scores have the largest sum."""
    from tokenizers import Tokenizer, models

    if vocabulary.scores is None:
        raise ValueError("tokenizer.ggml.scores is missing; a unigram vocabulary needs it")
    named = ggml.named_ids(vocabulary, {"eos_token": 1, "unk_token": 2, "pad_token": 0})
    unknown = _unknown(vocabulary, named)
    floor = min(vocabulary.scores) + UNREACHABLE
    # "</s>" or "<0x41>" written in a text is text: only pieces of these types may match
    scores = [
        score if kind in MATCHED else floor
        for score, kind in zip(vocabulary.scores, vocabulary.types, strict=True)
    ]
    has_bytes = bool(vocabulary.of_type(TokenType.BYTE))
    pieces = list(zip(vocabulary.tokens, scores, strict=True))
    model = models.Unigram(pieces, unk_id=unknown, byte_fallback=has_bytes)
    return _finished(vocabulary, Tokenizer(model), named, adds_bos=False)


def merges_by_score(vocabulary: ggml.Vocabulary, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, best piece first.

    Control and byte pieces take no part, as in SentencePiece: no text becomes one by merging.
    """
    score_of = {vocabulary.tokens[i]: scores[i] for i in vocabulary.of_type(*MATCHED)}
    found = [
        (-score, -cut, piece[:cut], piece[cut:])
        for piece, score in score_of.items()
        for cut in range(1, len(piece))
        if piece[:cut] in score_of and piece[cut:] in score_of
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _unknown(vocabulary: ggml.Vocabulary, named: dict[str, int]) -> int | None:
    marked = vocabulary.of_type(TokenType.UNKNOWN)
    return marked[0] if marked else named.get("unk_token")


def _finished(vocabulary: ggml.Vocabulary, backend: Any, named: Any, *, adds_bos: bool) -> Parts:
    from tokenizers import decoders, normalizers

    prefix_space = ggml.flag(vocabulary, "add_space_prefix", True)
    backend.normalizer = normalizers.Sequence(list(_normalizers(vocabulary, prefix_space)))
    undo: list[Any] = [decoders.Replace(spelling.SPACE, " "), decoders.ByteFallback()]
    undo.append(decoders.Fuse())
    if prefix_space:
        undo.append(decoders.Strip(content=" ", left=1, right=0))
    backend.decoder = decoders.Sequence(undo)
    return ggml.finished(
        vocabulary,
        backend,
        named,
        adds_bos=adds_bos,
        spelling=spelling.sentencepiece,
        strip_one_space=prefix_space,
    )


def _normalizers(vocabulary: ggml.Vocabulary, prefix_space: bool) -> Iterable[Any]:
    from tokenizers import Regex, normalizers

    charsmap = vocabulary.metadata.get("precompiled_charsmap")
    if charsmap is not None and len(charsmap):
        try:
            yield normalizers.Precompiled(bytes(bytearray(charsmap)))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # the library panics on some maps, which is no Exception
            raise ValueError(f"tokenizer.ggml.precompiled_charsmap is broken: {error}") from None
    if ggml.flag(vocabulary, "remove_extra_whitespaces", False):
        yield normalizers.Replace(Regex(r"\A +| +\z"), "")
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if prefix_space:
        yield normalizers.Prepend(spelling.SPACE)
    yield normalizers.Replace(" ", spelling.SPACE)
