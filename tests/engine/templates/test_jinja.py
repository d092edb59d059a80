"""The checkpoint's own template, byte for byte as transformers renders it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from engine.templates import _sandbox
from engine.templates.jinja import JinjaTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
HELLO = [{"role": "user", "content": "Hello"}]
OPEN = [*HELLO, {"role": "assistant", "content": "Well, "}]


class Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> Noon:
        return cls(2026, 3, 7, 12, 0, 0)


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sandbox, "datetime", Noon)


@pytest.fixture(scope="module")
def transformers_tokenizer() -> Any:
    """A tokenizer of transformers that serves for its chat templates."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(alphabet))}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    control = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>"]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


def outcome(render: Callable[[], Any]) -> Any:
    """What is rendered, or that it is refused."""
    try:
        return render()
    except Exception as error:
        return type(error)


@pytest.mark.parity
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_golden_templates_render_as_in_transformers(
    golden_source: str,
    conversation: list[dict[str, str]],
    add_generation_prompt: bool,
    transformers_tokenizer: Any,
    noon: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jinja2 import TemplateError
    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat_template_utils, "datetime", Noon)
    ours = JinjaTemplate(golden_source, SPECIAL)
    expected = outcome(
        lambda: transformers_tokenizer.apply_chat_template(
            conversation,
            chat_template=golden_source,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    )
    if expected is TemplateError:
        expected = ValueError
    found = outcome(lambda: ours.render(conversation, add_generation_prompt=add_generation_prompt))
    assert found == expected


@pytest.mark.parity
@pytest.mark.parametrize("content", ["", "Well", "Well, ", "  Well\n", "two\n\nlines "])
def test_open_answers_render_as_in_transformers(
    golden_source: str, content: str, transformers_tokenizer: Any, noon: None
) -> None:
    messages = [*HELLO, {"role": "assistant", "content": content}]
    expected = outcome(
        lambda: transformers_tokenizer.apply_chat_template(
            messages,
            chat_template=golden_source.replace("strftime_now(", "'07 Mar 2026' or ("),
            continue_final_message=True,
            tokenize=False,
        )
    )
    ours = JinjaTemplate(golden_source, SPECIAL)
    assert ours.render(messages, continue_final=True) == expected


@pytest.mark.parity
def test_every_construct_renders_as_in_transformers(transformers_tokenizer: Any) -> None:
    """What templates in the wild do, apart from the golden ones."""
    sources = [
        "{{ messages | tojson }}|{{ {'a': '<é>', 'b': [1, none, true]} | tojson(indent=2) }}",
        "{{ messages | tojson(sort_keys=true, separators=(',', ':'), ensure_ascii=true) }}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}"
        "{% endif %}{{ i }}{% endfor %}",
        "{% set ns = namespace(n=0, self=1) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% endfor %}{{ ns.n }} {{ ns.self }}",
        "{% macro f(a, b='x') %}[{{ a }}{{ b }}{{ caller() if caller }}]{% endmacro %}"
        "{{ f(1) }}{{ f(1, 'y') }}{% call f(2) %}c{% endcall %}",
        "{{ tools is defined }} {{ tools is none }} {{ documents is none }} {{ x is defined }}",
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ bos_token is defined }}",
        "  {% if true %}\n   a\n   {% endif %}\n\t{%- if true -%}  b  {%- endif -%}\n c",
        "{{ 'a' ~ 1 ~ none }} {{ 'x' * 3 }} {{ [1, 2] + [3] }} {{ 7 // 2 }} {{ 2 ** 5 }} "
        "{{ 7 % 4 }}"
        " {{ -1 }} {{ 1.5 + 2 }} {{ 3 / 2 }} {{ not 1 > 2 }}",
        "{{ '%s and %d' % ('a', 3) }} {{ '{} {x}'.format(1, x=2) }} {{ '%s' | format('b') }}",
        "{{ messages[0].content.split('l') | join('-') }}",
        "{{ 'a,b' | replace(',', '\\n') | indent(2) }}{{ 'a\\n\\nb' | indent('> ', true, true) }}",
        "{{ (messages | selectattr('role', 'equalto', 'user') | list | last).content | upper }}",
        "{{ messages | map(attribute='role') | unique | sort | join(', ') }} {{ [3, 1] | sum }}",
        "{{ 'b<' | safe + '<' }} {{ '<' | e }} {{ ' x ' | trim }} {{ 'abc'[::-1] }}",
        "{{ 'é'.upper() }} {{ 'a b'.title() }} {{ 'aXb'.partition('X') }} {{ '-a-'.strip('-') }}",
        "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{{ loop.index }}{{ loop.last }}"
        "{% else %}none{% endfor %}",
        "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{% endfor %}",
        "{{ {'a': 1} | items | list }} {{ ['a', 'b'] | reverse | first }} {{ x | default(1) }}",
        "{% set x %}block {{ 1 }}{% endset %}{{ x }}{% filter upper %}y{% endfilter %}",
        "{{ messages[1:] }} {{ messages[-1]['role'] }} {{ messages | length }} {{ messages[0] }}",
        "{{ dict(a=1) }} {{ dict.fromkeys('ab', 0) }} {{ [1, 2, 3][1:] }} {{ (1, 'b') }} {{ {} }}",
        "{{ 'ab'.startswith('a') }} {{ 'b' in 'ab' }} {{ 1 in [1] }} {{ 'x' if false else 'y' }}",
        "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
        "{% block a %}in a block{% endblock %}{{ self.a() }}",
        "{{ raise_exception('no ' ~ 1) }}",
    ]
    from jinja2 import TemplateError

    messages = [*OPEN, {"role": "user", "content": "b\nl"}]
    for source in sources:
        expected = outcome(
            lambda s=source: transformers_tokenizer.apply_chat_template(
                messages, chat_template=s, tokenize=False
            )
        )
        # all of them are valid, the last one raises on purpose
        assert (expected is TemplateError) == source.startswith("{{ raise_exception"), source
        expected = ValueError if expected is TemplateError else expected
        render = JinjaTemplate(source, SPECIAL).render
        assert outcome(lambda r=render: r(messages, add_generation_prompt=False)) == expected, (
            source
        )


