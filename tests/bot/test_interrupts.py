from __future__ import annotations

import signal
import threading

import pytest

from bot.interrupts import Interrupts


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_press_sets_the_flag_and_raises_nothing() -> None:
    flag = threading.Event()
    with Interrupts() as interrupts, interrupts.cancelling(flag):
        press()
        assert flag.is_set()
        press()


def test_the_third_press_gives_up() -> None:
    with Interrupts() as interrupts, interrupts.cancelling(threading.Event()):
        press()
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_presses_are_counted_for_each_answer_anew() -> None:
    with Interrupts() as interrupts:
        for _ in range(2):
            flag = threading.Event()
            with interrupts.cancelling(flag):
                press()
                press()
            assert flag.is_set()


def test_between_answers_a_press_does_nothing() -> None:
    flag = threading.Event()
    with Interrupts() as interrupts:
        with interrupts.cancelling(flag):
            pass
        press()
    assert not flag.is_set()


def test_while_a_line_is_read_a_press_raises() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.raising():
            press()
        press()


def test_the_handler_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_outside_the_main_thread_no_handler_is_touched() -> None:
    before, inside = signal.getsignal(signal.SIGINT), []

    def elsewhere() -> None:
        with Interrupts():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert inside == [before]
