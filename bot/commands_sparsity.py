"""The command about what a token may skip."""

from __future__ import annotations

from bot import render
from bot.answering import speed
from bot.commands import command
from bot.settings import parse, show
from bot.sparsity import Report, Stopped, cost_words, part_lines, run_with_progress, site_lines
from bot.state import ShellState
from engine.sparsity.knob import NAMES
from engine.sparsity.limits import limits


@command(
    "sparsity",
    usage="[LEVEL]",
    example="/sparsity balanced",
    completer=lambda state, argument: NAMES,
)
def sparsity(state: ShellState, argument: str) -> None:
    """Show what a token skips and what that costs, or choose a level.

    auto is off or exact, which give the same text, whichever is faster: the shell tries that while
    nobody asks. off computes everything; exact proves what it skipped afterwards; balanced and fast
    skip what rarely matters, fast more of it; a number from 0 to 0.9 is the share of every
    feed-forward that is skipped. A level that needs a calibration gets one, once for each model
    (Ctrl-C leaves it out). Without LEVEL, the last answer is computed twice, with and without: what
    was read of each part and layer, how far the probabilities of its words moved, and both speeds
    (Ctrl-C stops that).
    """
    if argument:
        level = parse("sparsity", argument)
        state.config.set_by_hand({"sparsity": level})
        state.tried_level = None  # a calibration that was stopped begins anew
        state.apply_settings()
        render.out(f"sparsity = {show(level)}{_in_use(state)}")
        return
    state.need_model()
    asked = state.chat.settings.sparsity
    render.out(f"sparsity = {show(asked)} ({state.config.origin('sparsity')}){_in_use(state)}")
    for line in [*_limits(state), *_speeds(state)]:
        render.out(line)
    _compare(state)


def _in_use(state: ShellState) -> str:
    """What is in use where that is not what was asked for."""
    if state.chat.model is None or state.tried_level != state.chat.settings.sparsity:
        return ", from the next model on"
    level = state.chat.model.sparsity.level
    if level == state.chat.settings.sparsity:
        return ""
    return f", in use: {level}{_why_off(state)}"


def _why_off(state: ShellState) -> str:
    """What the level auto waits for."""
    is_tried = state.trial is not None and state.trial.is_running
    return ", until it is known whether exact is faster" if is_tried else ""


def _limits(state: ShellState) -> list[str]:
    """What this kind of model cannot skip, where a level that skips is in use."""
    model = state.chat.model
    return [] if model is None or not model.sparsity.skips else list(limits(model.config))


def _speeds(state: ShellState) -> list[str]:
    """One line for each level that answers of this shell were made at."""
    lines = []
    for level in dict.fromkeys(state.levels):
        usages = [u for u, at in zip(state.usages, state.levels, strict=True) if at == level]
        n_tokens = sum(usage.new_tokens for usage in usages)
        rate = speed(n_tokens, sum(usage.decode_s for usage in usages))
        answers = render.counted(len(usages), "answer")
        lines.append(f"at {level}: {answers}, {render.counted(n_tokens, 'token')}, {rate}")
    return lines


def _compare(state: ShellState) -> None:
    """The last answer, with and without sparsity."""
    import engine

    model, turn = state.chat.model, state.last_turn
    assert model is not None
    if not model.sparsity.skips:
        render.out("a token computes everything: nothing is skipped")
        return
    if model.sparsity.proves:
        render.out("every token is proved by the whole head: the text is that of off")
        return
    if turn is None or turn.model is not model or not turn.answer_ids:
        render.out("no answer of this model yet; after one, /sparsity shows what skipping costs")
        return

    def work(report: Report) -> engine.LevelCost:
        return engine.compare_with_dense(
            model, turn.ids, turn.answer_ids, turn.params, on_progress=report
        )

    try:
        with state.knowledge.resting():
            cost = run_with_progress(state.loader.worker, state.interrupts, work)
    except Stopped:
        render.note("stopped: the answer was not compared")
        return
    for line in [*part_lines(cost), "", *site_lines(cost.sites)]:
        render.out(line)
    render.out(f"last answer: {cost_words(cost)}")
