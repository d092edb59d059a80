"""A row of training text as token ids, with the tokens that are learned marked.

The ids are those that the shell feeds the model for the same conversation: its prompt for the last
trained answer, by the same `Tokenizer.encode_chat`, and the answer. What is learned is what the
model writes itself when it answers in the shell: the tokens behind each prompt, the end of the turn
included, and nothing that others write. What follows the last answer nobody learns from; it is left
out.

How an answer ends depends on the template. Most write a control token that stops generation
(`<|im_end|>`); it is learned, what follows it (a newline) never is. Templates of lines ("<bot>: …")
have none: in the middle of a conversation the beginning of the next turn is learned, because that
is the stop string the shell waits for, and the row's last answer is followed by the EOS token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.templates import continues

if TYPE_CHECKING:
    from data.datasets import Row, Turn
    from engine.config import DecoderConfig
    from engine.templates import ChatTemplate
    from engine.tokenizer import Tokenizer
    from engine.training.settings import TrainSettings

_LONGEST_STOP = 24  # tokens looked at behind an answer for a stop string


class Example(NamedTuple):
    """One document.

    token_ids  the document
    trained    token i is a label; as long as token_ids, the first is False: nothing predicts it
    origin     where the row stands, "file.jsonl:12"
    cut        tokens beyond max_seq_len that were left out
    """

    token_ids: list[int]
    trained: list[bool]
    origin: str
    cut: int

    @property
    def n_trained(self) -> int:
        """How many tokens are labels."""
        return sum(self.trained)


def longest_row(settings: TrainSettings, config: DecoderConfig) -> int:
    """Tokens beyond which rows are cut; ValueError for a max_seq_len that cannot be."""
    asked = settings.max_seq_len
    if asked is None:
        return min(config.max_seq_len, settings.tokens_per_batch)
    # ALiBi has no positions that would have to be learned first
    if asked > config.max_seq_len and config.position != "alibi":
        raise ValueError(
            f"max_seq_len {asked:,} is beyond the {config.max_seq_len:,} tokens of the model"
        )
    if asked > settings.tokens_per_batch:
        raise ValueError(
            f"max_seq_len {asked:,} does not fit into batches of {settings.tokens_per_batch:,} "
            "tokens; raise tokens_per_step or lower accumulate"
        )
    return asked


def example(row: Row, tokenizer: Tokenizer, max_seq_len: int) -> Example:
    """The row's ids and labels; what lies beyond max_seq_len is cut off at the end.

    A row with a trained turn that is no answer (`--loss all`) is trained whole, as plain text is.
    ValueError without origin when nothing would be learned or the template refuses the row.
    """
    if row.text is not None:
        token_ids = _text_ids(row.text, tokenizer)
        trained = [True] * len(token_ids)
    else:
        token_ids, trained = _chat_ids(row.turns, tokenizer)
    if trained:
        trained[0] = False
    cut = max(0, len(token_ids) - max_seq_len)
    if not any(trained[:max_seq_len]):
        raise ValueError(_nothing_trained(trained, max_seq_len))
    return Example(token_ids[:max_seq_len], trained[:max_seq_len], row.origin, cut)


def ends_trained(made: Example, tokenizer: Tokenizer) -> bool:
    """Whether a token that stops generation is among the labels."""
    return any(
        is_label and token_id in tokenizer.stop_ids
        for token_id, is_label in zip(made.token_ids, made.trained, strict=True)
    )


def _text_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    token_ids = tokenizer.encode(text, add_special_tokens=True)
    eos = tokenizer.eos_token_id
    return token_ids if eos is None or token_ids[-1:] == [eos] else [*token_ids, eos]


def _chat_ids(turns: Sequence[Turn], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """The shell's prompt for the last trained answer, that answer, and which ids are labels."""
    messages = [{"role": turn.role, "content": _said(turn, tokenizer.template)} for turn in turns]
    if any(turn.trained and turn.role != "assistant" for turn in turns):
        token_ids = _conversation_ids(messages, tokenizer)
        return token_ids, [True] * len(token_ids)
    # an answer without a question before it is never asked for
    answers = [number for number, turn in enumerate(turns) if turn.trained and number]
    if not answers:
        return [], []
    *earlier, last = answers
    token_ids = tokenizer.encode_chat(messages[:last], add_generation_prompt=True)
    answer = _last_answer(messages[: last + 1], token_ids, tokenizer)
    trained = [False] * len(token_ids) + [True] * len(answer)
    token_ids += answer
    for number in reversed(earlier):  # the last first: indices before it hold when it is respelled
        _mark(messages[: number + 1], token_ids, trained, tokenizer)
    return token_ids, trained


def _said(turn: Turn, template: ChatTemplate) -> str:
    """What the turn adds to the text: a model without turns begins its answer on a new line."""
    is_answer = turn.role == "assistant" and continues(template)
    return f"\n{turn.content}" if is_answer and not turn.content[:1].isspace() else turn.content


