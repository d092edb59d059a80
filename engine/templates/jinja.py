"""The checkpoint's own chat template, rendered byte for byte as transformers renders it.

The source is code from a stranger: it runs in jinja's sandbox and on a budget (_sandbox, _budget).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.templates._markers import Scaffold, known_markers, scaffold_of
from engine.templates._messages import Messages, checked

if TYPE_CHECKING:
    from jinja2 import Template

    from engine.templates._sandbox import ChatEnvironment

__all__ = ["JinjaTemplate"]

MAX_SOURCE = 256_000  # characters; the longest known ones have some 30,000
# a noncharacter, so that no conversation holds it; the space shows whether the template trims
OPEN_END = "\ufdd2 "


class JinjaTemplate:
    """A jinja chat template.

    source          the template's text; compiled when it is first used
    special_tokens  "bos_token", "eos_token", …: names that the template sees
    """

    name = "jinja"
    writes_bos = True

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        # one budget per environment: renderings take turns
        self._lock = threading.Lock()

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """Found in what the template writes around the contents of a probe conversation."""
        found = [*self._scaffold.markers, *known_markers(self.source)]
        return tuple(dict.fromkeys(found))

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """The markers that follow an answer, or that begin another one; BOS, EOS and their like end
        an answer as tokens, their text ("<s>") does not."""
        specials = self.special_tokens.values()
        return tuple(s for s in self._scaffold.stop_strings if s not in specials)

    @property
    def after_answer(self) -> str:
        """What the template writes right after an answer; "" when it could not be found out."""
        return self._scaffold.after_answer

    def render(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        **variables: Any,
    ) -> str:
        """As engine.templates.ChatTemplate. ValueError with the template's own message when it
        refuses the conversation, and with the reason when it is broken or never ends."""
        chat = checked(messages, continue_final=continue_final)
        if continue_final:
            chat[-1]["content"] += OPEN_END
        text = self._run(
            sum(len(message["content"]) for message in chat),
            messages=chat,
            add_generation_prompt=add_generation_prompt and not continue_final,
            # transformers passes both, so that `is defined` holds
            **{"tools": None, "documents": None, **self.special_tokens, **variables},
        )
        return _cut_at_open_end(text) if continue_final else text

    def _run(self, n_chars: int, **variables: Any) -> str:
        environment, template = self._compiled
        try:
            with self._lock, environment.rendering(n_chars):
                return template.render(variables)
        except Exception as error:  # whatever a template can raise, which is nearly everything
            raise ValueError(f"the chat template {_what_happened(error)}") from None

    @cached_property
    def _compiled(self) -> tuple[ChatEnvironment, Template]:
        if len(self.source) > MAX_SOURCE:
            raise ValueError(
                f"the chat template has {len(self.source):,} characters, more than {MAX_SOURCE:,} "
                "are not read; choose another one by name"
            )
        from engine.templates._sandbox import compiled

        try:
            return compiled(self.source)
        except Exception as error:
            line = f" (line {error.lineno})" if hasattr(error, "lineno") else ""
            raise ValueError(
                f"the chat template is broken{line}: {_one_line(error)}; choose another one by name"
            ) from None

    @cached_property
    def _scaffold(self) -> Scaffold:
        return scaffold_of(self.render)


def _what_happened(error: Exception) -> str:
    from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError

    from engine.templates._budget import RunawayTemplateError

    message = _one_line(error)
    if isinstance(error, RunawayTemplateError | SecurityError):
        return f"was stopped: {message}; choose another one by name"
    if isinstance(error, TemplateError) and not isinstance(error, TemplateRuntimeError):
        return f"refuses this conversation: {message}"
    return f"failed: {type(error).__name__}: {message}; choose another one by name"


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    return message if len(message) <= 300 else message[:300] + "…"


def _cut_at_open_end(text: str) -> str:
    """`text` up to the end of the message that was marked to stay open."""
    mark = OPEN_END.rstrip()
    at = text.rfind(mark)
    if at < 0:
        raise ValueError("the chat template drops the last answer, so it cannot be continued")
    kept = text[:at]
    # a template that trims contents would have trimmed this one, had it ended here
    return kept if text.startswith(OPEN_END, at) else kept.rstrip()
