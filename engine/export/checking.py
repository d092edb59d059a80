"""Whether what was written is the model in memory: opened again, asked the same, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.checkpoints import Checkpoint, open_checkpoint
from engine.cores import default_threads
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.weights import load_weights

Floats = NDArray[np.float32]
Logits = Callable[[Sequence[int]], Floats]  # token ids -> (T, vocab_size)

N_TOKENS = 192
# divergence of the distributions, on average, up to which a format is what it should be: rounding
# costs a third of it or less on SmolLM2-135M, which is small and so feels it most
MOST_KL = {
    "f32": 0.002, "f16": 0.002, "bf16": 0.02, "q8_0": 0.05, "q4_1": 1.0, "q4_0": 1.0, "peft": 0.002,
}  # fmt: skip
TALK = (
    ("user", "What is the capital of Switzerland, and how many people live there?"),
    ("assistant", "Bern is the seat of the federal government; about 134,000 people live there."),
    ("user", "Write a function in Python that adds two numbers, and explain it in one sentence."),
    ("assistant", "def add(first, second):\n    return first + second\n\nIt returns their sum."),
    ("user", "Übersetze das ins Deutsche: “It's 3:45 p.m., isn't it?”  Then count to 12."),
)


class Report(NamedTuple):
    """What was written, and how near it is to the model in memory on n_tokens tokens.

    kl       mean KL(in memory || written), in nats
    largest  difference of two logits
    same     share of tokens after which the same one is likeliest
    """

    path: Path
    format: str
    n_bytes: int
    n_tokens: int
    kl: float
    largest: float
    same: float

    def line(self) -> str:
        """For people."""
        return (
            f"KL {self.kl:.2g}, logits differ by {self.largest:.2g} at most, the same token is "
            f"likeliest at {100 * self.same:.1f} % of {self.n_tokens}"
        )


def probe_ids(tokenizer: Tokenizer | None, vocab_size: int, longest: int) -> list[int]:
    """A conversation as token ids, at most N_TOKENS; without a tokenizer, any."""
    n = min(N_TOKENS, longest)
    if tokenizer is None:
        return [int(i) for i in np.random.default_rng(0).integers(0, vocab_size, n)]
    ids: list[int] = []
    for role, content in TALK:
        ids += tokenizer.encode(f"{role}: {content}\n")
    try:
        messages = [{"role": role, "content": content} for role, content in TALK]
        ids = tokenizer.encode_chat(messages) + ids
    except ValueError:
        pass  # a template that renders something else than this: the plain text will do
    return ids[:n]


def check(written: Path, format_name: str, logits: Logits, expected: Tokenizer | None) -> Report:
    """Compare a checkpoint with the model in memory; ValueError when it is another one.

    logits    of the model in memory
    expected  its tokenizer, which the written one must agree with
    """
    checkpoint = open_checkpoint(written)
    config = checkpoint.decoder_config()
    ids = probe_ids(expected, config.vocab_size, config.max_seq_len)
    _check_tokenizer(checkpoint, expected)
    found = compared(logits(ids), logits_of(checkpoint, ids))
    size = sum(file.stat().st_size for file in checkpoint.files)
    report = Report(written, format_name, size, len(ids), *found)
    require_close(report)
    return report


def compared(expected: Floats, found: Floats) -> tuple[float, float, float]:
    """(mean KL, largest difference, share of equal likeliest tokens)."""
    if expected.shape != found.shape:
        raise ValueError(f"it gives logits of shape {found.shape} instead of {expected.shape}")
    total = 0.0
    for row, other in zip(expected, found, strict=True):
        p, q = (_log_softmax(logits) for logits in (row, other))
        total += float(np.maximum(np.exp(p) @ (p - q), 0))  # which keeps a NaN
    same = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    return total / len(expected), float(np.abs(expected - found).max()), same


def require_close(report: Report) -> None:
    """ValueError where it is further away than its format explains; NaN is."""
    if not report.kl <= MOST_KL[report.format]:
        raise ValueError(
            f"what was written is not the model in memory, so it is taken away again: "
            f"{report.line()}; {report.format} explains a KL of {MOST_KL[report.format]:g}"
        )


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    log_sum: NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return log_sum


def logits_of(
    checkpoint: Checkpoint, ids: Sequence[int], packed_file: Path | None = None
) -> Floats:
    """Of a checkpoint; its packed weights are kept in packed_file, None: in memory only."""
    from engine.decoder import Decoder
    from engine.kv_formats import kv_format_for
    from engine.threads import Team

    config = checkpoint.decoder_config()
    weights = load_weights(checkpoint, config, None, packed_file)
    team = Team(default_threads())
    try:
        decoder = Decoder(config, weights, team, kv_format_for(weights))
        return decoder.extend(decoder.new_cache(), ids, all_logits=True)
    finally:
        team.close()


def _check_tokenizer(checkpoint: Checkpoint, expected: Tokenizer | None) -> None:
    """Both must cut the same text into the same tokens, and end answers at the same ones."""
    if expected is None:
        return
    found = load_tokenizer(checkpoint)
    if found is None:
        raise ValueError("what was written has no tokenizer, the model in memory has one")
    for role, content in TALK:
        for text in (content, f"{role}\n\n  {content}  \n"):
            if found.encode(text) != expected.encode(text):
                raise ValueError(f"its tokenizer cuts {text[:40]!r} into other tokens")
    specials = (expected.bos_token_id, expected.eos_token_id, expected.add_bos)
    if (found.bos_token_id, found.eos_token_id, found.add_bos) != specials:
        raise ValueError("its tokenizer begins or ends texts with other tokens")
    messages = [{"role": role, "content": content} for role, content in TALK]
    if _rendered(found, messages) != _rendered(expected, messages):
        raise ValueError("its chat template writes another text")


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str | None:
    try:
        return tokenizer.render(messages)
    except ValueError:
        return None
