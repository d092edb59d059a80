"""What is told of an answer beside its text."""

from __future__ import annotations

from bot.answering import drafts, stats
from tests.fakes import FakeUsage


def test_drafts_are_told_only_when_there_were_some() -> None:
    usage = FakeUsage(new_tokens=30, decode_s=0.1, finish_reason="stop")
    assert "30 tokens, 300 tok/s" in stats(usage)
    usage.drafted_tokens, usage.accepted_tokens = 1200, 17
    assert "30 tokens (17 of 1,200 drafted came true), 300 tok/s" in stats(usage)


def test_drafts_of_several_answers_are_added_up() -> None:
    usages = [FakeUsage(drafted_tokens=4, accepted_tokens=3), FakeUsage(), FakeUsage(0, 0, 9, 2, 2)]
    assert drafts(usages) == " (5 of 6 drafted came true)"
    assert drafts([]) == ""
