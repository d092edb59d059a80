"""From logits to the next token: pure functions on arrays, NumPy only.

The order is that of transformers: repetition penalty, temperature, top_k, top_p, min_p, one draw.
BOLT's rule against repeats, when asked for, stands between penalty and temperature, as in BOLT.
Nothing here sorts a whole vocabulary: a token costs about 0.1 ms at 49,000 entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
TokenIds = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens, how many, and when to stop; the values that turn a rule off are named.

    temperature 0 or None = greedy; top_k 0, top_p 1, min_p 0, repetition_penalty 1 = off.
    seed None = drawn when generation starts. stop: texts that end the answer; one str is one text.
    beams > 1 = beam search; its score is sum(log p) / n_tokens ** length_penalty.
    lookup = draft tokens where that saves time (engine/lookup.py), not with beams; the tokens that
    come out are the same. exact_prompt = read long prompts as exactly as single tokens, at half the
    speed; else what the cache held before a prompt can change an answer's last digits.

    allowed_repeats switches on BOLT's rule: no token returns that stands among the last max_tokens
    of prompt and answer, except these, and except punctuation_tokens whose probability reaches
    punctuation_repeat_threshold. None = off; an empty set = on without exceptions.
    """

    temperature: float | None = 0.6
    top_k: int = 40
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    beams: int = 1
    length_penalty: float = 0.0
    lookup: bool = True
    exact_prompt: bool = False
    allowed_repeats: frozenset[int] | None = None
    punctuation_tokens: frozenset[int] = frozenset()
    punctuation_repeat_threshold: float = 0.8

    def __post_init__(self) -> None:
        stop = self.stop if isinstance(self.stop, list | tuple) else (self.stop,)
        object.__setattr__(self, "stop", tuple(stop))
        object.__setattr__(self, "punctuation_tokens", frozenset(self.punctuation_tokens))
        if self.allowed_repeats is not None:
            object.__setattr__(self, "allowed_repeats", frozenset(self.allowed_repeats))
        for name, (is_valid, rule) in _RULES.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise ValueError(f"{name} must be {rule}, got {value!r}")


def _is_number(value: object) -> bool:
    is_real = isinstance(value, int | float | np.integer | np.floating)
    return is_real and not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]


def _is_integer(value: object, least: int = 0) -> bool:
    is_whole = isinstance(value, int | np.integer)
    return is_whole and not isinstance(value, bool) and value >= least  # type: ignore[operator]


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    # below 1e-6 a float32 logit divided by the temperature may overflow
    "temperature": (
        lambda t: t is None or (_is_number(t) and (t == 0 or t >= 1e-6)),
        "0 (always the likeliest token) or a number of at least 0.000001",
    ),
    "top_k": (_is_integer, "a whole number of at least 0; 0 turns it off"),
    "top_p": (lambda p: _is_number(p) and 0 < p <= 1, "above 0 and at most 1; 1 turns it off"),
    "min_p": (lambda p: _is_number(p) and 0 <= p <= 1, "from 0 to 1; 0 turns it off"),
    "repetition_penalty": (lambda x: _is_number(x) and 0.01 <= x <= 100, "0.01 to 100; 1 = off"),
    "seed": (lambda s: s is None or _is_integer(s), "a whole number of at least 0, or None"),
    "max_tokens": (lambda n: _is_integer(n, least=1), "a whole number of at least 1"),
    "stop": (lambda texts: all(isinstance(t, str) and t for t in texts), "texts, none empty"),
    "beams": (lambda n: _is_integer(n, least=1), "a whole number of at least 1"),
    "length_penalty": (_is_number, "a finite number; 0 turns it off"),
    "lookup": (lambda on: isinstance(on, bool), "True or False"),
    "exact_prompt": (lambda on: isinstance(on, bool), "True or False"),
    "allowed_repeats": (lambda ids: all(map(_is_integer, ids or ())), "token ids, or None"),
    "punctuation_tokens": (lambda ids: all(map(_is_integer, ids)), "token ids"),
    "punctuation_repeat_threshold": (lambda p: _is_number(p) and 0 <= p <= 1, "from 0 to 1"),
}


def n_best_needed(params: SamplingParams) -> int:
    """How many of the largest logits decide what is chosen; 0 = all.

    The rules against repeats lower single logits, without a bound on how far.
    """
    if params.repetition_penalty != 1 or params.allowed_repeats is not None:
        return 0
    return params.top_k if params.temperature else 1


def random_generator(seed: int) -> np.random.Generator:
    """The random numbers of one generation: one a token, whatever the number of threads."""
    return np.random.Generator(np.random.PCG64(seed))