def test_messages_and_special_tokens_are_in_scope() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ bos_token }}"
    template = JinjaTemplate(source, SPECIAL)
    assert template.render(OPEN) == "<user>Hello<assistant>Well, <s>"
    assert template.writes_bos


def test_dates_come_from_the_clock_or_the_caller(noon: None) -> None:
    template = JinjaTemplate("{{ strftime_now('%d %b %Y') }} {{ date_string }}")
    assert template.render(HELLO, date_string="today") == "07 Mar 2026 today"


def test_variables_reach_the_template_and_overrule_special_tokens() -> None:
    template = JinjaTemplate(
        "{{ bos_token }}{{ tools | length }}{{ add_generation_prompt }}", SPECIAL
    )
    assert template.render(HELLO, tools=[{}, {}], bos_token="B") == "B2True"


def test_messages_are_not_changed() -> None:
    messages = json.loads(json.dumps(OPEN))
    JinjaTemplate("{{ messages[1].content }}").render(messages, continue_final=True)
    assert messages == OPEN


def test_an_open_answer_ends_where_its_content_ends() -> None:
    exact = JinjaTemplate("{% for m in messages %}{{ m.content }}</s>{% endfor %}")
    assert exact.render(OPEN, continue_final=True) == "Hello</s>Well, "
    trims = JinjaTemplate("{% for m in messages %}{{ m.content | trim }}</s>{% endfor %}")
    assert trims.render(OPEN, continue_final=True) == "Hello</s>Well,"
    drops = JinjaTemplate("{{ messages[0].content }}")
    with pytest.raises(ValueError, match="drops the last answer"):
        drops.render(OPEN, continue_final=True)
    with pytest.raises(ValueError, match="only an assistant's message can be continued"):
        exact.render(HELLO, continue_final=True)


def test_markers_and_stops_are_found_in_what_is_written(
    golden_name: str, golden_source: str
) -> None:
    template = JinjaTemplate(golden_source, SPECIAL)
    chatml = {"<|im_start|>", "<|im_end|>"}
    llama3 = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
    inst = {"[INST]", "[/INST]"}
    expected = {
        "smollm2": (chatml, chatml),
        "qwen2": (chatml, chatml),
        "qwen2.5": (chatml, chatml),
        "llama-2": ({*inst, "<<SYS>>", "<</SYS>>", "<s>", "</s>"}, inst),
        "llama-3": ({*llama3, "<s>"}, llama3),
        "llama-3.1": ({*llama3, "<s>"}, llama3),
        "llama-3.2": ({*llama3, "<s>"}, llama3),
        "mistral-v0.2": ({*inst, "<s>", "</s>"}, inst),
        "mistral-v0.3": ({*inst, "<s>", "</s>"}, inst),
        "zephyr": (
            {"<|user|>", "<|assistant|>", "<|system|>", "</s>"},
            {"<|user|>", "<|assistant|>"},
        ),
    }[golden_name]
    assert (set(template.markers), set(template.stop_strings)) == expected


def test_markers_put_together_from_roles_are_found_too() -> None:
    source = "{% for m in messages %}{{ m.role | upper + ': ' + m.content + '\\n' }}{% endfor %}"
    template = JinjaTemplate(source)
    assert set(template.markers) == {"USER:", "ASSISTANT:", "SYSTEM:"}
    assert set(template.stop_strings) == {"\nUSER:", "\nASSISTANT:"}


def test_one_template_renders_in_many_threads() -> None:
    template = JinjaTemplate("{% for m in messages %}{{ m.content ~ '!' }}{% endfor %}")
    results: list[str] = []

    def work(n: int) -> None:
        results.extend(template.render([{"role": "user", "content": str(n)}]) for _ in range(50))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{n}!" for n in range(4) for _ in range(50))


def test_a_broken_template_is_told_when_it_is_used() -> None:
    template = JinjaTemplate("{% wrong")
    assert (template.name, template.markers, template.stop_strings) == ("jinja", (), ())
    with pytest.raises(ValueError, match="is broken"):
        template.render(HELLO)
