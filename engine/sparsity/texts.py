"""What calibration looks at: answers that the model itself gives to questions of many kinds.

A model's own answers are what its hidden states are like in use, in its language and manner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.generate import stream
from engine.sampling import SamplingParams

if TYPE_CHECKING:
    from engine.model import Model

QUESTIONS = (
    "What is photosynthesis, and why does it matter?",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Give me three tips for sleeping better.",
    "Who was Marie Curie?",
    "Explain recursion to a ten-year-old.",
    "Write a short story about a lighthouse keeper.",
    "What is the difference between weather and climate?",
    "How do I bake bread without yeast?",
    "Translate 'good morning, how are you?' into French and Spanish.",
    "List five large cities in Asia and one fact about each.",
    "Why did the Roman Empire fall?",
    "Write an e-mail that asks for a day off.",
    "What does HTTP status 404 mean?",
    "Compare cats and dogs as pets.",
    "Solve 3x + 5 = 20 and show the steps.",
    "Summarise the plot of Romeo and Juliet in four sentences.",
    "How does a bicycle stay upright?",
    "Write a poem of eight lines about autumn.",
    "What should I see in Rome in two days?",
    "Explain how vaccines work.",
    "What is a black hole?",
    "Give me a table of the planets with their number of moons.",
    "How can a small firm save energy?",
    "What happened in 1969?",
)
HELD_OUT = (  # what a level costs is measured on answers to these
    "How is paper made?",
    "Write a function in Python that reverses the words of a sentence.",
    "What should I pack for a week in the mountains?",
    "Explain what inflation is.",
    "Who invented the telephone, and when?",
    "Tell me about the life of bees.",
)
ANSWER_TOKENS = 96


def answers(
    model: Model,
    questions: Sequence[str] = QUESTIONS,
    n_tokens: int = ANSWER_TOKENS,
    seed: int = 1,
    on_choice: Callable[[], None] | None = None,
) -> Iterator[tuple[list[int], int]]:
    """(token ids of a prompt and its answer, length of the prompt), one for each question.

    on_choice is called when a token, or the end, was chosen: the decoder's latest call was for it.
    Without a tokenizer or a chat form the text is what follows single random tokens.
    """
    params = SamplingParams(temperature=0.8, top_k=0, max_tokens=n_tokens, seed=seed, lookup=False)
    for prompt in prompts(model, questions, seed):
        generation = stream(model, prompt, params)
        for _ in generation:
            if on_choice is not None:
                on_choice()
        yield [*prompt, *generation.token_ids], len(prompt)


def prompts(model: Model, questions: Sequence[str], seed: int) -> Iterator[list[int]]:
    """Token ids of the questions as a chat asks them; without a tokenizer single random ones."""
    random = np.random.default_rng(seed)
    for question in questions:
        if model.tokenizer is None:
            yield [int(random.integers(0, model.config.vocab_size))]
        else:
            yield model.tokenizer.encode_chat([{"role": "user", "content": question}])