def _mark(
    through: list[dict[str, str]], token_ids: list[int], trained: list[bool], tokenizer: Tokenizer
) -> None:
    """Mark the answer that ends the messages `through` as labels, in place.

    Nothing is marked when the conversation so far is written otherwise than in the prompt that asks
    for this answer (some templates drop what an earlier answer thought).
    """
    prompt = tokenizer.encode_chat(through[:-1], add_generation_prompt=True)
    rendered = tokenizer.encode_chat(through, add_generation_prompt=False)
    end = common_prefix(rendered, token_ids)
    respelled = _respelled(prompt, token_ids, tokenizer)
    if respelled is None:
        return
    first, behind, piece = respelled
    token_ids[first:behind] = piece
    trained[first:behind] = [False] * len(piece)
    start = len(prompt)
    end = _answer_end(token_ids, start, max(start, end + len(piece) - (behind - first)), tokenizer)
    trained[start:end] = [True] * (end - start)


def _last_answer(
    through: list[dict[str, str]], prompt: list[int], tokenizer: Tokenizer
) -> list[int]:
    """What the model writes after `prompt`: the ids of the answer that ends `through`, its stop
    token included."""
    answer = _behind(through, prompt, tokenizer)
    if answer is None:
        # the prompt is written otherwise once it is answered; see what stands behind another one
        asked = [{"role": "user", "content": "?"}]
        alone = tokenizer.encode_chat(asked, add_generation_prompt=True)
        answer = _behind([*asked, through[-1]], alone, tokenizer)
    if answer is None:
        raise ValueError("the chat template writes an answer otherwise than it asks for it")
    return answer


def _behind(
    through: list[dict[str, str]], prompt: list[int], tokenizer: Tokenizer
) -> list[int] | None:
    """What follows `prompt` in the messages `through`, to the stop token; None if they differ."""
    eos = tokenizer.eos_token_id
    for is_open in (False, True):
        token_ids = tokenizer.encode_chat(
            through, add_generation_prompt=False, continue_final=is_open
        )
        respelled = _respelled(prompt, token_ids, tokenizer)
        if respelled is None:
            return None
        first, behind, piece = respelled
        answer = [*token_ids[:first], *piece, *token_ids[behind:]][len(prompt) :]
        for index, token_id in enumerate(answer):
            # contents cannot hold control tokens, so the first one found is the template's
            if token_id in tokenizer.stop_ids:
                return answer[: index + 1]
        if eos is None:
            return answer
        if is_open:
            return [*answer, eos]
    return None


def _conversation_ids(messages: list[dict[str, str]], tokenizer: Tokenizer) -> list[int]:
    """The whole conversation; EOS behind a last answer that ends without a stop token."""
    token_ids = tokenizer.encode_chat(messages, add_generation_prompt=False)
    eos = tokenizer.eos_token_id
    if messages[-1]["role"] != "assistant" or eos is None:
        return token_ids
    is_open = tokenizer.encode_chat(messages, add_generation_prompt=False, continue_final=True)
    behind = token_ids[common_prefix(is_open, token_ids) :]
    return token_ids if tokenizer.stop_ids.intersection(behind) else [*is_open, eos]


def _respelled(
    prompt: list[int], token_ids: list[int], tokenizer: Tokenizer
) -> tuple[int, int, list[int]] | None:
    """(first, behind, piece): with `piece` in place of token_ids[first:behind], `prompt` leads.

    The prompt's last letters and the answer's first ones may be one token in `token_ids`; the model
    writes behind the prompt and cannot join them. None when the texts differ.
    """
    n = common_prefix(prompt, token_ids)
    if n == len(prompt):
        return n, n, []
    tail = tokenizer.decode(prompt[n:], skip_special=False)
    if not tokenizer.decode(token_ids[n:], skip_special=False).startswith(tail):
        return None
    for behind in range(n + 1, len(token_ids) + 1):
        text = tokenizer.decode(token_ids[n:behind], skip_special=False)
        if len(text) >= len(tail):
            rest = tokenizer.encode(text[len(tail) :])
            piece = [*prompt[n:], *rest]
            spelled = tokenizer.decode(piece, skip_special=False) == text
            return (n, behind, piece) if spelled else None
    return None


def _answer_end(token_ids: list[int], start: int, end: int, tokenizer: Tokenizer) -> int:
    """The index behind the last label of an answer that stands at [start, end) with what the
    template writes after it: its stop token, or else what completes a stop string."""
    for index in range(start, end):
        if token_ids[index] in tokenizer.stop_ids:
            return index + 1
    for index in range(end, min(end + _LONGEST_STOP, len(token_ids)) + 1):
        text = tokenizer.decode(token_ids[start:index], skip_special=False)
        if any(stop in text for stop in tokenizer.template.stop_strings):
            return index
    return end


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading ids are equal."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def _nothing_trained(trained: list[bool], max_seq_len: int) -> str:
    if any(trained):
        return (
            f"nothing to learn: the first answer begins at token {trained.index(True) + 1:,}, "
            f"beyond max_seq_len {max_seq_len:,}; raise it or shorten the context"
        )
    return "nothing to learn: the row has no answer to a question"
