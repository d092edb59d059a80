"""/sparsity, and sparsity among the settings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from bot import commands
from tests.bot.conftest import Talk
from tests.fakes import FakeModel, fake_cost, report_on

STOPPED = "[the calibration was stopped, so that sparsity is off until fast is asked for again]"


LOSS = "where a layer's KL is 0.030 to 0.040"
SITES = [
    "layers     read      KL  dense MB  read MB  saved",
    f"up 0-1  100.0 %  0.0000      1.00     1.00   0 µs  faster below 15 % read, {LOSS}",
    "o 0      40.0 %  0.0020      0.20     0.09   3 µs",
    "o 1     100.0 %  0.0000      0.20     0.20   0 µs  never faster here",
]


def calibrated() -> FakeModel:
    return FakeModel(costs={level: fake_cost(level) for level in ("balanced", "fast")})


def press_and_report_on(on_progress: Callable[[str, float], None]) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    report_on(on_progress)


def test_off_says_that_nothing_is_skipped(talk: Talk) -> None:
    session = talk("Hello\r/sparsity\r", "Hi.")
    assert session.lines[2:-1] == [
        ">>> /sparsity",
        "sparsity = auto (built-in), in use: off",
        "at off: 1 answer, 3 tokens, 10.0 tok/s",
        "a token computes everything: nothing is skipped",
    ]


def test_the_last_answer_is_compared_with_the_dense_one(talk: Talk) -> None:
    keys = "Hello\r/sparsity balanced\r/sparsity\rAnd?\r/sparsity\r"
    session = talk(keys, "Hi.", "So.", model=calibrated())
    lines = session.lines
    assert lines[2:7] == [
        ">>> /sparsity balanced",
        "sparsity = balanced",
        ">>> /sparsity",
        "sparsity = balanced (/set)",
        "at exact: 1 answer, 3 tokens, 10.0 tok/s",
    ]
    assert lines[-12:-1] == [
        "at exact: 1 answer, 3 tokens, 10.0 tok/s",
        "at balanced: 1 answer, 3 tokens, 10.0 tok/s",
        "part   dense MB  read MB    done",
        "head      28.00    14.00  25.0 %  screen 7.0 MB",
        "token     96.00    82.00",
        "",
        *SITES,
        "last answer: 82.0 of 96.0 MB a token · 125 tok/s, dense 100 (1.25x) · "
        "KL 0.0100 ± 0.0020 · same likeliest token 99.0 % of 3",
    ]
    assert session.model.levels[-1] == "balanced"


def test_before_the_first_answer_there_is_nothing_to_compare(talk: Talk) -> None:
    talk.flags["sparsity"] = "fast"
    session = talk("/sparsity\r", model=calibrated())
    assert session.lines[1:-1] == [
        "sparsity = fast (--sparsity)",
        "no answer of this model yet; after one, /sparsity shows what skipping costs",
    ]


def test_a_level_without_a_calibration_gets_one_at_once(talk: Talk) -> None:
    session = talk(
        "Hello\r/set sparsity=fast\rAnd?\r/set sparsity=balanced\r/stats\r", "Hi.", "So."
    )
    assert session.lines[2:5] == [
        ">>> /set sparsity=fast",
        "[sparsity was calibrated in 0 s, once for this model]",
        "sparsity = fast (/set)",
    ]
    assert talk.engine.calibrations == 1
    assert session.model.levels == ["off", "fast", "balanced"]
    assert "sparsity: balanced · 82.0 of 96.0 MB a token" in session.text


def test_ctrl_c_leaves_the_level_off_until_it_is_asked_for_again(talk: Talk) -> None:
    talk.engine.calibrating = press_and_report_on
    session = talk("Hello\r/sparsity fast\r/set top_k=5\r/sparsity\r/sparsity fast\r", "Hi.")
    assert session.lines[2:5] == [">>> /sparsity fast", STOPPED, "sparsity = fast, in use: off"]
    assert session.lines[5:8] == [
        ">>> /set top_k=5",
        "top_k = 5 (/set)",
        ">>> /sparsity",
    ]
    assert session.lines[8] == "sparsity = fast (/set), in use: off"
    assert session.lines.count(STOPPED) == talk.engine.calibrations == 2


def test_a_level_is_calibrated_behind_the_first_prompt(talk: Talk) -> None:
    talk.flags["sparsity"] = "balanced"
    session = talk("Hello\r/sparsity off\r/hyperparameters\r", "Hi.")
    assert "[sparsity was calibrated in 0 s, once for this model]" in session.lines
    assert session.model.levels == ["balanced", "off"]
    assert "sparsity            off           /set" in session.lines


def test_another_model_gets_the_level_too(talk: Talk) -> None:
    other = calibrated()
    talk.engine.models["other"] = other
    session = talk("Hello\r/set sparsity=fast\r/model other\r", "Hi.", model=calibrated())
    assert other.sparsity.level == "fast" and other.levels == ["fast"]
    assert talk.engine.calibrations == 0 and session.code == 0


def test_a_wrong_level_changes_nothing(talk: Talk) -> None:
    session = talk("Hello\r/sparsity quick\r", "Hi.")
    rule = "sparsity takes auto, off, exact, balanced, fast, or a number from 0 to 0.9"
    assert session.lines[3] == f"sparsechat: {rule}, got 'quick'"
    assert session.model.levels == ["off"]


def test_levels_are_completed(talk: Talk) -> None:
    session = talk("Hello\r", "Hi.")
    found = [candidate for candidate, *_ in commands.complete(session.state, "/sparsity b")]
    assert found == ["balanced"]
