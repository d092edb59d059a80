"""A turn computed on the worker thread and shown on the main thread."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot import citations, render
from bot.interrupts import Interrupts
from bot.loading import POLL_S
from bot.turn import Turn
from bot.worker import Worker

if TYPE_CHECKING:
    from bot.evidence import Evidence
    from engine import Cancel, Usage

SHOW_PROGRESS_FROM = 512  # prompt tokens; shorter prompts are read before a status line is


@dataclass(frozen=True, slots=True)
class Prefill:
    """So much of the prompt has been read."""

    done_tokens: int
    total_tokens: int


Event = Turn | Prefill | Any  # Any: engine.Step, which is not imported at run time


def events(
    worker: Worker, make_turn: Callable[[], Turn], cancel: Cancel
) -> Generator[Event, None, None]:
    """The turn itself (before it computes anything), then Prefill and Step as they come.

    Errors of the turn are raised here. When the caller stops listening, the turn is cancelled
    and waited for: the model must be at rest before anything else happens.
    """
    happened: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def work() -> None:
        try:
            turn = make_turn()
            happened.put(turn)
            for step in turn.steps(cancel, lambda *tokens: happened.put(Prefill(*tokens))):
                happened.put(step)
        finally:
            happened.put(None)

    future = worker.submit(work)
    try:
        while True:
            try:
                event = happened.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if event is None:
                break
            yield event
        future.result()
    except GeneratorExit:
        cancel.set()
        _wait(future)
        raise


def show_turn(
    worker: Worker,
    make_turn: Callable[[], Turn],
    interrupts: Interrupts,
    writer: render.AnswerWriter | None,
) -> Turn:
    """Run a turn and write it as it comes; Ctrl-C cancels it. The finished turn is returned."""
    import engine

    cancel = engine.Cancel()
    status = render.Status()
    turn: Turn | None = None
    happening = events(worker, make_turn, cancel)
    try:
        with interrupts.cancelling(cancel), closing(happening):
            for event in happening:
                if isinstance(event, Turn):
                    turn = event
                    say_left_out(turn.left_out)
                    _say_restored(turn)
                elif isinstance(event, Prefill):
                    _show_progress(status, event)
                elif event.text and writer is not None:
                    status.clear()
                    writer.write(event.text)
    finally:
        status.clear()
        if writer is not None:
            writer.close()
    assert turn is not None and turn.usage is not None
    return turn


def say_left_out(numbers: range) -> None:
    """Which turns the model no longer sees; said before the answer begins."""
    if len(numbers) == 1:
        render.note(f"the context is full: turn {numbers[0]} leaves the model's view")
    elif numbers:
        render.note(f"the context is full: turns {numbers[0]}-{numbers[-1]} leave the model's view")


def _say_restored(turn: Turn) -> None:
    if turn.n_restored:
        render.note(
            f"{turn.n_restored:,} tokens were read back from the disk in {turn.restore_s:.2f} s"
        )


def say_found(evidence: Evidence) -> None:
    """The citations below an answer; then, where there is something to say, a line about them."""
    for line in citations.lines(evidence.sources):
        render.out(line)
    if evidence.n_left_out:
        render.note(f"no room for {evidence.n_left_out} more: /set evidence_tokens=… makes some")
    if not evidence.sources:
        return
    if citations.is_ungrounded(evidence):
        render.note("no passage has what the answer says: check it")
    if evidence.why:
        render.note(citations.shown(evidence))


def ending(turn: Turn) -> str:
    """What to tell of an answer that did not end by itself; "" for one that did."""
    reason = turn.finish_reason
    if reason == "cancelled":
        return "stopped" if turn.text else "stopped before the first word"
    if reason == "length":
        return f"length: {turn.params.max_tokens} tokens"
    if reason == "context":
        return f"context full: {turn.model.max_seq_len:,} tokens"
    if reason == "stop_string":
        return "stop: one of your stop texts"
    return "" if turn.text.strip() else "the model had nothing to say"


def stats(usage: Usage) -> str:
    """One line: prompt tokens (cached, new), time to first token, speeds, reason, seed."""
    new = usage.prompt_tokens - usage.cached_tokens
    parts = [f"prompt {usage.prompt_tokens} ({usage.cached_tokens} cached, {new} new)"]
    if usage.new_tokens:
        parts.append(f"first token {usage.time_to_first_token_s:.2f} s")
    parts.append(f"prefill {speed(new, usage.prefill_s)}")
    rate = speed(usage.new_tokens, usage.decode_s)
    parts.append(f"{usage.new_tokens} tokens{drafts([usage])}, {rate}")
    return " · ".join([*parts, usage.finish_reason or "?", f"seed {usage.seed}"])


def drafts(usages: Sequence[Usage]) -> str:
    """What to put behind a number of new tokens: "" without drafts."""
    drafted = sum(usage.drafted_tokens for usage in usages)
    accepted = sum(usage.accepted_tokens for usage in usages)
    return f" ({accepted:,} of {drafted:,} drafted came true)" if drafted else ""


def speed(n_tokens: int, seconds: float) -> str:
    """ "12.3 tok/s"; "– tok/s" where nothing was measured."""
    if not n_tokens or seconds <= 0:
        return "– tok/s"
    speed = n_tokens / seconds
    return f"{speed:.0f} tok/s" if speed >= 100 else f"{speed:.1f} tok/s"


def _show_progress(status: render.Status, event: Prefill) -> None:
    if event.total_tokens >= SHOW_PROGRESS_FROM and event.done_tokens < event.total_tokens:
        status.show(f"reading the prompt: {event.done_tokens:,} of {event.total_tokens:,} tokens")


def _wait(future: Future[None]) -> None:
    """Until the work is over, however it ends."""
    try:
        future.result()
    except BaseException:
        return
