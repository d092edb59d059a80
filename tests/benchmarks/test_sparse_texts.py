"""Texts that calibration has not seen."""

from __future__ import annotations

from benchmarks import sparse_texts
from benchmarks.machine import ROOT
from engine.sparsity.texts import QUESTIONS


def test_prompts_are_not_those_of_calibration() -> None:
    assert not set(sparse_texts.PROMPTS) & set(QUESTIONS)
    assert len(set(sparse_texts.PROMPTS)) == len(sparse_texts.PROMPTS)


def test_technical_texts_are_there_and_long_enough() -> None:
    for name in sparse_texts._FILES:
        # a token is never more than some letters
        assert len((ROOT / name).read_text("utf-8")) > 4 * sparse_texts.N_TEXT, name


def test_there_are_two_thousand_positions_of_what_has_a_fixed_length() -> None:
    n_each = sparse_texts.N_TEXT - sparse_texts.N_CONTEXT
    assert n_each * len(sparse_texts._FILES) >= 2000
