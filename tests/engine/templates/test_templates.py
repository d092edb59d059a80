"""Which template is used, and the fixed ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from engine.templates import TEMPLATES, special_tokens_of, template_for, template_named

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]
SYSTEM = {"role": "system", "content": "Be brief."}


@dataclass
class Source:
    """The parts of a checkpoint that templates read."""

    path: Path = Path("tiny.gguf")
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    chat_template: str | None = None


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What is logged."""
    seen: list[str] = []
    handler = logger.add(lambda message: seen.append(message.record["message"]), level="INFO")
    yield seen
    logger.remove(handler)


FIXED = {
    "human_bot": "<human>: Hi\n<bot>: Hello.\n<human>: Bye\n",
    "plain": "User: Hi\nAssistant: Hello.\nUser: Bye\n",
    "chatml": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n"
    ),
}
HEADER = {"human_bot": "<bot>:", "plain": "Assistant:", "chatml": "<|im_start|>assistant\n"}


@pytest.mark.parametrize("name", FIXED)
def test_fixed_templates_write_what_they_promise(name: str) -> None:
    template = template_named(name)
    assert template.name == name
    assert template.render(TALK) == FIXED[name] + HEADER[name]
    assert template.render(TALK, add_generation_prompt=False) == FIXED[name]
    assert not template.writes_bos


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("human_bot", "Be brief.\n\n"),
        ("plain", "Be brief.\n\n"),
        ("chatml", "<|im_start|>system\nBe brief.<|im_end|>\n"),
    ],
)
def test_system_text_comes_first(name: str, expected: str) -> None:
    rendered = template_named(name).render([SYSTEM, *TALK], add_generation_prompt=False)
    assert rendered == expected + FIXED[name]


@pytest.mark.parametrize("name", FIXED)
def test_a_last_answer_stays_open_where_asked(name: str) -> None:
    template = template_named(name)
    whole = template.render(TALK[:2], add_generation_prompt=False)
    opened = template.render(TALK[:2], continue_final=True)
    assert opened.endswith("Hello.")
    assert whole.startswith(opened)
    with pytest.raises(
        ValueError, match=r"only an assistant's message can be continued; .* user's"
    ):
        template.render(TALK, continue_final=True)


@pytest.mark.parametrize("name", FIXED)
def test_a_model_that_writes_the_next_turn_meets_a_stop_string(name: str) -> None:
    template = template_named(name)
    after_answer = template.render(TALK)[len(template.render(TALK[:2], continue_final=True)) :]
    assert any(stop in after_answer for stop in template.stop_strings)
    assert all(marker in template.render(TALK) for marker in template.markers)


def test_openchatkit_s_preamble_is_written_byte_for_byte() -> None:
    began = datetime(2023, 3, 10, 14, 5, 9, tzinfo=UTC)
    rendered = template_named("human_bot").render(TALK[:1], started_at=began)
    assert rendered == (
        "Current Date: 2023-03-10\nCurrent Time: 14:05:09 PM UTC\n\n<human>: Hi\n<bot>:"
    )


@pytest.mark.parametrize("name", ["human_bot", "plain"])
def test_a_role_without_a_label_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match="message 1 has the role 'critic'; this template has system"
    ):
        template_named(name).render([{"role": "critic", "content": "Hm."}])


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "the conversation is empty"),
        ([{"role": "user"}], "message 1: 'content' is NoneType, text is expected"),
        ([*TALK, {"content": "x"}], "message 4: 'role' is NoneType, text is expected"),
        ([{"role": "user", "content": ["x"]}], "message 1: 'content' is list, text is expected"),
    ],
)
def test_a_misshapen_conversation_is_one_line(name: str, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        template_named(name).render(wrong)


def test_every_file_is_a_template() -> None:
    assert set(TEMPLATES) == {*FIXED, "jinja"}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match="no chat template is called 'chatlm'; did you mean 'chatml'"
    ):
        template_named("chatlm")
    with pytest.raises(ValueError, match="there are chatml, human_bot, jinja, plain"):
        template_named("zzz")
    with pytest.raises(ValueError, match="comes with a checkpoint"):
        template_named("jinja")


def test_the_checkpoint_s_own_template_comes_first(messages: list[str]) -> None:
    template = template_for(
        Source(chat_template="{{ bos_token }}x"), special_tokens={"bos_token": "B"}
    )
    assert template.name == "jinja"
    assert template.render(TALK) == "Bx"
    assert messages == []


def test_special_tokens_come_from_the_config_by_default() -> None:
    config = {
        "bos_token": {"content": "B", "lstrip": False},
        "eos_token": "E",
        "add_bos_token": True,
    }
    source = Source(chat_template="{{ bos_token }}{{ eos_token }}", tokenizer_config=config)
    assert template_for(source).render(TALK) == "BE"
    assert special_tokens_of(config) == {"bos_token": "B", "eos_token": "E"}


def test_a_name_overrules_the_checkpoint() -> None:
    source = Source(chat_template="x")
    assert template_for(source, "plain").name == "plain"
    assert template_for(source, "jinja").name == "jinja"
    with pytest.raises(ValueError, match=r"tiny\.gguf has no chat template; name one of chatml, "):
        template_for(Source(), "jinja")


def test_without_a_template_the_vocabulary_decides_and_the_log_says_so(messages: list[str]) -> None:
    assert template_for(Source(), vocabulary={"<|im_start|>"}).name == "chatml"
    assert template_for(Source(), vocabulary={"<s>"}).name == "plain"
    assert messages == [
        "tiny.gguf has no chat template; using 'chatml'",
        "tiny.gguf has no chat template; using 'plain'",
    ]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("x", "x"),
        ([{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "rag", "template": "r"}, {"name": "tool_use", "template": "t"}], "r"),
        ({"default": "d", "rag": "r"}, "d"),
    ],
)
def test_of_named_templates_the_default_is_used(named: Any, expected: str) -> None:
    template = template_for(Source(tokenizer_config={"chat_template": named}))
    assert template.render(TALK) == expected


@pytest.mark.parametrize("named", [[], [1, {"name": "default"}], 5])
def test_templates_that_are_none_are_passed_over(named: Any) -> None:
    assert template_for(Source(tokenizer_config={"chat_template": named})).name == "plain"


def test_importing_templates_and_tokenizers_stays_light() -> None:
    heavy = "{'jinja2', 'tokenizers', 'torch', 'numba', 'transformers'}"
    code = f"import sys, engine.templates, engine.tokenizer; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
