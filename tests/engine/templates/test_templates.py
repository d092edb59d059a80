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
    config: dict[str, Any] = field(default_factory=dict)
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
    "completion": "HiHello.\nBye",
    "llama2": "[INST] Hi [/INST] Hello. </s><s>[INST] Bye [/INST]",
    "llama2_32k": "[INST]\nHi\n[/INST]\n\nHello.\n\n[INST]\nBye\n[/INST]\n\n",
}
FIXED["mpt"] = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.<|im_end|>\n" + FIXED["chatml"]
)
IN_TURNS = sorted(FIXED.keys() - {"completion"})
HEADER = {
    "human_bot": "<bot>:",
    "plain": "Assistant:",
    "chatml": "<|im_start|>assistant\n",
    "mpt": "<|im_start|>assistant\n",
}


@pytest.mark.parametrize("name", FIXED)
def test_fixed_templates_write_what_they_promise(name: str) -> None:
    template = template_named(name)
    assert template.name == name
    assert template.render(TALK) == FIXED[name] + HEADER.get(name, "")
    assert template.render(TALK, add_generation_prompt=False) == FIXED[name]
    assert not template.writes_bos


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("human_bot", "Be brief.\n\n"),
        ("plain", "Be brief.\n\n"),
        ("chatml", "<|im_start|>system\nBe brief.<|im_end|>\n"),
        ("completion", "Be brief.\n\n"),
    ],
)
def test_system_text_comes_first(name: str, expected: str) -> None:
    rendered = template_named(name).render([SYSTEM, *TALK], add_generation_prompt=False)
    assert rendered == expected + FIXED[name]


def test_a_system_text_replaces_mpt_s_and_stands_in_llama_2_s_first_question() -> None:
    chatml = template_named("chatml").render([SYSTEM, *TALK])
    assert template_named("mpt").render([SYSTEM, *TALK]) == chatml
    llama2 = template_named("llama2").render([SYSTEM, *TALK])
    assert llama2.startswith("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>")
    assert template_named("llama2_32k").render([SYSTEM, TALK[0]]) == (
        "[INST]\nBe brief.\n\nHi\n[/INST]\n\n"
    )


@pytest.mark.parametrize("name", ["llama2", "llama2_32k"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([TALK[0], TALK[0]], "message 2 has the role 'user'; user and assistant take turns"),
        ([SYSTEM, TALK[1]], "message 2 has the role 'assistant'.* and it is user's"),
        ([TALK[0], SYSTEM], "message 2 has the role 'system'.* and it is assistant's"),
        ([SYSTEM], "a system text alone is no conversation"),
    ],
)
def test_llama_2_refuses_roles_out_of_turn(name: str, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        template_named(name).render(wrong)


def test_completion_goes_on_where_the_text_ends() -> None:
    def rendered(*contents: str) -> str:
        roles = ("user", "assistant")
        chat = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
        return template_named("completion").render(chat)

    assert rendered("Once upon a ti") == "Once upon a ti"
    assert rendered("Once upon a ti", "me.", "She") == "Once upon a time.\nShe"
    assert rendered("a", " b\n", "c", "d") == "a b\ncd"


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


@pytest.mark.parametrize("name", IN_TURNS)
def test_a_model_that_writes_the_next_turn_meets_a_stop_string(name: str) -> None:
    template = template_named(name)
    after_answer = template.render(TALK)[len(template.render(TALK[:2], continue_final=True)) :]
    assert any(stop in after_answer for stop in template.stop_strings)
    chat = [SYSTEM, *TALK]
    in_text = [m for m in template.markers if "SYS" not in m or name == "llama2"]
    assert all(marker in template.render(chat) for marker in in_text)


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
    with pytest.raises(
        ValueError,
        match="there are chatml, completion, human_bot, jinja, llama2, llama2_32k, mpt, plain",
    ):
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
    assert template_for(Source(), vocabulary={"<s>"}).name == "completion"
    mpt = Source(config={"model_type": "mpt"})
    assert template_for(mpt, vocabulary={"<|im_start|>"}).name == "mpt"
    assert messages == [
        "tiny.gguf has no chat template; using 'chatml'",
        "tiny.gguf has no chat template; using 'completion'",
        "tiny.gguf has no chat template; using 'mpt'",
    ]


@pytest.mark.parametrize(
    ("name", "model_type", "expected"),
    [
        ("Pythia-Chat-Base-7B", "gpt_neox", "human_bot"),
        ("GPT-NeoXT-Chat-Base-20B", "gpt_neox", "human_bot"),
        ("redpajama-incite-chat-3b-v1.Q4_0.gguf", "gptneox", "human_bot"),
        ("RedPajama-INCITE-7B-Chat", "gpt_neox", "human_bot"),
        ("RedPajama-INCITE-7B-Base", "gpt_neox", "completion"),
        ("pythia-6.9b", "gpt_neox", "completion"),
        ("open_llama_7b_v2", "llama", "completion"),
        ("TinyStories-33M", "gpt_neo", "completion"),
        ("mpt-7b", "mpt", "completion"),
        ("LLaMA-2-7B-32K", "llama", "completion"),
        ("Llama-2-7B-32K-Instruct", "llama", "llama2_32k"),
        ("Llama-2-7b-chat-hf", "llama", "llama2"),
        ("CodeLlama-7b-Instruct-hf", "llama", "llama2"),
        ("Llama-3.2-1B-Instruct", "llama", "plain"),
        ("mpt-7b-instruct", "mpt", "plain"),
    ],
)
def test_without_a_template_the_name_tells_the_form(
    name: str, model_type: str, expected: str
) -> None:
    config = {"model_type": model_type}
    assert template_for(Source(Path(name), config)).name == expected
    in_cache = Path(f"hub/models--org--{name}/snapshots/0123")
    assert template_for(Source(in_cache, config)).name == expected
    saved = Source(Path("mine"), config | {"_name_or_path": f"org/{name}"})
    assert template_for(saved).name == expected


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
    assert template_for(Source(tokenizer_config={"chat_template": named})).name == "completion"


def test_importing_templates_and_tokenizers_stays_light() -> None:
    heavy = "{'jinja2', 'tokenizers', 'torch', 'numba', 'transformers'}"
    code = f"import sys, engine.templates, engine.tokenizer; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
