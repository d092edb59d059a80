"""The same question answered with one adapter and with another, or without: side by side."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bot import columns, render, terminal
from bot.adapters import OFF, find
from bot.answering import ending, show_turn, speed
from bot.state import ShellState
from bot.turn import Turn

MAX_SEED = 2**31


@dataclass(frozen=True, slots=True)
class Side:
    """An answer with the adapter `name`, None = without one."""

    name: str | None
    text: str
    facts: str  # how it ended and how fast it came
    was_cancelled: bool

    @property
    def title(self) -> str:
        return title_of(self.name)


def title_of(name: str | None) -> str:
    return "without adapter" if name is None else f"with {Path(name).name}"


def sides_of(state: ShellState, argument: str) -> tuple[tuple[str | None, str | None], str | None]:
    """The two adapters, and the question or None for the last one.

    One or two words that are all names of adapters (or "off") are those, everything else is a
    question. ValueError when there are no two sides.
    """
    words = argument.split()
    if 1 <= len(words) <= 2 and all(map(_is_adapter, words)):
        first, second = words if len(words) == 2 else (OFF, words[0])
        names, question = (_none_if_off(first), _none_if_off(second)), None
    else:
        names, question = (None, state.tried_adapter), argument or None
        if state.adapter_refused:
            raise ValueError(f"no adapter is in use: {state.adapter_refused}")
    if names[0] == names[1]:
        raise ValueError(
            "no adapter is in use, so there is nothing to compare with; /compare A B names two"
            if names[0] is None
            else f"both sides would be {names[0]}"
        )
    return names, question


def compare(state: ShellState, names: tuple[str | None, str | None], question: str | None) -> None:
    """Answer twice and show both; the conversation and the adapter in use stay as they are."""
    chat, in_use = state.chat, state.tried_adapter
    asked = question if question is not None else chat.last("compare").question
    history = chat.exchanges if question is not None else chat.exchanges[:-1]
    settings = chat.settings
    if settings.seed is None:
        settings = replace(settings, seed=secrets.randbelow(MAX_SEED))
    evidence = state.evidence(asked, history, settings)
    width = shutil.get_terminal_size().columns
    beside = _can_stand_beside(settings.plain) and columns.fits(width)
    # the adapter in use comes last: what its cache then holds is good for the next turn
    order = sorted(names, key=lambda name: name == in_use)
    found: dict[str | None, Side] = {}
    try:
        for name in order:
            state.change_adapter(name)
            make = lambda: chat.aside(question, settings, evidence)  # noqa: E731
            found[name] = _answer(state, name, make, beside)
            if found[name].was_cancelled:
                break
    finally:
        if state.tried_adapter != in_use:
            state.change_adapter(in_use)
    if beside and len(found) == 2:
        _show(found[names[0]], found[names[1]], width)
    elif beside:
        for side in found.values():
            render.out(f"--- {side.title}\n{side.text.strip()}")
    for side in found.values():
        render.note(f"{side.title}: {side.facts}")


def _answer(
    state: ShellState, name: str | None, make_turn: Callable[[], Turn], beside: bool
) -> Side:
    """One side; shown as it comes unless the two are to stand beside each other."""
    status, writer = render.Status(), None
    if beside:
        status.show(f"answering {title_of(name)} …")
    else:
        render.out(f"--- {title_of(name)}")
        writer = render.AnswerWriter(state.chat.settings.stream)
    try:
        with state.knowledge.resting():
            turn = show_turn(state.loader.worker, make_turn, state.interrupts, writer)
    finally:
        status.clear()
    assert turn.usage is not None
    usage = turn.usage
    ends = ending(turn)
    facts = (
        f"{render.counted(usage.new_tokens, 'token')}, {speed(usage.new_tokens, usage.decode_s)}"
    )
    cancelled = turn.finish_reason == "cancelled"
    return Side(name, turn.text, f"{facts}, {ends}" if ends else facts, cancelled)


def _show(left: Side, right: Side, width: int) -> None:
    lines = columns.side_by_side(left.title, right.title, width)
    lines += columns.side_by_side("-" * len(left.title), "-" * len(right.title), width)
    # control characters first: their pictures have a width, they have none
    one, other = (render.visible(side.text).strip() for side in (left, right))
    for line in [*lines, *columns.side_by_side(one, other, width)]:
        render.out(line)


def _can_stand_beside(plain: bool) -> bool:
    return terminal.is_terminal(sys.stdout) and not terminal.is_dumb() and not plain


def _is_adapter(word: str) -> bool:
    if word == OFF:
        return True
    try:
        find(word)
    except (OSError, ValueError):
        return False
    return True


def _none_if_off(word: str) -> str | None:
    return None if word == OFF else word
