"""Tokenizers from a Hugging Face directory: tokenizer.json, completed by tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.templates import special_tokens_of
from engine.tokenizer.parts import Parts
from engine.tokenizer.spelling import spelling_of

if TYPE_CHECKING:
    import tokenizers

Edges = tuple[tuple[int, ...], tuple[int, ...]]
PROBE = "a"  # any text: what surrounds its tokens is what the post-processor adds


def parts_from_json(
    path: Path, tokenizer_config: Mapping[str, Any], config: Mapping[str, Any]
) -> Parts:
    """The tokenizer in tokenizer.json.

    tokenizer_config  names the special tokens and may overrule the post-processor's BOS and EOS
    config            config.json: its ids stand in where the names are missing

    ValueError when the file is broken or its kind is not supported.
    """
    from tokenizers import Tokenizer

    with _library_errors(path):
        backend = Tokenizer.from_file(str(path))
        backend.no_truncation()
        backend.no_padding()
        surroundings = _post_processor_s(backend)
    _add_missing(backend, tokenizer_config)
    listed = backend.get_added_tokens_decoder()
    names = special_tokens_of({**_special_tokens_map(path), **tokenizer_config})
    found = {name: backend.token_to_id(token) for name, token in names.items()}
    named = {name: token_id for name, token_id in found.items() if token_id is not None}
    for name in ("bos_token", "eos_token", "pad_token"):
        token_id = config.get(f"{name}_id")
        if name not in named and isinstance(token_id, int) and backend.id_to_token(token_id):
            named[name] = token_id
    special = {i: token.content for i, token in listed.items() if token.special}
    special |= {i: str(backend.id_to_token(i)) for i in named.values()}
    prefix, suffix = _configured(tokenizer_config, named) or surroundings
    spelling, strip_one_space = spelling_of(backend)
    return Parts(
        backend=backend,
        spelling=spelling,
        special=special,
        added={i: token.content for i, token in listed.items() if i not in special},
        named=named,
        prefix=prefix,
        suffix=suffix,
        strip_one_space=strip_one_space,
        end_ids=frozenset({named["eos_token"]} if "eos_token" in named else ()),
    )


@contextmanager
def _library_errors(path: Path) -> Iterator[None]:
    """Whatever the library makes of a broken file, as one line."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # it panics on some files, which is no Exception
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path.name} cannot be read: {reason}; fetch the checkpoint again"
        ) from None


def _add_missing(backend: tokenizers.Tokenizer, tokenizer_config: Mapping[str, Any]) -> None:
    """Tokens that only tokenizer_config.json lists, at the ids it gives them."""
    from tokenizers import AddedToken

    listed = tokenizer_config.get("added_tokens_decoder")
    if not isinstance(listed, Mapping):
        return
    present = backend.get_added_tokens_decoder()
    entries = [(int(key), value) for key, value in listed.items() if str(key).isdecimal()]
    for token_id, entry in sorted(entries, key=lambda item: item[0]):
        content = entry.get("content") if isinstance(entry, Mapping) else None
        if not isinstance(content, str) or token_id in present:
            continue
        flags = {key: bool(entry.get(key)) for key in ("lstrip", "rstrip", "normalized", "special")}
        token = AddedToken(content, single_word=bool(entry.get("single_word")), **flags)
        (backend.add_special_tokens if flags["special"] else backend.add_tokens)([token])
        if backend.token_to_id(content) != token_id:
            raise ValueError(
                f"tokenizer_config.json wants {content!r} at {token_id}, tokenizer.json puts it at "
                f"{backend.token_to_id(content)}; they belong to different tokenizers"
            )


def _special_tokens_map(path: Path) -> dict[str, Any]:
    """special_tokens_map.json beside tokenizer.json: older checkpoints name their tokens there."""
    try:
        found = json.loads(path.with_name("special_tokens_map.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _configured(tokenizer_config: Mapping[str, Any], named: Mapping[str, int]) -> Edges | None:
    """Ids before and after a text where tokenizer_config.json has its say."""
    flags = {name: tokenizer_config.get(f"add_{name}_token") for name in ("bos", "eos")}
    if all(value is None for value in flags.values()):
        return None
    before, after = (
        (named[f"{name}_token"],) if value and f"{name}_token" in named else ()
        for name, value in flags.items()
    )
    return before, after


def _post_processor_s(backend: tokenizers.Tokenizer) -> Edges:
    """Ids that the post-processor puts before and after a text."""
    bare = backend.encode(PROBE, add_special_tokens=False).ids
    dressed = backend.encode(PROBE, add_special_tokens=True).ids
    for start in range(len(dressed) - len(bare) + 1 if bare else 0):
        if dressed[start : start + len(bare)] == bare:
            return tuple(dressed[:start]), tuple(dressed[start + len(bare) :])
    # a vocabulary without the probe: what there is comes before a text, as BOS does
    return tuple(dressed), ()
