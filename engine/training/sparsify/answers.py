"""The model's own answers as rows to train on, written one by one: what is there is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import engine
from data.files import private_folder, sync

Progress = Callable[[int, int], None]  # answers there, and all


def write_answers(
    path: Path,
    model_path: Path,
    questions: Sequence[str],
    *,
    n_tokens: int,
    temperature: float = 0.7,
    seed: int = 0,
    threads: int | None = None,
    on_progress: Progress = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Rows of messages, a question and an answer of at most n_tokens; False when it was stopped.

    Answers that stand in the file already, as far as they are whole, are not written again.
    """
    n_done = whole_rows(path)
    on_progress(n_done, len(questions))
    if n_done >= len(questions):
        return True
    private_folder(path.parent)
    model = engine.load(model_path, threads=threads)
    try:
        if model.tokenizer is None:
            raise ValueError(f"{model_path} has no tokenizer, so it cannot write texts; give DATA")
        with path.open("a", encoding="utf-8") as file:
            for number in range(n_done, len(questions)):
                if should_stop():
                    return False
                answer = _answer(model, questions[number], n_tokens, temperature, seed + number)
                turns = [
                    {"role": "user", "content": questions[number]},
                    {"role": "assistant", "content": answer},
                ]
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
                file.flush()
                on_progress(number + 1, len(questions))
            sync(file.fileno())
    finally:
        model.close()
    return True


def whole_rows(path: Path) -> int:
    """How many lines are whole; what a crash left of the last one is cut off."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return data.count(b"\n")


def _answer(
    model: engine.Model, question: str, n_tokens: int, temperature: float, seed: int
) -> str:
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode_chat([{"role": "user", "content": question}])
    params = engine.SamplingParams(temperature=temperature, max_tokens=n_tokens, seed=seed)
    generation = engine.stream(model, prompt, params)
    for _ in generation:
        pass
    # an empty answer would teach nothing
    return generation.text.strip() or "."
