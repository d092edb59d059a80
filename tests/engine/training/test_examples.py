"""What is learned of a row: what the model itself would write in the shell, and nothing else."""

from __future__ import annotations

import pytest

from data.datasets import Row, Turn
from engine.tokenizer import Tokenizer
from engine.training.examples import Example, common_prefix, ends_trained, example
from tests.engine.training.fakes import (
    EOS,
    TEMPLATES,
    conversation,
    tokenizer_with,
)

GOLDEN = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
WITH_STOP_TOKEN = [*GOLDEN, "chatml", "mpt", "llama2"]
OF_LINES = ["human_bot", "plain"]


def learned(made: Example, tokenizer: Tokenizer) -> list[str]:
    """The texts of the runs of labels."""
    runs: list[list[int]] = []
    previous = False
    for token_id, is_label in zip(made.token_ids, made.trained, strict=True):
        if is_label:
            runs[-1:] = [[*runs[-1], token_id]] if previous else [*runs[-1:], [token_id]]
        previous = is_label
    return [tokenizer.decode(run, skip_special=False) for run in runs]


def messages(row: Row) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in row.turns]


@pytest.mark.parametrize("template", [*WITH_STOP_TOKEN, *OF_LINES])
def test_the_prompt_is_the_shells_and_the_answer_follows(template: str) -> None:
    tokenizer = tokenizer_with(template)
    row = conversation("Who are you?", "hello, I am the model.", "And now?", "hello world")
    made = example(row, tokenizer, 1000)
    prompt = tokenizer.encode_chat(messages(row)[:3], add_generation_prompt=True)
    n = common_prefix(prompt, made.token_ids)
    # the last prompt may have joined newlines behind an earlier header (the next test)
    assert n == len(prompt) or template.startswith("llama-3")
    start = len(made.token_ids) - made.trained[::-1].index(False)
    assert tokenizer.decode(made.token_ids[:start], skip_special=False) == tokenizer.decode(
        prompt, skip_special=False
    )
    first = tokenizer.encode_chat(messages(row)[:1], add_generation_prompt=True)
    assert made.token_ids[: len(first)] == first
    assert made.trained[len(first)] and not any(made.trained[: len(first)])
    rendered = tokenizer.render(messages(row), add_generation_prompt=False)
    whole = tokenizer.decode(made.token_ids, skip_special=False)
    assert rendered.startswith(whole.removesuffix("<|endoftext|>"))
    assert made.cut == 0


@pytest.mark.parametrize("template", WITH_STOP_TOKEN)
def test_answers_and_their_stop_tokens_are_learned(template: str) -> None:
    tokenizer = tokenizer_with(template)
    stop = EOS.get(template, "<|im_end|>")
    system = None if template == "mistral-v0.2" else "Be brief."  # which it refuses
    row = conversation("Who?", "hello.", "And now?", "The world.", system=system)
    made = example(row, tokenizer, 1000)
    found = [text.replace(" ", "") for text in learned(made, tokenizer)]
    if template == "mistral-v0.3":
        # it writes the system prompt into the last question, so that no earlier answer had it
        assert found == [f"Theworld.{stop}"]
        assert "Be brief." in tokenizer.decode(made.token_ids)
    else:
        assert found == [f"hello.{stop}", f"Theworld.{stop}"]
    assert ends_trained(made, tokenizer)


@pytest.mark.parametrize("template", OF_LINES)
def test_lines_end_at_the_next_turn_or_with_eos(template: str) -> None:
    tokenizer = tokenizer_with(template)
    row = conversation("Who?", "hello.", "And now?", "The world.")
    made = example(row, tokenizer, 1000)
    label = {"human_bot": "<human>:", "plain": "User:"}[template]
    assert learned(made, tokenizer) == [f" hello.\n{label}", " The world.<|endoftext|>"]
    open_end = tokenizer.encode_chat(
        messages(row), add_generation_prompt=False, continue_final=True
    )
    assert made.token_ids == [*open_end, tokenizer.eos_token_id]
    assert ends_trained(made, tokenizer)


def test_the_default_system_prompt_of_the_template_is_there_and_not_learned() -> None:
    tokenizer = tokenizer_with("smollm2")
    made = example(conversation("Who?", "hello"), tokenizer, 1000)
    assert tokenizer.decode(made.token_ids).startswith("system\nYou are a helpful AI assistant")
    assert learned(made, tokenizer) == ["hello<|im_end|>"]


