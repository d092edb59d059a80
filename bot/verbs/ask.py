"""Ask one question; the answer goes to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot import render, terminal
from bot.options import CHAT_ONLY, add_setting_flags, given_settings

if TYPE_CHECKING:
    from bot.chat import Chat
    from bot.config import Config
    from bot.evidence import Evidence
    from bot.interrupts import Interrupts
    from bot.knowledge import Knowledge
    from bot.loading import LoadedModel, ModelLoader
    from bot.turn import Turn

CLOSE_S = 0.5  # an answer stops within 0.1 s; a model that is being loaded cannot be stopped
INTERRUPTED = 130
NO_EVIDENCE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The question, what to print, and the settings that concern one answer."""
    parser.add_argument(
        "question", nargs="*", help="the question; standard input, if any, is put behind it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--raw", action="store_true", help="let the model continue the text: no template"
    )
    add_setting_flags(parser, leave_out=CHAT_ONLY)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """0; 4 when --require-evidence found none; 130 after Ctrl-C, when what there is was printed."""
    flags = given_settings(args)
    if args.raw and flags.keys() & {"system", "template"}:
        args.usage_error("--raw sends the text as it is, so --system and --template do nothing")
    if args.raw and flags.keys() & {"kb", "require_evidence"}:
        args.usage_error("--raw sends the text as it is, so there is no place for passages")
    question = whole_question(args.question)
    if not question.strip():
        args.usage_error('a question is missing: sparsechat ask "…", or text on standard input')

    from bot.adapters import find, wanted_adapter
    from bot.config import read_config
    from bot.interrupts import Interrupts
    from bot.loading import Interrupted, ModelLoader, find_model
    from bot.worker import Worker

    config, interrupts = read_config(flags), Interrupts()
    knowledge = None if args.raw else _knowledge(config, interrupts, args)
    found = find_model(config.settings().model)
    if (adapter := wanted_adapter(config.settings())) is not None:
        find(adapter)
    worker = Worker()
    loader = ModelLoader(worker)
    # with --raw no template writes anything, so there is nothing to say about one either
    loader.start(found, config.settings({"template": "completion"} if args.raw else None))
    with interrupts:
        try:
            return Answer(config, loader, interrupts, args).give(question, knowledge)
        except Interrupted:
            return INTERRUPTED
        finally:
            worker.close(CLOSE_S)


def _knowledge(
    config: Config, interrupts: Interrupts, args: argparse.Namespace
) -> Knowledge | None:
    """The base that is asked for, its encoder on its way; None when none is asked for."""
    from bot.knowledge import Knowledge, wanted_base
    from bot.offering import ensure_base

    name = wanted_base(config.settings())
    if name is None:
        if config.settings().require_evidence:
            args.usage_error("--require-evidence needs a knowledge base: --kb NAME")
        return None
    ensure_base(name)
    knowledge = Knowledge(interrupts, waits=True)
    knowledge.use(name)
    knowledge.begin()
    return knowledge