class Uniform(Protocol):
    """Gives numbers in [0, 1)."""

    def random(self) -> float: ...


def next_token(
    logits: Floats, history: TokenIds, params: SamplingParams, random: Uniform
) -> tuple[int, float]:
    """The next token and its log-probability.

    logits   (vocab_size,) float32 as the model gave them, not changed; -inf = impossible
    history  ids of prompt and answer so far, read by repetition_penalty and allowed_repeats only;
             an integer array is read as it is, a list is converted at every token
    random   advanced by exactly one number, or by none when greedy

    The log-probability is the model's own, log softmax of these logits before penalty, temperature
    and filters: it does not change with the settings, and its sum is a beam's score.

    ValueError when a logit is NaN or +inf, or when no token is left to choose.
    """
    log_total = float(log_sum_exp(logits))
    if not math.isfinite(log_total):
        raise ValueError(
            f"no token can be chosen: the largest logit is {logits.max()}; the weights are "
            "damaged or the computation overflowed"
        )
    scores = _discourage_repeats(logits, log_total, history, params)
    token_id = chosen(scores, params, random)
    return token_id, float(logits[token_id]) - log_total


def chosen(scores: Floats, params: SamplingParams, random: Uniform) -> int:
    """The next token by scores (vocab_size,) to which the rules against repeats were applied."""
    if not params.temperature:
        return greedy(scores)
    token_ids, probs = candidates(scores, params)
    return int(token_ids[sample(probs, random.random())])


def _discourage_repeats(
    logits: Floats, log_total: float, history: TokenIds, params: SamplingParams
) -> Floats:
    """The logits after repetition_penalty and BOLT's rule, each only when it is on."""
    scores = logits
    if params.repetition_penalty != 1:
        scores = penalize_repeats(scores, history, params.repetition_penalty)
    if params.allowed_repeats is not None:
        logprobs = logits - logits.dtype.type(log_total)
        forbidden = forbid_repeats(logprobs, history[-params.max_tokens :], params)
        scores = np.where(forbidden, -np.inf, scores)
        if scores.max() == -np.inf:
            raise ValueError(
                f"no token is left: all that are possible appeared in the last {params.max_tokens} "
                "tokens; extend allowed_repeats, or None to turn the rule off"
            )
    return scores


def candidates(scores: Floats, params: SamplingParams) -> tuple[NDArray[np.intp], Floats]:
    """Token ids that temperature, top_k, top_p and min_p leave, ascending, and their probabilities.

    scores   (vocab_size,) logits after the rules against repeats
    returns  (n,) ids and (n,) probabilities, adding up to 1; some may be 0
    """
    token_ids = top_k_ids(scores, params.top_k)
    probs = softmax(scores[token_ids], params.temperature or 1.0)
    if params.top_p < 1:
        kept = top_p_mask(probs, params.top_p)
        token_ids, probs = token_ids[kept], probs[kept] / probs[kept].sum()
    if params.min_p > 0:
        kept = min_p_mask(probs, params.min_p)
        token_ids, probs = token_ids[kept], probs[kept] / probs[kept].sum()
    return token_ids, probs


def greedy(scores: Floats) -> int:
    """The id of the largest score; the lowest id where several are equal."""
    return int(np.argmax(scores))


def sample(probs: Floats, uniform: float) -> int:
    """The index whose stretch of the cumulative distribution holds uniform, a number in [0, 1).

    probs  (n,), at least one above 0, need not add up to 1; an entry of 0 is never chosen
    """
    cumulative = np.cumsum(probs, dtype=np.float64)
    total = cumulative[-1]
    index = np.searchsorted(cumulative, uniform * total, side="right")
    # uniform * total may round up to total, and the entries after that are 0
    return int(min(index, np.searchsorted(cumulative, total)))


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """exp(logits / temperature) / sum, over the last axis, in the type of the logits.

    One array is worked on in place: four of them cost more in page faults than all the arithmetic.
    """
    with np.errstate(over="ignore"):  # a difference may reach -inf, which is probability 0
        probs: Floats = logits - logits.max(axis=-1, keepdims=True)
        probs /= temperature
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True, dtype=np.float64).astype(probs.dtype)
    return probs


def log_sum_exp(logits: Floats) -> Floats:
    """log(sum(exp(logits))) over the last axis, float64; logits - this = log-probabilities.

    NaN when a logit is NaN; not finite when one is +inf or all are -inf; no warning.
    """
    top = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, -3e38 - 3e38
        weights = logits - top
    total = np.exp(weights, out=weights).sum(axis=-1, dtype=np.float64)
    return np.asarray(np.log(total) + top[..., 0])


