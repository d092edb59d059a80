"""One conversation: what was said, and how the next answer is asked of the model.

A Turn is one answer in the making. It touches the conversation once, when it has ended, so that an
answer that fails or is refused leaves everything as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bot.prompt import Budget, Exchange, View, build_prompt, messages_of
from bot.settings import Settings

if TYPE_CHECKING:
    from engine import Cancel, Generation, Model, SamplingParams, Step, Usage
    from engine.templates import ChatTemplate
    from engine.tokenizer import Tokenizer

CUT_SHORT = ("length", "context", "cancelled")  # what /continue can go on from


@dataclass
class Turn:
    """One answer; iterate `steps` to the end, after which `usage` and `text` are set."""

    model: Model
    ids: list[int]
    params: SamplingParams
    # (text, finish_reason) into the conversation; None leaves the conversation as it is
    commit: Callable[[str, str], None] | None
    stop: tuple[str, ...] = ()  # the user's; params.stop has the template's too
    left_out: range = range(0)  # numbers of the turns that leave the model's view now
    continues: bool = False  # the text goes on in the middle of one: its first space counts
    n_restored: int = 0  # tokens of the prompt that a saved session's cache on disk had,
    restore_s: float = 0.0  # and how long it took to read them back; usage knows neither
    usage: Usage | None = None
    text: str = ""

    def steps(
        self, cancel: Cancel, on_progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Step]:
        """Generate; on_progress(done_tokens, total_tokens) is called while the prompt is read."""
        import engine

        generation: Generation = engine.stream(
            self.model,
            self.ids,
            self.params,
            cancel=cancel,
            on_progress=on_progress,
            continues=self.continues,
        )
        yield from generation
        self.usage, self.text = generation.usage, generation.text
        if self.commit is not None:
            self.commit(self.text, self.finish_reason)

    @property
    def finish_reason(self) -> str:
        """As in engine.Step; "stop" too when the model began to write the next turn's marker."""
        assert self.usage is not None and self.usage.finish_reason is not None
        reason = self.usage.finish_reason
        return "stop" if reason == "stop_string" and not self.stop else reason

    @property
    def is_kept(self) -> bool:
        """Whether the answer is part of the conversation."""
        return self.commit is not None