@dataclass
class Answer:
    """One question on its way: evidence, model, answer, report."""

    config: Config
    loader: ModelLoader
    interrupts: Interrupts
    args: argparse.Namespace

    def give(self, question: str, knowledge: Knowledge | None) -> int:
        """Find, ask, print; the exit code."""
        settings, evidence = self.config.settings(), None
        if knowledge is not None:
            evidence = knowledge.evidence(question, settings)
            for line in knowledge.news():
                render.note(line)
            if not evidence.sources:
                refused = "; not answered" if settings.require_evidence else "; answered without it"
                render.note(f"nothing found in {evidence.base}{refused}")
                if settings.require_evidence:
                    return self._refuse(evidence)
        loaded = self._loaded()
        chat = self._chat()
        turn = self._answered(chat, question, evidence)
        known = chat.exchanges[-1].evidence if chat.exchanges else None
        return self._report(turn, loaded, known)

    def _loaded(self) -> LoadedModel:
        from bot.sparsity import CALIBRATING

        status, told = render.Status(), False

        def show(line: str) -> None:
            nonlocal told
            if line.startswith(CALIBRATING) and not told:  # too long to be silent about
                told = True
                status.clear()
                render.note(f"{CALIBRATING}; Ctrl-C leaves it out")
            status.show(line)

        try:
            loaded = self.loader.wait(self.interrupts, show)
        finally:
            status.clear()
        if loaded.refused:
            raise ValueError(loaded.refused)  # an answer without it would pass for one with it
        for line in loaded.news:
            render.note(line)
        return loaded

    def _chat(self) -> Chat:
        from bot.chat import Chat
        from bot.loading import checkpoint_settings

        assert self.loader.current is not None
        model = self.loader.current.model
        self.config.layers["checkpoint"] = checkpoint_settings(model)
        chat = Chat(self.config.settings())
        chat.use_model(model)
        return chat

    def _answered(self, chat: Chat, question: str, evidence: Evidence | None) -> Turn:
        """Shown as it comes, unless it is to be printed as JSON or to be judged first."""
        from bot.answering import show_turn

        holds = self.args.json or chat.settings.require_evidence
        writer = None if holds else render.AnswerWriter(chat.settings.stream)
        if self.args.raw:
            return show_turn(
                self.loader.worker, lambda: chat.raw(question), self.interrupts, writer
            )
        return show_turn(
            self.loader.worker, lambda: chat.turn(question, evidence), self.interrupts, writer
        )

    def _report(self, turn: Turn, loaded: LoadedModel, known: Evidence | None) -> int:
        from bot.answering import ending, say_found, stats
        from bot.citations import is_ungrounded

        assert turn.usage is not None
        requires = self.config.settings().require_evidence
        if requires and known is not None and is_ungrounded(known):
            render.note("the answer drew on none of the passages, so it is not shown")
            return self._refuse(known)
        if self.args.json:
            _print_json(as_json(turn, loaded, known))
        elif requires:
            writer = render.AnswerWriter(streaming=False)
            writer.write(turn.text)
            writer.close()
        if known is not None and turn.text and not self.args.json:
            say_found(known)
        if line := ending(turn):
            render.note(line)
        if self.args.verbose:
            render.note(stats(turn.usage))
        return INTERRUPTED if turn.finish_reason == "cancelled" else 0

    def _refuse(self, evidence: Evidence) -> int:
        from bot.citations import to_record

        if self.args.json:
            _print_json({"answer": None, "reason": "no_evidence", "retrieval": to_record(evidence)})
        return NO_EVIDENCE


def whole_question(words: list[str]) -> str:
    """The words, then standard input (when it is no terminal) on a new line."""
    text = " ".join(words)
    if sys.stdin is None or terminal.is_terminal(sys.stdin):
        return terminal.well_formed(text)
    piped = sys.stdin.read().rstrip("\r\n")
    return terminal.well_formed("\n".join(part for part in (text, piped) if part))


def as_json(turn: Turn, loaded: LoadedModel, known: Evidence | None = None) -> dict[str, Any]:
    """What --json prints; "retrieval" is there when a knowledge base was asked."""
    from bot import adapters, citations
    from bot.sparsity import to_record

    usage = turn.usage
    assert usage is not None
    retrieval = {} if known is None else {"retrieval": citations.to_record(known)}
    return {
        "answer": turn.text,
        "tokens": {
            "prompt": usage.prompt_tokens,
            "cached": usage.cached_tokens,
            "new": usage.new_tokens,
            "drafted": usage.drafted_tokens,
            "accepted": usage.accepted_tokens,
        },
        "timings": {
            "prefill_s": usage.prefill_s,
            "time_to_first_token_s": usage.time_to_first_token_s,
            "decode_s": usage.decode_s,
        },
        "reason": turn.finish_reason,
        "model": {
            "name": loaded.name,
            "fingerprint": loaded.model.fingerprint,
            "weight_format": loaded.model.weight_format,
        },
        "adapter": adapters.to_record(loaded.model),
        "seed": usage.seed,
        "sparsity": to_record(loaded.model),
        **retrieval,
    }


def _print_json(value: Any) -> None:
    render.out(json.dumps(value, ensure_ascii=False, allow_nan=False))