def penalize_repeats(scores: Floats, token_ids: TokenIds, penalty: float) -> Floats:
    """Make tokens that appear in token_ids less likely (penalty > 1), each once.

    Positive scores are divided, negative multiplied (Keskar et al. 2019,
    https://arxiv.org/abs/1909.05858). scores (vocab_size,) with token_ids (n,), or (n_beams,
    vocab_size) with (n_beams, n); a new array is returned.
    """
    index = np.asarray(token_ids, dtype=np.intp)
    found = np.take_along_axis(scores, index, axis=-1)
    penalized = scores.copy()
    values = np.where(found < 0, found * penalty, found / penalty)
    np.put_along_axis(penalized, index, values, axis=-1)
    return penalized


def forbid_repeats(
    logprobs: Floats, recent_ids: TokenIds, params: SamplingParams
) -> NDArray[np.bool_]:
    """BOLT's rule as a mask: True where a token must not come again.

    logprobs    (vocab_size,) or (n_beams, vocab_size): of the model, before temperature
    recent_ids  (n,) or (n_beams, n): the last params.max_tokens tokens of prompt and answer
    returns     shape of logprobs; all False when params.allowed_repeats is None
    """
    appeared = np.zeros(logprobs.shape, dtype=np.bool_)
    if params.allowed_repeats is None:
        return appeared
    np.put_along_axis(appeared, np.asarray(recent_ids, dtype=np.intp), True, axis=-1)
    forbidden = appeared.copy()
    forbidden[..., _ids_below(params.allowed_repeats, logprobs.shape[-1])] = False
    punctuation = _ids_below(params.punctuation_tokens, logprobs.shape[-1])
    is_unlikely = np.exp(logprobs[..., punctuation]) < params.punctuation_repeat_threshold
    forbidden[..., punctuation] = appeared[..., punctuation] & is_unlikely
    return forbidden


@lru_cache(maxsize=8)
def _ids_below(token_ids: frozenset[int], vocab_size: int) -> NDArray[np.intp]:
    return np.array(sorted(i for i in token_ids if i < vocab_size), dtype=np.intp)


def top_k_ids(scores: Floats, top_k: int) -> NDArray[np.intp]:
    """Ids of the top_k largest scores, ascending; equals of the last one stay; 0 = all ids."""
    n = scores.shape[0]
    if not 0 < top_k < n:
        return np.arange(n)
    ids = np.flatnonzero(scores >= _at_most_kth_largest(scores, top_k))
    kth_largest = np.partition(scores[ids], -top_k)[-top_k]
    return np.asarray(ids[scores[ids] >= kth_largest])


def _at_most_kth_largest(scores: Floats, k: int) -> Any:
    """A number that at least k scores reach, close to the k-th largest where that is cheap.

    The k-th largest maximum of groups of 32: it spares the partition of 49,152 scores, 0.24 ms.
    """
    n_groups = scores.shape[0] // 32
    if n_groups < 4 * k:
        return -np.inf
    maxima = scores[: 32 * n_groups].reshape(32, n_groups).max(axis=0)
    return np.partition(maxima, -k)[-k]


def top_p_mask(probs: Floats, top_p: float) -> NDArray[np.bool_]:
    """True for the smallest set of likeliest tokens whose probability reaches top_p.

    Holtzman et al. 2019, https://arxiv.org/abs/1904.09751. probs (n,), adding up to 1; of equal
    tokens the lower index is taken first.
    """
    # the upper half of a float32 orders positive numbers in 16,257 bins: only one needs sorting
    bins = probs.astype(np.float32).view(np.uint32) >> 16
    mass = np.bincount(bins, weights=probs)[::-1].cumsum()
    n_bins_kept = int(np.searchsorted(mass, top_p))
    last_bin = max(mass.size - 1 - n_bins_kept, 0)
    mask = bins > last_bin
    undecided = np.flatnonzero(bins == last_bin)
    undecided = undecided[np.argsort(-probs[undecided], kind="stable")]
    mass_before = mass[n_bins_kept - 1] if n_bins_kept else 0.0
    reached = mass_before + probs[undecided].cumsum(dtype=np.float64)
    mask[undecided[: np.searchsorted(reached, top_p) + 1]] = True
    return mask


def min_p_mask(probs: Floats, min_p: float) -> NDArray[np.bool_]:
    """True for tokens at least min_p times as likely as the likeliest.

    Nguyen et al. 2024, https://arxiv.org/abs/2407.01082.
    """
    return np.asarray(probs >= min_p * probs.max())
