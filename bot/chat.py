"""One conversation: what was said, and how the next answer is asked of the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bot.citations import marked
from bot.evidence import block_of, fitting
from bot.prompt import (
    Budget,
    Exchange,
    Message,
    View,
    build_prompt,
    messages_of,
    takes_evidence_alone,
)
from bot.settings import Settings
from bot.turn import Turn

if TYPE_CHECKING:
    from bot.evidence import Evidence
    from engine import Model, SamplingParams
    from engine.templates import ChatTemplate
    from engine.tokenizer import Tokenizer

CUT_SHORT = ("length", "context", "cancelled")  # what /continue can go on from
TURN_TOKENS = 16  # what a template may write around the turn that holds the evidence
# (answer, finish_reason, the evidence that the model was shown)
Commit = Callable[[str, str, "Evidence | None"], None]


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

    def turn(self, text: str, evidence: Evidence | None = None) -> Turn:
        """Ask `text`, to be answered from `evidence`, of which the best that there is room for is
        shown to the model. ValueError (nothing changes) when `text` does not fit into the context.
        """

        def commit(answer: str, reason: str, shown: Evidence | None) -> None:
            kept = self._kept(answer, reason, self.settings)
            self.exchanges.append(_answered(text, kept, reason, shown))

        asked = Exchange(text, evidence=evidence)
        return self._turn([*self.exchanges, asked], self.settings, commit)

    def retry(self, settings: Settings, evidence: Evidence | None = None) -> Turn:
        """Ask the last question again with `settings`, in place of its answer."""
        last = self.last("retry")

        def commit(answer: str, reason: str, shown: Evidence | None) -> None:
            if answer or not last.answer:  # stopped before the first word: the old one stays
                whole = self._kept(answer, reason, settings)
                self.exchanges[-1] = _answered(last.question, whole, reason, shown)

        asked = Exchange(last.question, evidence=evidence)
        return self._turn([*self.exchanges[:-1], asked], settings, commit)

    def resume(self) -> Turn:
        """Go on with the last answer where it was cut, from the same evidence."""
        last = self.last("continue")
        if last.finish_reason not in CUT_SHORT:
            raise ValueError("the last answer was not cut short; /retry asks for another one")

        def commit(answer: str, reason: str, shown: Evidence | None) -> None:
            whole = _whole(last.answer + answer, reason)
            self.exchanges[-1] = _answered(last.question, whole, reason, shown)

        return self._turn(self.exchanges, self.settings, commit)

    def raw(self, text: str) -> Turn:
        """`text` as the prompt: no template, no history, and the conversation stays as it is."""
        model, tokenizer = self._ready(self.settings)
        ids = tokenizer.encode(text, parse_special=True)
        bos = tokenizer.bos_token_id
        if tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        params = sampling_params(self.settings)
        return Turn(model, ids, params, None, self.settings.stop, continues=True)

    def aside(
        self, question: str | None, settings: Settings, evidence: Evidence | None = None
    ) -> Turn:
        """Ask `question`, None = the last one, and leave the conversation as it is."""
        before = self.exchanges
        if question is None:
            question, before = self.last("ask").question, before[:-1]
        asked = Exchange(question, evidence=evidence)
        turn = self._turn([*before, asked], settings, lambda *_: None)
        turn.commit = None
        return turn

    def seen(self, answer: str) -> list[Message]:
        """The conversation as the model saw it when it gave its last answer, with `answer` in that
        one's place."""
        _, tokenizer = self._ready(self.settings)
        last = replace(self.exchanges[-1], answer=answer)
        block = block_of(last.evidence.sources) if last.evidence else ""
        joined = bool(block) and not takes_evidence_alone(tokenizer)
        exchanges = [*self.exchanges[self.first_in_view : -1], last]
        return messages_of(self.settings.system, exchanges, block, joined)

    def correct(self, answer: str) -> None:
        """Let the last answer be another one."""
        last = self.last("correct")
        self.exchanges[-1] = _answered(last.question, answer, "stop", last.evidence)

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

    def shown_prompt(
        self, question: str | None, evidence: Evidence | None = None
    ) -> tuple[str, int, Budget]:
        """What the model sees: as text with its special tokens, its length in tokens, the budget.

        With `question`, what asking it would send; with None, the conversation so far.
        """
        model, tokenizer = self._ready(self.settings)
        system, exchanges, first = self.settings.system, self.exchanges, self.first_in_view
        budget = Budget(model.max_seq_len, self.settings.max_tokens)
        block, joined = "", False
        if question is not None:
            exchanges = [*exchanges, Exchange(question, evidence=evidence)]
            shown = self._shown(tokenizer, self.settings, exchanges[-1], budget)
            block = block_of(shown.sources) if shown else ""
            joined = bool(block) and not takes_evidence_alone(tokenizer)
            first = build_prompt(tokenizer, system, exchanges, budget, first, block).n_dropped
        messages = messages_of(system, exchanges[first:], block, joined)
        if not messages:
            raise ValueError("nothing was said yet; /raw_prompt TEXT shows what TEXT would become")
        is_asked = messages[-1]["role"] == "user"
        text = tokenizer.render(messages, add_generation_prompt=is_asked)
        ids = tokenizer.encode_chat(messages, add_generation_prompt=is_asked)
        return text, len(ids), budget

    def ids_of(self, exchanges: list[Exchange]) -> list[int]:
        """Token ids that a prompt begins with when it goes on from `exchanges`, in today's view."""
        _, tokenizer = self._ready(self.settings)
        messages = messages_of(self.settings.system, exchanges[self.first_in_view :])
        return tokenizer.encode_chat(messages, add_generation_prompt=False) if messages else []

    @property
    def template_name(self) -> str:
        """Of the template in use; "jinja" is the model's own."""
        return self._ready(self.settings)[1].template.name

    @property
    def view(self) -> View:
        """What the last prompt left out."""
        return replace(self._view, n_dropped=self.first_in_view)

    @property
    def first_in_view(self) -> int:
        """Index of the oldest exchange that the last prompt showed the model."""
        return min(self._view.n_dropped, len(self.exchanges))

    def _turn(self, exchanges: list[Exchange], settings: Settings, commit: Commit) -> Turn:
        """The last exchange is the one to be answered, or its answer to be continued."""
        model, tokenizer = self._ready(settings)
        budget = Budget(model.max_seq_len, settings.max_tokens)
        key = _key(model.fingerprint, settings.system, settings.template, budget)
        before = self._view.n_dropped if key == self._view.key else 0
        shown = self._shown(tokenizer, settings, exchanges[-1], budget)
        block = block_of(shown.sources) if shown else ""
        prompt = build_prompt(tokenizer, settings.system, exchanges, budget, before, block)

        def finish(answer: str, reason: str) -> None:
            self._view = View(prompt.n_dropped, key)
            commit(answer, reason, shown)

        left_out = range(before + 1, prompt.n_dropped + 1)
        params = sampling_params(settings, tokenizer.template.stop_strings)
        continues = bool(exchanges[-1].answer) or self._continues(settings)
        return Turn(
            model, prompt.ids, params, finish, settings.stop, left_out, continues, evidence=shown
        )

    def _shown(
        self, tokenizer: Tokenizer, settings: Settings, asked: Exchange, budget: Budget
    ) -> Evidence | None:
        """The evidence of `asked` that there is room for beside the question."""
        evidence = asked.evidence
        if evidence is None or not evidence.sources:
            return evidence
        alone = messages_of(settings.system, [asked])
        left = budget.tokens - len(tokenizer.encode_chat(alone)) - TURN_TOKENS
        room = min(settings.evidence_tokens, left)
        sources = fitting(evidence.sources, lambda text: len(tokenizer.encode(text)), room)
        return replace(evidence, sources=sources, n_left_out=len(evidence.sources) - len(sources))

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

    def _continues(self, settings: Settings) -> bool:
        """Whether answers go on in the middle of what was typed: base models have no turns."""
        from engine.templates import continues

        return continues(self._template(settings.template))

    def _kept(self, answer: str, reason: str, settings: Settings) -> str:
        """A new answer as the conversation keeps it.

        Without the one blank that many tokenizers put before a first word, unless it counts; more
        is indentation. Templates that separate by a blank write it themselves.
        """
        whole = _whole(answer, reason)
        is_blank = whole[:1] == " " and whole[1:2] != " "
        return whole[1:] if is_blank and not self._continues(settings) else whole

    def last(self, verb: str) -> Exchange:
        """The last exchange; ValueError when there is nothing to `verb`."""
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


def _answered(question: str, answer: str, reason: str, evidence: Evidence | None) -> Exchange:
    known = None if evidence is None else marked(evidence, question, answer)
    return Exchange(question, answer, reason, known)


def _key(*circumstances: object) -> str:
    """What a View was found for, in a few letters that tell nothing of a system prompt."""
    return hashlib.sha256(repr(circumstances).encode()).hexdigest()[:16]


def _whole(answer: str, finish_reason: str) -> str:
    """Without the sign for a character of which only some bytes came before the cut."""
    return answer.rstrip("\ufffd") if finish_reason in CUT_SHORT else answer
