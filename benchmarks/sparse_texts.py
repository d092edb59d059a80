"""Three kinds of text on which sparsity is judged, none of which calibration has seen.

encyclopaedia   the beginnings of leads of Wikipedia
chat            answers of the dense model at temperature 0.7
technical       the beginnings of this repository's sources and documents
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import engine
from benchmarks.machine import ROOT
from data import wikipedia_leads

KINDS = ("encyclopaedia", "chat", "technical")
PROMPTS = (
    "Why is the sky blue?",
    "Write a function in Python that checks whether a word is a palindrome.",
    "My flight was cancelled. What can I do now?",
    "Tell me about the history of tea.",
    "What is the difference between a virus and a bacterium?",
    "Give me five ideas for a birthday present for my father.",
    "Explain supply and demand with an example.",
    "How do I change a flat tyre?",
    "Write a short dialogue between a cat and a dog.",
    "Who was Ada Lovelace and why is she remembered?",
    "How many hours are there in a leap year?",
    "Describe the taste of a mango to somebody who never had one.",
    "What are the pros and cons of working from home?",
    "Plan a simple dinner for four people without meat.",
    "What does a lawyer do all day?",
    "Rewrite this more politely: send me the file now.",
    "Why do leaves change their colour in autumn?",
    "Explain what a hash table is.",
    "I cannot concentrate at work. Any advice?",
    "Tell me a story about a lost key.",
    "What is inflation, in simple words?",
    "Name three inventions of the nineteenth century and what they changed.",
    "How do whales sleep?",
    "Write a job advertisement for a gardener.",
    "What should I know before I adopt a dog?",
    "Explain the rules of chess to a beginner.",
)
_FILES = (
    "README.md",
    "docs/log.md",
    "pyproject.toml",
    "engine/generate.py",
    "engine/decoder.py",
    "engine/kernels/attention.py",
    "engine/checkpoints/huggingface.py",
    "engine/tokenizer/guard.py",
    "retrieval/knowledge_base.py",
    "retrieval/fusion.py",
    "data/download.py",
    "data/wikipedia_text.py",
    "bot/chat.py",
    "bot/settings.py",
    "tests/engine/test_decoder.py",
    "benchmarks/report.py",
)
N_ANSWER = 128  # tokens at most
N_CONTEXT, N_TEXT = 8, 144  # tokens that a text begins with, and all of it


class Text(NamedTuple):
    """Token ids, of which those from `start` on, at least 1, are to be predicted."""

    kind: str
    token_ids: list[int]
    start: int


def texts(model: engine.Model, n_each: int | None = None) -> Iterator[Text]:
    """Some 2,000 positions of each kind; n_each: so many texts of each, to be quick."""
    model.set_sparsity("off")
    for i, prompt in enumerate(PROMPTS[:n_each]):
        yield answer(model, prompt, seed=1000 + i)
    for path in _FILES[:n_each]:
        yield _beginning(model, "technical", (ROOT / path).read_text("utf-8"))
    articles = [a.text for a in wikipedia_leads.leads() if len(a.text) > 4 * N_TEXT]
    for article in random.Random(0).sample(articles, len(_FILES))[:n_each]:
        yield _beginning(model, "encyclopaedia", article)


def answer(model: engine.Model, prompt: str, seed: int) -> Text:
    """What the model, as it is set, says."""
    assert model.tokenizer is not None
    ids = model.tokenizer.encode_chat([{"role": "user", "content": prompt}])
    params = engine.SamplingParams(temperature=0.7, max_tokens=N_ANSWER, seed=seed)
    generation = engine.stream(model, ids, params)
    for _ in generation:
        pass
    return Text("chat", [*ids, *generation.token_ids], len(ids))


def _beginning(model: engine.Model, kind: str, text: str) -> Text:
    assert model.tokenizer is not None
    return Text(kind, model.tokenizer.encode(text)[:N_TEXT], N_CONTEXT)
