"""Commands that turn answers into training rows."""

from __future__ import annotations

from bot import editing, feedback, render
from bot.chat import CUT_SHORT
from bot.commands import command
from bot.feedback import Rating
from bot.state import ShellState


@command("good")
def good(state: ShellState, argument: str) -> None:
    """Keep the last answer as an example to learn from.

    The conversation as the model saw it and the answer become a row for `sparsechat train`, with
    the model and adapter that gave it, in a file that only you can read. A later rating of the same
    answer takes the place of this one.
    """
    _rate(state, "good", argument)


@command("bad")
def bad(state: ShellState, argument: str) -> None:
    """Keep the last answer as one that should not have been given; training leaves it out."""
    _rate(state, "bad", argument)


@command("fix", usage="[TEXT]", example="/fix Bern, not Zurich.")
def fix(state: ShellState, argument: str) -> None:
    """Correct the last answer, in an editor or to TEXT, and keep that to learn from.

    The editor is the one that VISUAL or EDITOR names. The conversation goes on from the corrected
    answer.
    """
    loaded, answer = state.need_model(), state.chat.last("fix").answer
    text = argument or editing.edited(answer)
    if not text.strip():
        raise ValueError("an empty answer is nothing to learn from; the old one stays")
    if text.strip() == answer.strip():
        raise ValueError("nothing was changed; /good keeps the answer as it is")
    given = state.fixed[1] if state.fixed and state.fixed[0] == answer else answer
    messages = state.chat.seen(text.strip())
    tokenizer = loaded.model.tokenizer
    assert tokenizer is not None
    file, _ = feedback.keep(feedback.row_of("fixed", messages, tokenizer, loaded, given))
    state.chat.correct(text.strip())
    state.fixed = text.strip(), given
    render.out(f"kept the corrected answer in {file}; the conversation goes on from it")


def _rate(state: ShellState, rating: Rating, argument: str) -> None:
    if argument:
        raise ValueError(f"/{rating} is about the last answer and takes nothing, got {argument!r}")
    loaded, exchange = state.need_model(), state.chat.last("rate")
    if not exchange.answer:
        raise ValueError("the last answer is empty; there is nothing to rate")
    if rating == "good" and exchange.finish_reason in CUT_SHORT:
        raise ValueError(  # its end would be learned as one
            "the last answer was cut short, which is nothing to learn; /continue or /fix ends it"
        )
    tokenizer, answer = loaded.model.tokenizer, exchange.answer
    assert tokenizer is not None
    if state.fixed and state.fixed[0] == answer:
        if rating == "good":
            raise ValueError("the answer is your own, and is kept already")
        answer = state.fixed[1]  # takes the place of the correction
    row = feedback.row_of(rating, state.chat.seen(answer), tokenizer, loaded)
    file, was_there = feedback.keep(row)
    instead = ", in place of the earlier rating" if was_there else ""
    render.out(f"kept as {rating} in {file}{instead}")
