"""A loop that goes on by a step when it is asked to."""

from __future__ import annotations

import pytest

from benchmarks.training_side import Loop, TrainingSide


class Side(TrainingSide):
    def __init__(self, loop: Loop) -> None:
        self._loop = loop


def test_steps_are_made_one_by_one_and_timed() -> None:
    made: list[int] = []

    def work(loop: Loop) -> None:
        for number in range(3):
            loop.wait()
            made.append(number)
            loop.made(10 * number, number / 2)

    loop = Loop(work)
    loop.ready()
    assert made == []
    first = loop.step()
    assert (first.n_tokens, first.loss, made) == (0, 0.0, [0])
    answer = Side(loop).steps(2)
    assert [(step.n_tokens, step.loss) for step in answer["steps"]] == [(10, 0.5), (20, 1.0)]
    assert all(step.seconds >= 0 for step in answer["steps"])
    assert made == [0, 1, 2]


def test_a_loop_is_stopped_in_the_middle() -> None:
    ends: list[str] = []

    def work(loop: Loop) -> None:
        try:
            while True:
                loop.wait()
                loop.made(1, 1.0)
        finally:
            ends.append("closed")

    loop = Loop(work)
    loop.ready()
    loop.step()
    loop.stop()
    assert ends == ["closed"]


def test_what_the_loop_raises_is_raised_where_it_was_asked() -> None:
    def work(loop: Loop) -> None:
        loop.wait()
        raise ValueError("no room")

    loop = Loop(work)
    loop.ready()
    with pytest.raises(ValueError, match="no room"):
        loop.step()


def test_what_is_raised_before_the_first_step_is_heard_at_once() -> None:
    def work(loop: Loop) -> None:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        Loop(work).ready()
