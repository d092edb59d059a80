"""Ask one question; the answer goes to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from bot import render, terminal
from bot.options import CHAT_ONLY, add_setting_flags, given_settings

if TYPE_CHECKING:
    from bot.chat import Turn
    from bot.config import Config
    from bot.interrupts import Interrupts
    from bot.loading import LoadedModel, ModelLoader

CLOSE_S = 0.5  # an answer stops within 0.1 s; a model that is being loaded cannot be stopped
INTERRUPTED = 130


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
    """0, or 130 after Ctrl-C, when what there is of the answer was printed."""
    flags = given_settings(args)
    if args.raw and flags.keys() & {"system", "template"}:
        args.usage_error("--raw sends the text as it is, so --system and --template do nothing")
    question = whole_question(args.question)
    if not question.strip():
        args.usage_error('a question is missing: sparsechat ask "…", or text on standard input')

    from bot.config import read_config
    from bot.interrupts import Interrupts
    from bot.loading import Interrupted, ModelLoader, find_model
    from bot.worker import Worker

    config = read_config(flags)
    found = find_model(config.settings().model)
    worker, interrupts = Worker(), Interrupts()
    loader = ModelLoader(worker)
    loader.start(found, config.settings())
    with interrupts:
        try:
            loaded = _loaded(loader, interrupts)
            turn = _answer(config, loader, interrupts, args, question)
        except Interrupted:
            return INTERRUPTED
        finally:
            worker.close(CLOSE_S)
    return _report(turn, loaded, args)


def _loaded(loader: ModelLoader, interrupts: Interrupts) -> LoadedModel:
    status = render.Status()
    try:
        return loader.wait(interrupts, lambda stage: status.show(f"{stage} …"))
    finally:
        status.clear()


def _answer(
    config: Config,
    loader: ModelLoader,
    interrupts: Interrupts,
    args: argparse.Namespace,
    question: str,
) -> Turn:
    from bot.answering import show_turn
    from bot.chat import Chat
    from bot.loading import checkpoint_settings

    assert loader.current is not None
    model = loader.current.model
    config.layers["checkpoint"] = checkpoint_settings(model)
    chat = Chat(config.settings())
    chat.use_model(model)
    ask = chat.raw if args.raw else chat.turn
    writer = None if args.json else render.AnswerWriter(chat.settings.stream)
    return show_turn(loader.worker, lambda: ask(question), interrupts, writer)


def _report(turn: Turn, loaded: LoadedModel, args: argparse.Namespace) -> int:
    from bot.answering import ending, stats

    assert turn.usage is not None
    if args.json:
        render.out(json.dumps(as_json(turn, loaded), ensure_ascii=False, allow_nan=False))
    if line := ending(turn):
        render.note(line)
    if args.verbose:
        render.note(stats(turn.usage))
    return INTERRUPTED if turn.finish_reason == "cancelled" else 0


def whole_question(words: list[str]) -> str:
    """The words, then standard input (when it is no terminal) on a new line."""
    text = " ".join(words)
    if sys.stdin is None or terminal.is_terminal(sys.stdin):
        return terminal.well_formed(text)
    piped = sys.stdin.read().rstrip("\r\n")
    return terminal.well_formed("\n".join(part for part in (text, piped) if part))


def as_json(turn: Turn, loaded: LoadedModel) -> dict[str, Any]:
    """What --json prints."""
    usage = turn.usage
    assert usage is not None
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
        "seed": usage.seed,
    }
