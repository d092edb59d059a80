from __future__ import annotations

from dataclasses import fields

import pytest

from bot import settings
from bot.settings import Settings, parse, rules, setting_name, show

LEVELS = "auto, off, exact, balanced, fast, or a number from 0 to 0.9"


def test_the_built_in_values_are_openchatkits_but_for_the_length() -> None:
    built_in = Settings()
    assert (built_in.temperature, built_in.top_k, built_in.max_tokens) == (0.6, 40, 512)
    assert built_in.sample and built_in.stream and built_in.model == "smollm2-135m"


def test_every_built_in_value_obeys_its_own_rule() -> None:
    built_in = Settings()
    for item in fields(Settings):
        value = getattr(built_in, item.name)
        assert value is None or parse(item.name, value) == value
        assert rules()[item.name].help


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("temperature", "0", 0.0),
        ("temperature", 1, 1.0),
        ("top_k", "40", 40),
        ("top_p", "1", 1.0),
        ("seed", "12345678901", 12345678901),
        ("sample", "off", False),
        ("stream", "Yes", True),
        ("stream", True, True),
        ("stop", r"\n\n", ("\n\n",)),
        ("stop", r"a\tb\\n\q", ("a\tb\\n\\q",)),
        ("stop", ["x", r"\n"], ("x", r"\n")),  # a file has escapes of its own
        ("system", "", ""),
        ("template", "chatml", "chatml"),
        ("sparsity", "Fast", "fast"),
        ("sparsity", "0.5", 0.5),
        ("sparsity", 0, 0.0),
    ],
)
def test_values_are_read(name: str, value: object, parsed: object) -> None:
    result = parse(name, value)
    assert result == parsed and type(result) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", "-0.1", "temperature takes a number from 0 up to 100, got '-0.1'"),
        ("temperature", "nan", "temperature takes a number from 0 up to 100, got 'nan'"),
        ("length_penalty", "inf", "length_penalty takes a number, got 'inf'"),
        ("top_p", 0, "top_p takes a number above 0 up to 1, got 0"),
        ("top_k", "4.5", "top_k takes a whole number from 0, got '4.5'"),
        ("top_k", 4.0, "top_k takes a whole number from 0, got 4.0"),
        ("top_k", True, "top_k takes a whole number from 0, got True"),
        ("max_tokens", "0", "max_tokens takes a whole number from 1, got '0'"),
        ("seed", str(2**63), f"seed takes a whole number from 0, got '{2**63}'"),
        ("threads", "0", "threads takes a whole number from 1 up to 256, got '0'"),
        ("threads", "257", "threads takes a whole number from 1 up to 256, got '257'"),
        ("beams", "65", "beams takes a whole number from 1 up to 64, got '65'"),
        ("sample", "maybe", "sample takes on or off, got 'maybe'"),
        ("sample", 1, "sample takes on or off, got 1"),
        ("sparsity", "fas", f"sparsity takes {LEVELS}, got 'fas'; did you mean 'fast'?"),
        ("sparsity", "0.91", f"sparsity takes {LEVELS}, got '0.91'"),
        ("sparsity", "nan", f"sparsity takes {LEVELS}, got 'nan'"),
        ("sparsity", True, f"sparsity takes {LEVELS}, got True"),
        ("sparsity", [], f"sparsity takes {LEVELS}, got []"),
        ("stop", "", "stop takes text, got ''"),
        ("stop", [1], "stop takes text, got [1]"),
        ("system", 3, "system takes text, got 3"),
        (
            "template",
            "nope",
            "template takes one of chatml, completion, human_bot, jinja, llama2, llama2_32k, mpt, "
            "plain, got 'nope'",
        ),
    ],
)
def test_a_refused_value_names_setting_rule_and_value(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError) as error:
        parse(name, value)
    assert str(error.value) == message


def test_a_long_refused_value_is_cut() -> None:
    with pytest.raises(ValueError) as error:
        parse("top_k", "9" * 5000)  # also beyond Python's limit for reading numbers
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("word", ["top_k", "top-k", "--top-k", "TOP_K", " Top-K "])
def test_names_are_the_same_as_flag_variable_and_key(word: str) -> None:
    assert setting_name(word) == "top_k"


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no setting 'topk'; did you mean 'top_k'"):
        setting_name("topk")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not set"),
        ((), "not set"),
        (True, "on"),
        (0.6, "0.6"),
        (("\n",), r"'\n'"),
        ("", "''"),
    ],
)
def test_values_are_shown(value: settings.Value, shown: str) -> None:
    assert show(value) == shown


def test_threads_may_be_as_many_as_the_engine_takes() -> None:
    from engine.cores import MAX_THREADS

    assert rules()["threads"].high == MAX_THREADS
