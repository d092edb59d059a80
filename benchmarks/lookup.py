"""Do drafts from the text so far make answers faster, and do they cost where nothing is quoted?

Each answer is made with and without lookup, one right after the other; it must be the same, token
by token. The prompts hold passages of 600 tokens that the answer is to repeat; the last rows are
answers to questions without a passage, where the ratio shows the loss or what chance brings. Times
are of decoding alone: prompts are in the cache after a first round that is not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import engine
from benchmarks import machine, options, report

TEXTS = Path(__file__).parents[1] / "tests" / "golden" / "text"
PASSAGE = 600  # tokens
_GREEDY = engine.SamplingParams(temperature=0, max_tokens=250)
_DRAWN = replace(_GREEDY, temperature=0.6, seed=1)


class Case(NamedTuple):
    """One question and how it is answered."""

    name: str
    metric: str
    question: str  # {}: the beginning of `texts`
    texts: tuple[str, ...]
    params: engine.SamplingParams


CASES = (
    Case("repeats a passage", "lookup", "{}\n\nRepeat the passage above word for word.",
         ("notes", "prose"), _GREEDY),
    Case("corrects a passage", "lookup",
         "Correct the mistakes in this text and return the whole text:\n\n{}",
         ("notes", "prose"), _GREEDY),
    Case("repeats a passage, drawn", "lookup", "{}\n\nRepeat the text above word for word.",
         ("mixed",), _DRAWN),
    Case("a question, greedy", "lookup, nothing quoted", "Explain how a bicycle stays upright.",
         (), _GREEDY),
    Case("a question, drawn", "lookup, nothing quoted",
         "Tell me about the history of the printing press.", (), _DRAWN),
    Case("another question, drawn", "lookup, nothing quoted",
         "How do I plan a week-long trip to Japan?", (), _DRAWN),
)  # fmt: skip


def prompt_ids(model: engine.Model, case: Case) -> list[int]:
    """The question as the model's chat template has it."""
    assert model.tokenizer is not None
    texts = [(TEXTS / f"{name}.txt").read_text("utf-8").strip() for name in case.texts]
    passage = model.tokenizer.decode(model.tokenizer.encode("\n\n".join(texts))[:PASSAGE])
    message = {"role": "user", "content": case.question.format(passage)}
    return model.tokenizer.encode_chat([message], add_generation_prompt=True)


class Answer(NamedTuple):
    """What a generation gave and took."""

    token_ids: list[int]
    usage: engine.Usage
    load: machine.Load

    @property
    def rate(self) -> float:
        """Tokens a second, of those that were decoded: the first comes out of the prompt."""
        usage = self.usage
        first_s = usage.time_to_first_token_s - usage.prefill_s
        return (usage.new_tokens - 1) / (usage.decode_s - first_s)


def answer(model: engine.Model, token_ids: list[int], params: engine.SamplingParams) -> Answer:
    """One generation to its end."""
    with machine.Background() as background:
        generation = engine.stream(model, token_ids, params)
        for _ in generation:
            pass
    return Answer(generation.token_ids, generation.usage, background.load)


def rounds(model: engine.Model, case: Case, n: int, spare: int) -> Iterator[tuple[Answer, Answer]]:
    """n times (with lookup, without); who goes first changes.

    A round that others disturbed is made again, up to `spare` times. Ends the process when the
    answers differ.
    """
    token_ids = prompt_ids(model, case)
    counted = -1  # the first brings the prompt into the cache
    while counted < n:
        on_first = counted % 2 == 0
        found = {
            lookup: answer(model, token_ids, replace(case.params, lookup=lookup))
            for lookup in (on_first, not on_first)
        }
        if found[True].token_ids != found[False].token_ids:
            sys.exit(f"{case.name}: lookup changed the answer, which it must never do")
        loads = [one.load.foreign_percent or 0 for one in found.values()]
        if counted >= 0 and spare and max(loads) > machine.DISTURBED_PERCENT:
            spare -= 1
            continue
        if counted >= 0:
            yield found[True], found[False]
        counted += 1


def measure(chosen: options.Options) -> list[report.Row]:
    """All rows."""
    rows = []
    for threads in chosen.threads if chosen.quick else sorted({1, *chosen.threads}):
        model = engine.load(chosen.model, threads=threads)
        for case in CASES:
            options.note(f"{case.name}, {threads} threads")
            row = report.Row(case.name, threads, case.metric, "tok/s", "without")
            spare = 0 if chosen.quick else 2 * chosen.rounds
            drafted = accepted = new = 0
            for ours, without in rounds(model, case, chosen.rounds, spare):
                row.add(ours.rate, without.rate, ours.load, without.load)
                drafted += ours.usage.drafted_tokens
                accepted += ours.usage.accepted_tokens
                new += ours.usage.new_tokens
            row.extra = {
                "tokens": new // len(row.ours),
                "drafted_share": drafted / new,
                "accepted_share": accepted / new,  # of the answer's tokens: without their own call
                "call_times": {
                    str(n): round(time, 2) for n, time in model.call_times.measured().items()
                },
            }
            rows.append(row)
        model.close()
    return rows


def main() -> None:
    """Measure, print, and with --save keep."""
    doc = (__doc__ or "").splitlines()[0]
    chosen = options.parse_plain("lookup", doc, rounds=5, formats=False)
    report.publish(chosen.name, chosen.about(), measure(chosen), save=chosen.save)


if __name__ == "__main__":
    main()
