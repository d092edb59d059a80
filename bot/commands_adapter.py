"""The command about what is added to a model's weights."""

from __future__ import annotations

from bot import adapters, comparing, render
from bot.commands import command
from bot.state import ShellState


@command(
    "adapter",
    usage="[NAME|off]",
    example="/adapter polite",
    completer=lambda state, argument: [*adapters.names(), adapters.OFF],
)
def adapter(state: ShellState, argument: str) -> None:
    """Show the adapter in use and the others, or change it; the model is not loaded again.

    NAME is one that training left in the data folder, or a folder in PEFT's layout. off takes it
    away. The conversation stays; an adapter of another model is refused.
    """
    if not argument:
        _show(state)
        return
    wanted = None if argument == adapters.OFF else argument
    if wanted is not None:
        adapters.find(wanted)  # its errors, before a model is waited for
    state.need_model()
    state.change_adapter(wanted)
    state.config.set_by_hand({"adapter": argument})
    state.apply_settings()
    model = state.chat.model
    assert model is not None
    render.out(f"adapter = {adapters.line_of(model.adapter) if model.adapter else adapters.OFF}")
    if state.chat.exchanges:
        render.note("the next answer reads the whole conversation again")


@command(
    "compare",
    usage="[TEXT | A B]",
    example="/compare polite terse",
    completer=lambda state, argument: [*adapters.names(), adapters.OFF],
)
def compare(state: ShellState, argument: str) -> None:
    """Answer the last question, or TEXT, with the adapter in use and without one, side by side.

    A and B are two adapters, or off. Both answers have the same seed. Where the terminal is narrow,
    or there is none, they stand one below the other. The conversation stays as it is.
    """
    state.need_model()
    names, question = comparing.sides_of(state, argument)
    comparing.compare(state, names, question)


def _show(state: ShellState) -> None:
    wanted, model = adapters.wanted_adapter(state.chat.settings), state.chat.model
    origin = f" ({state.config.origin('adapter')})"
    if wanted is None:
        render.out(f"adapter = {adapters.OFF}{origin}")
    elif model is None or state.tried_adapter != wanted:
        render.out(f"adapter = {wanted}{origin}, from the next model on")
    elif model.adapter is None:
        render.out(f"adapter = {wanted}{origin}, not in use: {state.adapter_refused}")
    else:
        render.out(f"adapter = {wanted}{origin}: {adapters.facts_of(model.adapter)}")
    rows = adapters.rows()
    for line in adapters.lines(rows):
        render.out(line)
    if not rows:
        render.out(f"{adapters.folder()} has none yet")
