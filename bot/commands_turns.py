"""Commands that ask, ask again, go on and take back."""

from __future__ import annotations

from bot import render
from bot.commands import command
from bot.commands_settings import assignments, setting_words
from bot.prompt import Exchange
from bot.state import ShellState


@command("say", usage="TEXT", example="/say /etc/hosts holds names")
def say(state: ShellState, argument: str) -> None:
    """Ask TEXT, as a line without a slash does."""
    state.ask(_needed(argument, "say"))


@command("raw_say", usage="TEXT", example="/raw_say Once upon a time")
def raw_say(state: ShellState, argument: str) -> None:
    """Let the model continue TEXT, without template, history or system prompt.

    Special tokens written out in TEXT (<|im_start|> …) are taken as such. The conversation stays
    as it is.
    """
    _needed(argument, "raw_say")
    state.answer(lambda: state.chat.raw(argument))


@command("raw_prompt", "raw", usage="[TEXT]", example="/raw_prompt What is a hash?")
def raw_prompt(state: ShellState, argument: str) -> None:
    """Show the conversation exactly as the model sees it; with TEXT, as it would if you asked that.

    Turns that have left the model's view are not in it; special tokens stand written out. With a
    knowledge base in use, TEXT is looked up and its passages are part of what is shown.
    """
    state.need_model()
    chat, evidence = state.chat, None
    if argument:
        evidence = state.evidence(argument, chat.exchanges, chat.settings)
    text, n_tokens, budget = chat.shown_prompt(argument or None, evidence)
    render.out(text)
    render.note(
        f"{n_tokens:,} tokens; {budget.tokens:,} fit before an answer of {budget.reserve:,}; "
        f"template {chat.template_name}"
    )


@command(
    "retry",
    usage="[NAME=VALUE …]",
    example="/retry temperature=0.9",
    completer=lambda state, argument: setting_words(("turn",)),
)
def retry(state: ShellState, argument: str) -> None:
    """Ask the last question again in place of its answer, with a new seed unless one is given.

    Settings given here hold for this answer only.
    """
    changes, unset = assignments(argument, ("turn",))
    if unset:
        raise ValueError(f"/retry {min(unset)}= needs a value; it holds for this answer only")
    state.need_model()
    settings = state.config.settings({"seed": None} | changes)
    if settings.temperature == 0 or not settings.sample:
        render.note("temperature 0 gives the same answer again; /retry temperature=0.8 varies it")
    state.retry(settings)


@command("continue")
def continue_(state: ShellState, argument: str) -> None:
    """Go on with the last answer where max_tokens, the context or Ctrl-C cut it."""
    state.answer(state.chat.resume)


@command("undo", usage="[N]", example="/undo 2")
def undo(state: ShellState, argument: str) -> None:
    """Take back the last turn, or the last N: question and answer leave the conversation."""
    if argument and not (argument.isascii() and argument.isdigit() and int(argument) > 0):
        raise ValueError(f"/undo takes a number of turns from 1 up, got {argument!r}")
    for exchange in state.chat.undo(int(argument or 1)):
        render.out(f"taken back: {_short(exchange.question)}")


@command("reset", "new", "clear")
def reset(state: ShellState, argument: str) -> None:
    """Begin a new conversation; settings and system prompt stay."""
    n_turns = len(state.chat.exchanges)
    state.chat.replace_all([])
    state.saved_as = None
    render.out(f"new conversation ({n_turns} turn{'' if n_turns == 1 else 's'} forgotten)")


@command("history")
def history(state: ShellState, argument: str) -> None:
    """Show the conversation, its turns numbered; a mark stands where an answer was cut."""
    chat = state.chat
    if not chat.exchanges:
        render.out("nothing was said yet")
    for number, exchange in enumerate(chat.exchanges, start=1):
        if number == chat.first_in_view + 1 and number > 1:
            render.out("--- the model's view begins here ---")
        render.out(f"{number}> {exchange.question}")
        render.out(exchange.answer.strip("\n") + _mark(exchange))


def _mark(exchange: Exchange) -> str:
    marks = {"cancelled": "stopped", "length": "cut at max_tokens", "context": "context full"}
    mark = marks.get(exchange.finish_reason)
    return "" if mark is None else f"{' ' if exchange.answer else ''}[{mark}]"


def _needed(argument: str, name: str) -> str:
    if not argument:
        raise ValueError(f"/{name} needs a text behind it")
    return argument


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"
