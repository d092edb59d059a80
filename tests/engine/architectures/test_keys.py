from __future__ import annotations

from typing import Any

import pytest

from engine.architectures._keys import Keys, activation, head_dim


@pytest.mark.parametrize("value", [12, 12.0])
def test_whole_numbers_are_read(value: Any) -> None:
    found = Keys({"n": value}).whole("n")
    assert (found, type(found)) == (12, int)


@pytest.mark.parametrize("value", ["x", 1.5, True, [1], {}, float("nan"), float("inf")])
def test_what_is_not_a_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^hidden_size must be a whole number, got "):
        Keys({"hidden_size": value}).whole("hidden_size")


@pytest.mark.parametrize("value", [0, -1, 2**31, 10**400, 1e300])
def test_whole_numbers_outside_their_range_are_refused(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^hidden_size must be from 1 to 2147483647, got "
    ) as error:
        Keys({"hidden_size": value}).whole("hidden_size")
    assert len(str(error.value)) < 160


@pytest.mark.parametrize("values", [{}, {"hidden_size": None}])
def test_missing_and_null_are_the_same(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^hidden_size is missing$"):
        Keys(values).whole("hidden_size")
    assert Keys(values).whole("hidden_size", 7) == 7
    assert not Keys(values).has("hidden_size")


@pytest.mark.parametrize("value", ["1e-5", False, None, [], 0, -1.0, float("nan"), float("inf")])
def test_what_is_not_a_positive_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^rms_norm_eps (must be|is missing)"):
        Keys({"rms_norm_eps": value}).number("rms_norm_eps")


def test_integers_are_numbers() -> None:
    found = Keys({"rope_theta": 10000}).number("rope_theta")
    assert (found, type(found)) == (10000.0, float)


@pytest.mark.parametrize("value", ["true", 1, 0.0])
def test_flags_are_true_or_false(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^mlp_bias must be true or false, got "):
        Keys({"mlp_bias": value}).flag("mlp_bias")


def test_objects_below_name_their_key_in_messages() -> None:
    keys = Keys({"rope_scaling": {"factor": "four"}}).below("rope_scaling")
    with pytest.raises(ValueError, match=r"^rope_scaling\.factor must be a number, got 'four'$"):
        keys.number("factor")
    with pytest.raises(ValueError, match=r"^rope_scaling must be an object, got 3$"):
        Keys({"rope_scaling": 3}).below("rope_scaling")


@pytest.mark.parametrize("value", [[1.0, 0.0], [10**400], ["a"], "abc", [float("nan")]])
def test_lists_hold_positive_numbers_only(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^divisors must "):
        Keys({"divisors": value}).numbers("divisors")


def test_head_dim_is_given_or_derived() -> None:
    assert head_dim(Keys({"head_dim": 40}), 60, 7) == 40
    assert head_dim(Keys({}), 60, 6) == 10
    with pytest.raises(
        ValueError,
        match=r"^hidden_size 60 is not a multiple of num_attention_heads 7, and head_dim",
    ):
        head_dim(Keys({"head_dim": None}), 60, 7)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (None, "silu"),
        ("silu", "silu"),
        ("gelu", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("relu", "relu"),
    ],
)
def test_activations_are_translated(name: str | None, ours: str) -> None:
    assert activation(Keys({"hidden_act": name})) == ours


@pytest.mark.parametrize("name", ["mish", 3, ["silu"]])
def test_other_activations_are_refused_by_name(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^hidden_act must be one of silu, .*, got "):
        activation(Keys({"hidden_act": name}))