class Chat:
    """The exchanges so far. `settings` may be replaced between turns, the model with use_model."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model: Model | None = None
        self.exchanges: list[Exchange] = []
        self._own_template: ChatTemplate | None = None
        self._view = View()

    def use_model(self, model: Model) -> None:
        """Let `model`, which has a tokenizer, give the answers from now on."""
        assert model.tokenizer is not None
        self.model, self._own_template = model, model.tokenizer.template

    def replace_all(self, exchanges: list[Exchange], view: View | None = None) -> None:
        """Begin anew, or go on with another conversation, seen as it was in `view`."""
        self.exchanges = list(exchanges)
        self._view = view or View()

    def turn(self, text: str) -> Turn:
        """Ask `text`. ValueError (nothing changes) when it does not fit into the context."""

        def commit(answer: str, reason: str) -> None:
            self.exchanges.append(Exchange(text, _opened(_whole(answer, reason)), reason))

        return self._turn(self.exchanges, text, self.settings, commit)

    def retry(self, settings: Settings) -> Turn:
        """Ask the last question again with `settings`, in place of its answer."""
        last = self._last("retry")

        def commit(answer: str, reason: str) -> None:
            if answer or not last.answer:  # stopped before the first word: the old one stays
                whole = _opened(_whole(answer, reason))
                self.exchanges[-1] = Exchange(last.question, whole, reason)

        return self._turn(self.exchanges[:-1], last.question, settings, commit)

    def resume(self) -> Turn:
        """Go on with the last answer where it was cut."""
        last = self._last("continue")
        if last.finish_reason not in CUT_SHORT:
            raise ValueError("the last answer was not cut short; /retry asks for another one")

        def commit(answer: str, reason: str) -> None:
            whole = _whole(last.answer + answer, reason)
            self.exchanges[-1] = replace(last, answer=whole, finish_reason=reason)

        return self._turn(self.exchanges, None, self.settings, commit)

    def raw(self, text: str) -> Turn:
        """`text` as the prompt: no template, no history, and the conversation stays as it is."""
        model, tokenizer = self._ready(self.settings)
        ids = tokenizer.encode(text, parse_special=True)
        bos = tokenizer.bos_token_id
        if tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        params = sampling_params(self.settings)
        return Turn(model, ids, params, None, self.settings.stop, continues=True)

    def undo(self, n: int) -> list[Exchange]:
        """Take the last n turns back and return them."""
        if n > len(self.exchanges):
            raise ValueError(f"there are {len(self.exchanges)} turns, {n} cannot be taken back")
        first = len(self.exchanges) - n
        taken = self.exchanges[first:]
        del self.exchanges[first:]
        if self._view.n_dropped >= first:  # what is left was out of view; now it has room again
            self._view = View()
        return taken

    def shown_prompt(self, question: str | None) -> tuple[str, int, Budget]:
        """What the model sees: as text with its special tokens, its length in tokens, the budget.

        With `question`, what asking it would send; with None, the conversation so far.
        """
        model, tokenizer = self._ready(self.settings)
        system, exchanges, first = self.settings.system, self.exchanges, self.first_in_view
        budget = Budget(model.max_seq_len, self.settings.max_tokens)
        if question is not None:
            first = build_prompt(tokenizer, system, exchanges, question, budget, first).n_dropped
        messages = messages_of(system, exchanges[first:], question)
        if not messages:
            raise ValueError("nothing was said yet; /raw_prompt TEXT shows what TEXT would become")
        is_asked = messages[-1]["role"] == "user"
        text = tokenizer.render(messages, add_generation_prompt=is_asked)
        ids = tokenizer.encode_chat(messages, add_generation_prompt=is_asked)
        return text, len(ids), budget

    def ids_of(self, exchanges: list[Exchange]) -> list[int]:
        """Token ids that a prompt begins with when it goes on from `exchanges`, in today's view."""
        _, tokenizer = self._ready(self.settings)
        messages = messages_of(self.settings.system, exchanges[self.first_in_view :], None)
        return tokenizer.encode_chat(messages, add_generation_prompt=False) if messages else []

    @property
    def view(self) -> View:
        """What the last prompt left out."""
        return replace(self._view, n_dropped=self.first_in_view)

    @property
    def first_in_view(self) -> int:
        """Index of the oldest exchange that the last prompt showed the model."""
        return min(self._view.n_dropped, len(self.exchanges))

    def _turn(
        self,
        exchanges: list[Exchange],
        question: str | None,
        settings: Settings,
        commit: Callable[[str, str], None],
    ) -> Turn:
        model, tokenizer = self._ready(settings)
        budget = Budget(model.max_seq_len, settings.max_tokens)
        key = _key(model.fingerprint, settings.system, settings.template, budget)
        before = self._view.n_dropped if key == self._view.key else 0
        system = settings.system
        prompt = build_prompt(tokenizer, system, exchanges, question, budget, before)

        def finish(answer: str, reason: str) -> None:
            self._view = View(prompt.n_dropped, key)
            commit(answer, reason)

        left_out = range(before + 1, prompt.n_dropped + 1)
        params = sampling_params(settings, tokenizer.template.stop_strings)
        continues = question is None and bool(exchanges[-1].answer)
        return Turn(model, prompt.ids, params, finish, settings.stop, left_out, continues)

    def _ready(self, settings: Settings) -> tuple[Model, Tokenizer]:
        """The model and its tokenizer, which renders with the template of `settings`."""
        if self.model is None or self.model.tokenizer is None:
            raise ValueError("no model is loaded; /model NAME loads one")
        tokenizer, template = self.model.tokenizer, self._template(settings.template)
        if tokenizer.template is not template:  # setting it has the vocabulary looked through
            tokenizer.template = template
        return self.model, tokenizer

    def _template(self, name: str | None) -> ChatTemplate:
        """The fixed template `name`; the model's own for None and "jinja"."""
        if name is None or name == "jinja":
            assert self._own_template is not None
            return self._own_template
        from engine.templates import template_named

        return template_named(name)

    def _last(self, verb: str) -> Exchange:
        if not self.exchanges:
            raise ValueError(f"there is nothing to {verb}: no question was asked yet")
        return self.exchanges[-1]


def sampling_params(settings: Settings, stop: Sequence[str] = ()) -> SamplingParams:
    """The engine's view of the settings; `stop` are texts that end an answer besides the user's."""
    import engine

    return engine.SamplingParams(
        temperature=settings.temperature if settings.sample else 0.0,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
        repetition_penalty=settings.repetition_penalty,
        seed=settings.seed,
        max_tokens=settings.max_tokens,
        stop=(*settings.stop, *stop),
        beams=settings.beams,
        length_penalty=settings.length_penalty,
        lookup=settings.lookup,
        exact_prompt=settings.exact_prompt,
    )


def _key(*circumstances: object) -> str:
    """What a View was found for, in a few letters that tell nothing of a system prompt."""
    return hashlib.sha256(repr(circumstances).encode()).hexdigest()[:16]


def _opened(answer: str) -> str:
    """Without the one blank that many tokenizers put before a first word; more is indentation.

    Templates that separate by a blank write it themselves.
    """
    return answer[1:] if answer[:1] == " " and answer[1:2] != " " else answer


def _whole(answer: str, finish_reason: str) -> str:
    """Without the sign for a character of which only some bytes came before the cut."""
    return answer.rstrip("\ufffd") if finish_reason in CUT_SHORT else answer
