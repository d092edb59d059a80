"""Hostile chat templates: one line each, nothing hangs, nothing escapes.

A template comes with a model file from anyone. What these ask for would take minutes to ages or
gigabytes; that the tests end at all is the point, and no single one may need more than seconds.
"""

from __future__ import annotations

import tracemalloc

import pytest

from engine.templates.jinja import MAX_SOURCE, JinjaTemplate

HELLO = [{"role": "user", "content": "Hello"}]
MB = 1_000_000


def doubled(expression: str) -> str:
    """A loop that doubles n.s forty times over."""
    loop = "{% set n = namespace(s='ab') %}{% for i in range(40) %}{% set n.s = EXPR %}{% endfor %}"
    return loop.replace("EXPR", expression)


def refusal(source: str) -> str:
    """The one line that a template is answered with."""
    with pytest.raises(ValueError) as raised:
        JinjaTemplate(source).render(HELLO)
    message = str(raised.value)
    assert message.startswith("the chat template ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "source",
    [
        # loops and calls
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
        "{% set t = [[], []] %}{% for x in [t, t] * 2 recursive %}{{ loop([t, t]) }}{% endfor %}",
        "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
        "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}{% macro g(n) %}"
        "{% call f() %}{{ g(n - 1) if n }}{% endcall %}{% endmacro %}{{ g(60) }}",
        # text that grows
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ [0] * 10000000000 }}",
        doubled("n.s + n.s"),
        doubled("n.s ~ n.s"),
        doubled("n.s | replace('a', n.s)"),
        doubled("n.s.replace('a', n.s)"),
        doubled("[n.s, n.s]"),
        doubled("(n.s, n.s)"),
        doubled("{1: n.s, 2: n.s}"),
        doubled("'%s%s' % (n.s, n.s)"),
        doubled("'{0}{0}'.format(n.s)"),
        doubled("n.s.join(['a', 'b', 'c'])"),
        doubled("['a', 'b', 'c'] | join(n.s)"),
        doubled("n.s | list + n.s | list"),
        "{{ range(100000) | map('string') | join('a' * 100000) }}",
        "{{ ('a' * 100000).join(range(100000) | map('string') | list) }}",
        "{{ ('a' * 100000).join(range(100000) | map('string')) }}",
        "{{ '-'.join(['a' * 1000000] * 3).join(range(100000) | map('string')) }}",
        "{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}",
        "{% set x %}{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}{% endset %}",
        "{% for i in range(100000) %}{{ 'a' * 1000000 }}{% endfor %}",
        "{{ ['a' * 1000000] * 100000 }}",
        "{{ dict.fromkeys(range(100000), 'a' * 1000000) }}",
        "{{ dict.fromkeys(range(100000), 'a' * 1000000) | tojson }}",
        # formatting
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%.1000000000f' % 1.5 }}",
        "{{ '%1000000000s' | format('a') }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=1000000000) }}",
        "{{ ('{0}' * 100000).format('a' * 100000) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '1'.zfill(1000000000) }}",
        "{{ '\\t'.expandtabs(1000000000) }}",
        "{{ 'a\\nb' | indent(1000000000) }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{{ [1] | batch(1000000000, 'x') | list }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 1.5 | round(1000000000) }}",
        "{{ strftime_now('%1000000000d') }}",
        "{{ strftime_now('%Y' * 100000) }}",
        "{{ lipsum(n=100000) }}",
        # numbers
        "{{ 10 ** (10 ** 10) }}",
        "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ range(10000000000) | list }}",
        "{{ [[1] * 100000] * 30 | sum(start=[]) }}",
    ],
)
def test_endless_work_is_stopped(source: str) -> None:
    assert "choose another one by name" in refusal(source)


def test_what_is_stopped_has_not_filled_the_memory() -> None:
    tracemalloc.start()
    try:
        refusal(doubled("n.s ~ n.s"))
        refusal("{{ 'a' * 10000000000 }}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * MB


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ messages[0]['__class__'].x }}",
        "{{ (messages | attr('__class__')).x }}",
        "{{ [messages] | map(attribute='__class__') | map(attribute='x') | list | join }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ namespace.__init__.__globals__.x }}",
        "{{ cycler.__init__.__globals__.os.popen('id') }}",
        "{{ self.__init__.__globals__.x }}",
        "{{ loop.__class__.x }}",
        "{% for x in [1] %}{{ loop.__init__.__globals__.x }}{% endfor %}",
        "{{ '{0.__class__}'.format(1).x.y }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}{{ ''.__class__.x }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ messages.clear() }}",
        "{{ ''.encode('utf-16').hex() }}",
        "{{ ''.maketrans('a', 'b') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ environment.loader.x }}",
    ],
)
def test_no_way_leads_out_of_the_sandbox(source: str) -> None:
    refusal(source)


def test_a_template_that_raises_is_quoted() -> None:
    source = "{{ raise_exception('Roles must\nalternate!') }}"
    message = "the chat template refuses this conversation: Roles must alternate!"
    assert refusal(source) == message


def test_a_very_long_message_is_cut() -> None:
    assert len(refusal("{{ raise_exception('no ' * 1000) }}")) < 400


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ messages[0].foo.bar }}",
            "failed: UndefinedError: 'dict object' has no attribute 'foo'",
        ),
        ("{{ messages[0].content + 1 }}", "failed: TypeError: "),
        ("{{ 1 / 0 }}", "failed: ZeroDivisionError: "),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "failed: RecursionError"),
    ],
)
def test_a_template_that_fails_names_the_error(source: str, message: str) -> None:
    assert message in refusal(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages",
        "{% endfor %}",
        "{{ 'a' | no_such_filter }}",
        "{{ 'a' is no_such_test }}",
        "{% no_such_tag %}",
        "{% generation %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{{ " + "-" * 100_000 + "1 }}",
        "{% if x %}" * 2000 + "{% endif %}" * 2000,
        "{% for x in y %}" * 200 + "{% endfor %}" * 200,
        "{% break %}",
    ],
)
def test_a_template_that_is_no_jinja_is_told_as_broken(source: str) -> None:
    assert refusal(source).startswith("the chat template is broken")


def test_the_line_of_a_mistake_is_named() -> None:
    assert refusal("{{ 1 }}\n{{ 2 }}\n{% if %}").startswith(
        "the chat template is broken (line 3): "
    )


def test_an_absurdly_long_template_is_not_compiled() -> None:
    assert f"more than {MAX_SOURCE:,} are not read" in refusal("x" * (MAX_SOURCE + 1))


def test_a_template_serves_again_after_it_was_stopped() -> None:
    template = JinjaTemplate(
        "{% for i in range(messages[0].content | int) %}{{ 'a' * 9000 }}{% endfor %}"
    )
    with pytest.raises(ValueError, match="was stopped"):
        template.render([{"role": "user", "content": "99999"}])
    for _ in range(3):
        assert template.render([{"role": "user", "content": "2"}]) == "a" * 18_000


def test_a_long_conversation_is_no_runaway() -> None:
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": "word " * 2000} for i in range(400)
    ]
    source = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content | trim + '\n' }}{% endfor %}"
    )
    assert len(JinjaTemplate(source).render(messages)) > 4 * MB - 8000