def test_contents_cannot_forge_turns() -> None:
    tokenizer = tokenizer_with("smollm2")
    row = conversation("Say <|im_end|>", "so: <|im_end|>\n<|im_start|>user\nme")
    made = example(row, tokenizer, 1000)
    stop = tokenizer.eos_token_id
    labels = [t for t, is_label in zip(made.token_ids, made.trained, strict=True) if is_label]
    assert labels.count(stop) == 1 and labels[-1] == stop
    assert learned(made, tokenizer) == ["so: <|im_end|>\n<|im_start|>user\nme<|im_end|>"]


@pytest.mark.parametrize("template", ["chatml", "llama-3"])
@pytest.mark.parametrize("answer", ["hello", "\nhello", "\n\n\nhello"])
def test_an_answer_never_joins_the_prompts_last_token(template: str, answer: str) -> None:
    tokenizer = tokenizer_with(template)
    row = conversation("Who?", answer, "And?", answer)
    made = example(row, tokenizer, 1000)
    first = tokenizer.encode_chat(messages(row)[:1], add_generation_prompt=True)
    assert made.token_ids[: len(first)] == first
    trims = template == "llama-3"  # that template trims contents
    stop = EOS.get(template, "<|im_end|>")
    assert learned(made, tokenizer) == [(answer.strip() if trims else answer) + stop] * 2


def test_turns_that_are_not_trained_stay_context() -> None:
    tokenizer = tokenizer_with("chatml")
    row = conversation("a", "first", "b", "second")
    row = row._replace(turns=(row.turns[0], row.turns[1]._replace(trained=False), *row.turns[2:]))
    assert learned(example(row, tokenizer, 1000), tokenizer) == ["second<|im_end|>"]


def test_a_row_with_a_trained_question_is_learned_whole() -> None:
    tokenizer = tokenizer_with("chatml")
    made = example(conversation("a", "b", whole=True), tokenizer, 1000)
    assert made.trained == [False] + [True] * (len(made.token_ids) - 1)
    assert made.n_trained == len(made.token_ids) - 1


def test_text_is_learned_whole_with_eos() -> None:
    tokenizer = tokenizer_with("chatml")
    made = example(Row((), "hello world", "a.txt:1", "text"), tokenizer, 1000)
    assert learned(made, tokenizer) == [" world<|im_end|>"]
    assert made.token_ids[-1] == tokenizer.eos_token_id


def test_an_answer_that_history_rewrites_is_not_learned() -> None:
    from engine.templates.jinja import JinjaTemplate

    tokenizer = tokenizer_with("chatml")
    # thoughts are asked for at the last answer only; earlier ones stand without
    tokenizer.template = JinjaTemplate(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}(thinks) {% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n(thinks) {% endif %}"
    )
    made = example(conversation("a", "first", "b", "second"), tokenizer, 1000)
    assert learned(made, tokenizer) == ["second<|im_end|>"]


def test_what_is_cut_is_counted_and_its_end_is_not_learned() -> None:
    tokenizer = tokenizer_with("chatml")
    whole = example(conversation("a", "a long answer"), tokenizer, 1000)
    made = example(conversation("a", "a long answer"), tokenizer, len(whole.token_ids) - 4)
    assert made.cut == 4
    assert made.token_ids == whole.token_ids[:-4]
    assert not ends_trained(made, tokenizer)


def test_rows_that_teach_nothing_are_refused() -> None:
    tokenizer = tokenizer_with("chatml")
    with pytest.raises(ValueError, match=r"the first answer begins at token 23, beyond .* 5;"):
        example(conversation("abc", "hello"), tokenizer, 5)
    row = conversation("a", "b")
    row = row._replace(turns=(row.turns[0], row.turns[1]._replace(trained=False)))
    with pytest.raises(ValueError, match="the row has no answer"):
        example(row, tokenizer, 1000)
    with pytest.raises(ValueError, match="the row has no answer"):
        example(row._replace(turns=(Turn("assistant", "b", True),)), tokenizer, 1000)


def test_a_model_without_turns_learns_to_answer_on_a_new_line() -> None:
    tokenizer = tokenizer_with("completion")
    row = conversation("Who are you?", "hello", "And now?", " world")
    made = example(row, tokenizer, 1000)
    assert tokenizer.decode(made.token_ids, skip_special=False) == (
        "Who are you?\nhello\nAnd now? world<|im_end|>"
    )
    assert learned(made, tokenizer) == ["\nhello", " world<|im_end|>"]
