"""Golden templates and the conversations they are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "templates"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.jinja"))

Messages = list[dict[str, str]]


def chat(*contents: str, system: str | None = None) -> Messages:
    """User and assistant in turns, after an optional system prompt."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


CONVERSATIONS: dict[str, Messages] = {
    "one question": chat("Hello, who are you?"),
    "with system": chat("Hello", system="You are a heron."),
    "several turns": chat("One", "First.", "Two", "Second.", "Three"),
    "several turns with system": chat("One", "First.", "Two", system="  Be brief.\n"),
    "answered": chat("One", "First."),
    "answered with system": chat("One", "First.", system="Be brief."),
    "empty contents": chat("", "", ""),
    "spaces": chat("  a  ", "\n\nb\n", "\tc\t", system=" "),
    "unicode": chat("Grüße 你好 😀 שלום", "e\u0301 \u200d \u2028", "ﬁ"),
    "like jinja": chat("{{ messages }} {% for x in y %}", "{# note #}", "{{ 1 + 1 }}"),
    "like markup": chat("<b>&amp;</b> \"quoted\" 'single' \\n", "a\r\nb", "[x](y)"),
    "two questions": [*chat("One"), *chat("Two")],
    "answer first": [{"role": "assistant", "content": "Hi"}, *chat("One")],
    "system in the middle": [*chat("One", "First."), *chat("Two", system="Be brief.")],
    "only system": [{"role": "system", "content": "Be brief."}],
    "unknown role": [{"role": "critic", "content": "Hm."}],
    "long": chat(*(f"turn {i} " + "word " * i for i in range(41))),
}


@pytest.fixture(params=NAMES)
def golden_name(request: pytest.FixtureRequest) -> str:
    """The name of every golden template."""
    return str(request.param)


@pytest.fixture
def golden_source(golden_name: str) -> str:
    return (GOLDEN / f"{golden_name}.jinja").read_text(encoding="utf-8")


@pytest.fixture(params=CONVERSATIONS)
def conversation(request: pytest.FixtureRequest) -> Messages:
    """Every conversation."""
    return CONVERSATIONS[request.param]
