"""Text to token ids and back, and conversations to prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from engine.templates import ChatTemplate, Messages, special_tokens_of, template_for
from engine.tokenizer.detokenizer import Detokenizer
from engine.tokenizer.guard import Guard
from engine.tokenizer.parts import END_NAMES, Parts

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer"]


class TokenizerSource(Protocol):
    """What is read of an engine.checkpoints.Checkpoint besides the template."""

    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def generation_config(self) -> Mapping[str, Any]: ...


class Tokenizer:
    """A checkpoint's vocabulary and its chat template.

    vocab_size    tokens in the vocabulary; the model's embedding may have more rows
    add_bos       whether encode(add_special_tokens=True) begins with BOS
    special_ids   control tokens: never shown to the user
    stop_ids      EOS and the ends of turn that the vocabulary and the template know
    template      may be replaced by another of engine.templates
    """

    def __init__(self, parts: Parts, template: ChatTemplate, end_ids: Sequence[int] = ()) -> None:
        self._parts = parts
        self._end_ids = frozenset(end_ids) | parts.end_ids
        self._bytes_of: dict[int, bytes] = {}
        self.template = template
        self.vocab_size = parts.backend.get_vocab_size(with_added_tokens=True)
        self.bos_token_id = parts.named.get("bos_token")
        self.eos_token_id = parts.named.get("eos_token")
        self.pad_token_id = parts.named.get("pad_token")
        self.add_bos = bool(parts.prefix)
        self.special_ids = frozenset(parts.special)

    @property
    def template(self) -> ChatTemplate:
        return self._template

    @template.setter
    def template(self, template: ChatTemplate) -> None:
        self._template = template
        # what contents may not spell depends on what the template writes
        self.__dict__.pop("_guard", None)
        self.__dict__.pop("stop_ids", None)

    def encode(
        self, text: str, *, add_special_tokens: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of `text`; what is no valid text in it (lone surrogates) becomes U+FFFD.

        add_special_tokens  surround it by BOS and EOS as the checkpoint says
        parse_special       read the spellings of control tokens as these tokens; without it they
                            are ordinary text
        """
        text = _valid(text)
        ids = self._encode_parsing(text) if parse_special else self._guard.encode(text)
        if add_special_tokens:
            return [*self._parts.prefix, *ids, *self._parts.suffix]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of the ids; bytes that are no UTF-8 become U+FFFD, unknown ids nothing."""
        special = {} if skip_special else self._parts.special
        joined = b"".join(special[i].encode() if i in special else self.token_bytes(i) for i in ids)
        text = joined.decode("utf-8", "replace")
        return text.removeprefix(" ") if self._parts.strip_one_space else text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that this token adds to a text; b"" for control tokens and unknown ids."""
        found = self._bytes_of.get(token_id)
        if found is None:
            found = self._bytes_of[token_id] = self._spelled(token_id)
        return found

    def render(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as the template writes it, byte for byte what transformers renders."""
        return self.template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final=continue_final,
            **variables,
        )

    def encode_chat(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        **variables: Any,
    ) -> list[int]:
        """The conversation as token ids. What contents spell cannot become control tokens or role
        markers; for contents that spell none, the ids are those of the rendered text."""
        rendered = self.render(
            [{**m, "content": self._marked(m.get("content"))} for m in messages],
            add_generation_prompt=add_generation_prompt,
            continue_final=continue_final,
            **variables,
        )
        ids = self._guard.encode_rendered(_valid(rendered))
        return ids if self.template.writes_bos else [*self._parts.prefix, *ids]

    def detokenizer(self, stop: Sequence[str] = (), *, continues: bool = False) -> Detokenizer:
        """For one generated text. The template's stop strings are not added by themselves.

        continues  the text goes on where the prompt ends within a sentence, so that the space that
                   SentencePiece's first word begins with is one
        """
        strip = self._parts.strip_one_space and not continues
        return Detokenizer(self.token_bytes, stop, strip_one_space=strip)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        named = {i for i, token in self._parts.special.items() if token in END_NAMES}
        return self._end_ids | named | frozenset(self._template_end())

    def _template_end(self) -> Iterator[int]:
        """The control token that the template writes right after an answer."""
        try:
            after = str(getattr(self.template, "after_answer", "")).lstrip()
        except ValueError:
            return  # a broken template; rendering will say so
        for token_id, token in self._parts.special.items():
            if after.startswith(token):
                yield token_id

    @cached_property
    def _guard(self) -> Guard:
        try:
            markers = self.template.markers
        except ValueError:
            markers = ()  # a broken template renders nothing that would have to be guarded
        source = getattr(self.template, "source", "")
        control = dict(self._parts.special)
        for token_id, token in self._parts.added.items():
            if not token.isspace() and (token in markers or token in source):
                control[token_id] = token
        return Guard(self._parts.backend, control, markers)

    def _marked(self, content: Any) -> Any:
        return self._guard.marked(_valid(content)) if isinstance(content, str) else content

    def _encode_parsing(self, text: str) -> list[int]:
        ids: list[int] = self._parts.backend.encode(text, add_special_tokens=False).ids
        return ids

    def _spelled(self, token_id: int) -> bytes:
        if token_id in self._parts.special or not 0 <= token_id < 1 << 32:
            return b""
        piece = self._parts.backend.id_to_token(token_id)
        return b"" if piece is None else self._parts.spelling(piece)


def tokenizer_from(parts: Parts, checkpoint: Any) -> Tokenizer:
    """`parts` with the template and the further end tokens of a checkpoint."""
    vocabulary = _Vocabulary(parts.backend)
    named = {name: str(parts.backend.id_to_token(i)) for name, i in parts.named.items()}
    special = {**special_tokens_of(checkpoint.tokenizer_config), **named}
    template = template_for(checkpoint, special_tokens=special, vocabulary=vocabulary)
    n_tokens = parts.backend.get_vocab_size(with_added_tokens=True)
    return Tokenizer(parts, template, list(_end_ids(checkpoint, n_tokens)))


class _Vocabulary:
    """Whether a string is a token, without a copy of all of them."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and self._backend.token_to_id(token) is not None


def _end_ids(checkpoint: TokenizerSource, vocab_size: int) -> Iterator[int]:
    for settings in (checkpoint.generation_config, checkpoint.config):
        found = settings.get("eos_token_id")
        for token_id in found if isinstance(found, list | tuple) else [found]:
            if isinstance(token_id, int) and 0 <= token_id < vocab_size:
                yield token_id


def _valid(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
