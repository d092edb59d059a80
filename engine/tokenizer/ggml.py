"""Tokenizers from GGUF metadata: the keys below `tokenizer.ggml.`, checked before they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from engine.tokenizer.parts import END_NAMES, Parts

if TYPE_CHECKING:
    import tokenizers

NO_TOKENIZER = {None, "", "none", "no_vocab"}
NAMED_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


class TokenType(IntEnum):
    """GGUF's `token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The checked lists, all of one length; the token at index i has the id i.

    scores  floats, or None where the file has none
    """

    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] | None
    metadata: Mapping[str, Any]

    def of_type(self, *types: TokenType) -> list[int]:
        """Ids of these types, ascending."""
        return [i for i, kind in enumerate(self.types) if kind in types]


def parts_from_ggml(metadata: Mapping[str, Any]) -> Parts | None:
    """The tokenizer that `tokenizer.ggml.*` describes; None when it says that there is none.

    ValueError (one line) for metadata that contradicts itself and for kinds unknown here.
    """
    model = metadata.get("model")
    if model in NO_TOKENIZER:
        return None
    from engine.tokenizer import byte_level_bpe, sentencepiece

    builders = {
        "gpt2": byte_level_bpe.build,
        "llama": sentencepiece.build_bpe,
        "t5": sentencepiece.build_unigram,
    }
    if not isinstance(model, str) or model not in builders:
        known = ", ".join(builders)
        raise ValueError(f"tokenizer.ggml.model is {model!r}; this build reads {known}")
    return builders[model](vocabulary_of(metadata))


def vocabulary_of(metadata: Mapping[str, Any]) -> Vocabulary:
    """Tokens, types and scores. ValueError when missing, misshapen or of different lengths."""
    tokens = _listed(metadata, "tokens")
    if not tokens:
        raise ValueError("tokenizer.ggml.tokens is missing or empty")
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise ValueError(f"tokenizer.ggml.tokens[{i}] is {type(token).__name__}, not text")
    # an empty piece would match everywhere; llama.cpp renames it likewise
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"tokenizer.ggml.tokens holds {_first_duplicate(tokens)!r} twice")
    types = _numbers(metadata, "token_type", len(tokens))
    scores = _numbers(metadata, "scores", len(tokens))
    types = _without_mislabelled(tokens, types or [TokenType.NORMAL] * len(tokens))
    return Vocabulary(tokens, types, scores or None, metadata)


def named_ids(vocabulary: Vocabulary, defaults: Mapping[str, int]) -> dict[str, int]:
    """ "bos_token": id and so on. ValueError for an id outside the vocabulary.

    defaults  what llama.cpp assumes for this kind; taken where that token is a control token
    """
    found: dict[str, int] = {}
    for name, key in NAMED_IDS.items():
        token_id = id_of(vocabulary, f"{key}_token_id")
        default = defaults.get(name)
        if token_id is not None:
            found[name] = token_id
        elif default in vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN):
            found[name] = default
    return found


def id_of(vocabulary: Vocabulary, key: str) -> int | None:
    """The token id under `key`, None when the file has none; ValueError when it is no token's."""
    token_id, n_tokens = vocabulary.metadata.get(key), len(vocabulary.tokens)
    if token_id is None:
        return None
    if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < n_tokens:
        raise ValueError(f"tokenizer.ggml.{key} is {token_id!r}; there are {n_tokens} tokens")
    return token_id


def flag(vocabulary: Vocabulary, key: str, default: bool) -> bool:
    """A boolean of the metadata; ValueError for anything else under that key."""
    value = vocabulary.metadata.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"tokenizer.ggml.{key} is {value!r}, not true or false")
    return value


def finished(
    vocabulary: Vocabulary,
    backend: tokenizers.Tokenizer,
    named: Mapping[str, int],
    *,
    adds_bos: bool,
    **others: Any,
) -> Parts:
    """`backend` with the special and user-defined tokens, and what surrounds a text.

    adds_bos  where the file does not say
    others    the remaining fields of Parts
    """
    from tokenizers import AddedToken

    tokens = vocabulary.tokens
    control = set(vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)) | set(named.values())
    user_defined = set(vocabulary.of_type(TokenType.USER_DEFINED)) - control
    special = {i: tokens[i] for i in sorted(control)}
    added = {i: tokens[i] for i in sorted(user_defined)}
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in special.values()])
    backend.add_tokens([AddedToken(t, normalized=False) for t in added.values()])
    edges = {}
    for name, default in (("bos", adds_bos), ("eos", False)):
        wanted = flag(vocabulary, f"add_{name}_token", default)
        edges[name] = (named[f"{name}_token"],) if wanted and f"{name}_token" in named else ()
    ends = [id_of(vocabulary, f"{name}_token_id") for name in ("eot", "eom")]
    ends.append(named.get("eos_token"))
    return Parts(
        backend=backend,
        special=special,
        added=added,
        named=named,
        prefix=edges["bos"],
        suffix=edges["eos"],
        end_ids=frozenset(i for i in ends if i is not None),
        **others,
    )


def _listed(metadata: Mapping[str, Any], key: str) -> list[Any]:
    value = metadata.get(key)
    if value is None:
        return []
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        raise ValueError(f"tokenizer.ggml.{key} is {type(value).__name__}, not a list")
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _numbers(metadata: Mapping[str, Any], key: str, n_tokens: int) -> list[Any]:
    """A list of `n_tokens` numbers, [] when the file has none."""
    numbers = _listed(metadata, key)
    if numbers and len(numbers) != n_tokens:
        n = len(numbers)
        raise ValueError(
            f"tokenizer.ggml.{key} has {n} entries for {n_tokens} tokens; they must match"
        )
    for i, number in enumerate(numbers):
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"tokenizer.ggml.{key}[{i}] is {number!r}, not a number")
    return numbers


def _first_duplicate(tokens: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]


def _without_mislabelled(tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """Ends of turn are control tokens even where a converter wrote them as user-defined."""
    fixed = list(types)
    for i, token in enumerate(tokens):
        if token in END_NAMES and types[i] == TokenType.USER_DEFINED:
            fixed[i] = TokenType.CONTROL
    return fixed
