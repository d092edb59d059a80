"""A Hugging Face directory's tokenizer below "tokenizer.ggml.", as llama.cpp reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.checkpoints import Checkpoint
from engine.tokenizer.ggml import NAMED_IDS, TokenType
from engine.tokenizer.parts import END_NAMES, Parts
from engine.tokenizer.pre_tokenizers import KINDS, pre_tokenizer
from engine.tokenizer.spelling import BYTE_PIECE, byte_level

if TYPE_CHECKING:
    import tokenizers

# these come first where several names stand for one way to cut words; llama.cpp knows them all, and
# calls GPT-NeoX's MPT's
_PREFERRED = ("gpt-2", "mpt", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o")
# what the kinds cut in different ways
_PROBE = (
    "Hello, it's I'LL we'd don't 1 12 123 1234567 3.14\n\n\n  x = y+1;\t\tÜber ÜBER naïve ßtraße "
    "camelCase HTTPServer snake_case a/b//c 日本語のテキスト 中文字符 русский текст العربية 😀👍 "
    "!!! ... --- <tag> [x] {y} (z) $%&* \r\n   \u3000end.\nnext;\n\n "
    "नमस्ते e\u0301te กำ \u00a0  \n \n"
)


def ggml_keys(checkpoint: Checkpoint, n_rows: int) -> dict[str, Any]:
    """Keys with their values; {} when the checkpoint has no tokenizer.

    n_rows  of the embedding: there is to be a token for each
    ValueError for a tokenizer that GGUF has no words for.
    """
    from engine.tokenizer import huggingface, sentencepiece_model

    template = {}
    if checkpoint.chat_template is not None:
        template = {"tokenizer.chat_template": checkpoint.chat_template}
    if checkpoint.ggml_tokenizer is not None:
        found = dict(checkpoint.ggml_tokenizer)
    elif checkpoint.tokenizer_json is not None:
        config = checkpoint.tokenizer_config
        parts = huggingface.parts_from_json(checkpoint.tokenizer_json, config, checkpoint.config)
        found = _from_parts(parts)
    elif (model := checkpoint.path / "tokenizer.model").is_file():
        found = sentencepiece_model.metadata_from_model(model)
        found["token_type"] = list(map(int, found["token_type"]))
        for name in ("add_bos_token", "add_eos_token"):
            if isinstance(flag := checkpoint.tokenizer_config.get(name), bool):
                found[name] = flag
        if not found["precompiled_charsmap"]:
            del found["precompiled_charsmap"]
    else:
        return template
    found = _filled(found, n_rows)
    return {f"tokenizer.ggml.{key}": value for key, value in found.items()} | template


def _from_parts(parts: Parts) -> dict[str, Any]:
    data = json.loads(parts.backend.to_str())
    model, kind = data["model"], data["model"].get("type", "BPE")
    tokens = _tokens(parts.backend)
    found: dict[str, Any] = {"tokens": tokens, "token_type": _types(parts, tokens)}
    if kind == "BPE" and parts.spelling is byte_level:
        found |= {"model": "gpt2", "pre": _pre_name(parts.backend, data)}
        found["merges"] = [" ".join(pair) for pair in _merges(model)]
    elif kind == "BPE":
        found |= {"model": "llama", "scores": _scores(tokens, _merges(model))}
    elif kind == "Unigram":
        scores = dict(model["vocab"])
        found |= {"model": "t5", "scores": [float(scores.get(t, 0.0)) for t in tokens]}
    else:
        raise ValueError(f"a tokenizer of kind {kind} is not written as GGUF")
    if found["model"] != "gpt2":
        found["add_space_prefix"] = parts.strip_one_space
    return found | _named(parts)


def _named(parts: Parts) -> dict[str, Any]:
    """Ids of special tokens, and what surrounds a text."""
    found: dict[str, Any] = {
        f"{NAMED_IDS[name]}_token_id": i for name, i in parts.named.items() if name in NAMED_IDS
    }
    eos = parts.named.get("eos_token")
    turns = [i for i in sorted(parts.end_ids) if i != eos]
    turns += [i for i, token in parts.special.items() if token in END_NAMES and "end" in token]
    for i in turns:
        if i not in (eos, parts.named.get("pad_token"), parts.named.get("unk_token")):
            found["eot_token_id"] = i
            break
    return found | {"add_bos_token": bool(parts.prefix), "add_eos_token": bool(parts.suffix)}


def _tokens(backend: tokenizers.Tokenizer) -> list[str]:
    """By id; ids that no token has get a name of their own."""
    ids = backend.get_vocab(with_added_tokens=True)
    by_id = {i: token for token, i in ids.items()}
    return [by_id.get(i, f"[UNUSED_{i}]") for i in range(max(by_id) + 1)]


def _types(parts: Parts, tokens: Sequence[str]) -> list[int]:
    unknown = parts.named.get("unk_token")
    types = []
    for i, token in enumerate(tokens):
        if token == f"[UNUSED_{i}]":
            types.append(TokenType.UNUSED)
        elif parts.spelling is not byte_level and i == unknown:
            types.append(TokenType.UNKNOWN)
        elif i in parts.special:
            types.append(TokenType.CONTROL)
        elif i in parts.added:
            types.append(TokenType.USER_DEFINED)
        elif parts.spelling is not byte_level and BYTE_PIECE.fullmatch(token):
            types.append(TokenType.BYTE)
        else:
            types.append(TokenType.NORMAL)
    return list(map(int, types))


def _merges(model: Mapping[str, Any]) -> list[list[str]]:
    """In order; older files have them as "a b"."""
    return [m.split(" ", 1) if isinstance(m, str) else list(m) for m in model["merges"]]


def _scores(tokens: Sequence[str], merges: Sequence[Sequence[str]]) -> list[float]:
    """SentencePiece joins what gives the best score: here that of the first merge that gives it."""
    first: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
    return [float(-first.get(token, len(merges))) for token in tokens]


def _pre_name(backend: tokenizers.Tokenizer, data: Mapping[str, Any]) -> str:
    """tokenizer.ggml.pre: the kind that cuts the probe as the backend does."""
    normalizer = data.get("normalizer")
    forms = {None} if normalizer is None else {normalizer.get("type")}
    if forms - {None, "NFC"} or backend.pre_tokenizer is None:
        raise ValueError(
            "its tokenizer normalises texts in a way that GGUF has no name for; a Hugging Face "
            "directory keeps it"
        )
    cuts = backend.pre_tokenizer.pre_tokenize_str(_PROBE)
    whole_words = bool(data["model"].get("ignore_merges"))
    for name in dict.fromkeys((*_PREFERRED, *KINDS)):
        kind = KINDS[name]
        if (kind.nfc, kind.ignore_merges) != ("NFC" in forms, whole_words):
            continue
        if pre_tokenizer(kind).pre_tokenize_str(_PROBE) == cuts:
            return name
    raise ValueError(
        "its tokenizer cuts words in a way that GGUF has no name for; a Hugging Face directory "
        "keeps it"
    )


def _filled(found: dict[str, Any], n_rows: int) -> dict[str, Any]:
    """With a token for each row of the embedding."""
    n_tokens = len(found["tokens"])
    if n_tokens > n_rows:
        raise ValueError(f"there are {n_tokens} tokens for {n_rows} rows of the embedding")
    more = range(n_tokens, n_rows)
    found["tokens"] = [*found["tokens"], *(f"[PAD{i}]" for i in more)]
    found["token_type"] = [*found["token_type"], *(int(TokenType.UNUSED) for _ in more)]
    if "scores" in found:
        found["scores"] = [*found["scores"], *(-1000.0 for _ in more)]
    return found
