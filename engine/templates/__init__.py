"""Chat templates: a conversation becomes the text a model was trained on, in chat and in training.

A fixed template is one module of this folder, found by its name, with `name`, `stop_strings`,
`markers`, `writes_bos` and `render`; "jinja" is the checkpoint's own. Modules whose names begin
with an underscore are parts of templates.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol, cast

from loguru import logger

from engine.templates._forms import form_of, known_as
from engine.templates._messages import Message, Messages

__all__ = [
    "TEMPLATES",
    "ChatTemplate",
    "Message",
    "Messages",
    "continues",
    "known_as",
    "template_for",
    "template_named",
]

TEMPLATES = tuple(sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_")))


class ChatTemplate(Protocol):
    """A way to write conversations down. Reading any of it may raise ValueError: one line."""

    @property
    def name(self) -> str: ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Text that means the answer is over: a model writing the next turn's header itself."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Text that marks roles and turns, which the content of a message must not forge.

        A marker that begins with a letter ("User:") counts only at the start of a line.
        """

    @property
    def writes_bos(self) -> bool:
        """Whether `render` itself writes a BOS token where the model wants one."""

    def render(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as text.

        add_generation_prompt  end with the header of the assistant's next turn
        continue_final         leave the last message, the assistant's, open; no generation prompt
        variables              for jinja templates (`tools`, `date_string`, …); others ignore them
        """


class TemplateSource(Protocol):
    """What is read of an engine.checkpoints.Checkpoint."""

    @property
    def path(self) -> Path: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def tokenizer_config(self) -> Mapping[str, Any]: ...
    @property
    def chat_template(self) -> str | None: ...


def template_named(name: str) -> ChatTemplate:
    """The fixed template `name`; ValueError with the nearest names for others."""
    if name == "jinja":
        raise ValueError("the template 'jinja' comes with a checkpoint; ask template_for for it")
    if name not in TEMPLATES:
        near = get_close_matches(name, TEMPLATES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TEMPLATES)}"
        raise ValueError(f"no chat template is called {name!r}; {hint}")
    return cast(ChatTemplate, import_module(f"{__name__}.{name}"))


def template_for(
    checkpoint: TemplateSource,
    name: str | None = None,
    *,
    special_tokens: Mapping[str, str] | None = None,
    vocabulary: Container[str] = (),
) -> ChatTemplate:
    """The template `name`, or by default the checkpoint's own, or one that fits its names.

    special_tokens  "bos_token", "eos_token", … as the jinja template sees them; default: those of
                    the checkpoint's tokenizer_config
    vocabulary      token strings; with <|im_start|> among them ChatML is the default
    """
    if name is None and _own_template(checkpoint) is None:
        name = form_of(checkpoint.path, checkpoint.config, vocabulary)
        logger.info("{} has no chat template; using {!r}", checkpoint.path.name, name)
    if name not in (None, "jinja"):
        return template_named(name)
    source = _own_template(checkpoint)
    if source is None:
        others = ", ".join(t for t in TEMPLATES if t != "jinja")
        raise ValueError(f"{checkpoint.path.name} has no chat template; name one of {others}")
    from engine.templates.jinja import JinjaTemplate

    if special_tokens is None:
        special_tokens = special_tokens_of(checkpoint.tokenizer_config)
    return JinjaTemplate(source, special_tokens)


def continues(template: ChatTemplate) -> bool:
    """Whether it has no turns: what is typed is continued."""
    return bool(getattr(template, "continues", False))


def special_tokens_of(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """The entries called "…_token" that hold a token, either as a string or as an object."""
    found = {}
    for key, value in tokenizer_config.items():
        token = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(token, str):
            found[key] = token
    return found


def _own_template(checkpoint: TemplateSource) -> str | None:
    """The checkpoint's jinja source: its default one, else the first of several named ones."""
    if checkpoint.chat_template is not None:
        return checkpoint.chat_template
    named = checkpoint.tokenizer_config.get("chat_template")
    if isinstance(named, str):
        return named
    if isinstance(named, Mapping):
        named = [{"name": key, "template": value} for key, value in named.items()]
    if not isinstance(named, list):
        return None
    entries = [e for e in named if isinstance(e, Mapping) and isinstance(e.get("template"), str)]
    entries.sort(key=lambda entry: entry.get("name") != "default")
    return entries[0]["template"] if entries else None
