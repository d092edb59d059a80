"""Stand-ins for what is slow or large: a model that says what it was told to.

The engine's surface is that of design.md §7; nothing here imports Numba.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data.models import ResolvedModel
from engine.sparsity.knob import Level, NotCalibratedError
from engine.sparsity.level_cost import LevelCost, Part, SiteCost
from engine.templates import template_named

BOS, IM_START, IM_END = 1, 2, 3
SPECIAL = {"<s>": BOS, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
_SPECIAL_WORDS = "(" + "|".join(map(re.escape, SPECIAL)) + ")"
_FIRST_CHARACTER = 10
_SLOT = "\ue000{}\ue001"  # stands for a message's content while the template is rendered


class FakeCancel:
    """engine.Cancel."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set, self.clear, self.is_set = self._event.set, self._event.clear, self._event.is_set
        self.wait = self._event.wait


class FakeStep(NamedTuple):
    token_id: int
    text: str
    logprob: float
    finish_reason: str | None = None


@dataclass
class FakeUsage:
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    time_to_first_token_s: float = 0.0
    finish_reason: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class FakeParams:
    """engine.SamplingParams."""

    temperature: float = 0.6
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


class FakeTokenizer:
    """One token per character; <s>, <|im_start|> and <|im_end|> are special."""

    vocab_size = 0x110000 + _FIRST_CHARACTER
    bos_token_id: int | None = BOS
    eos_token_id: int | None = IM_END
    pad_token_id: int | None = None
    special_ids = frozenset(SPECIAL.values())
    stop_ids = frozenset({IM_END})

    def __init__(self, add_bos: bool = False) -> None:
        self.add_bos = add_bos
        self.template: Any = template_named("chatml")

    def encode(
        self, text: str, *, add_special_tokens: bool = False, parse_special: bool = False
    ) -> list[int]:
        ids = [BOS] if add_special_tokens and self.add_bos else []
        words = re.split(_SPECIAL_WORDS, text) if parse_special else [text]
        for word in words:
            ids += [SPECIAL[word]] if word in SPECIAL and parse_special else _characters(word)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        names = {i: "" if skip_special else w for w, i in SPECIAL.items()}
        return "".join(names[i] if i in names else chr(i - _FIRST_CHARACTER) for i in ids)

    def render(self, messages: Sequence[dict[str, str]], **options: Any) -> str:
        text: str = self.template.render(messages, **options)
        return text

    def encode_chat(self, messages: Sequence[dict[str, str]], **options: Any) -> list[int]:
        slots = [{**m, "content": _SLOT.format(i)} for i, m in enumerate(messages)]
        ids: list[int] = []
        for piece in self.render(slots, **options).split("\ue000"):
            number, is_slot, rest = piece.partition("\ue001")
            if is_slot:
                ids += self.encode(messages[int(number)]["content"])
            ids += self.encode(rest if is_slot else piece, parse_special=True)
        return ids


def _characters(text: str) -> list[int]:
    return [ord(char) + _FIRST_CHARACTER for char in text]


@dataclass
class Reply:
    """What a FakeModel does with one prompt.

    text       spoken one character per token
    during     called before each token with the number of tokens said so far and the cancel flag
    reading    called with the cancel flag while the prompt is read
    error      raised after `text` was said
    """

    text: str = ""
    during: Callable[[int, FakeCancel], None] | None = None
    reading: Callable[[FakeCancel], None] | None = None
    error: Exception | None = None


@dataclass
class FakeConfig:
    architecture: str = "fake"
    head_bias: bool = False
    position: str = "rope"
    sliding_window: int = 0
    gated: bool = True


class FakeSparsity(NamedTuple):
    level: Level = "off"
    skips: bool = False
    proves: bool = False


class FakeAdapter(NamedTuple):
    name: str
    path: Path
    rank: int = 16
    n_weights: int = 4321
    base_name: str = "tiny"


def make_adapter(folder: Path, **config: Any) -> Path:
    """A folder that passes for an adapter as long as nobody reads its weights."""
    folder.mkdir(parents=True)
    keys = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(keys | config))
    return folder


@dataclass
class FakeModel:
    """Gives its replies in order, the last one again and again."""

    replies: deque[Reply] = field(default_factory=deque)
    tokenizer: FakeTokenizer | None = field(default_factory=FakeTokenizer)
    max_seq_len: int = 4096
    fingerprint: str = "f" * 64
    generation_defaults: dict[str, float] = field(default_factory=dict)
    path: Path = Path("fake.gguf")
    weight_format: str = "q8"
    n_weights: int = 1234
    n_bytes: int = 1234
    threads: int = 2
    instructions: str = "avx2"
    config: FakeConfig = field(default_factory=FakeConfig)
    prompts: list[list[int]] = field(default_factory=list)
    params: list[FakeParams] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    continued: list[bool] = field(default_factory=list)
    is_closed: bool = False
    sparsity: FakeSparsity = field(default_factory=FakeSparsity)
    levels: list[Level] = field(default_factory=list)  # that were set
    costs: dict[Level, LevelCost] = field(default_factory=dict)  # {} = not calibrated
    adapter: FakeAdapter | None = None
    adapter_digest: str = ""
    adapters: list[str | None] = field(default_factory=list)  # that were set
    misfits: set[str] = field(default_factory=set)  # names of adapters that it refuses
    methods: list[LevelCost] = field(default_factory=list)
    context_note: str = ""
    kv_cache: str = "f16"

    def kv_bytes(self, n_tokens: int | None = None) -> int:
        return 1024 * (len(self.cached) if n_tokens is None else n_tokens)

    def cached_prefix(self, ids: Sequence[int]) -> int:
        same = itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(self.cached, ids, strict=False)
        )
        return len(list(same))

    def next_reply(self) -> Reply:
        if not self.replies:
            return Reply("?")
        return self.replies.popleft() if len(self.replies) > 1 else self.replies[0]

    def prompt_text(self, number: int = -1) -> str:
        """A prompt as the model saw it, special tokens written out."""
        return FakeTokenizer().decode(self.prompts[number], skip_special=False)

    def set_threads(self, threads: int | None) -> None:
        self.threads = 2 if threads is None else threads

    def set_sparsity(self, level: Level) -> None:
        if level == "auto":
            level = "exact" if self.costs else "off"
        skips = level not in ("off", "exact", 0.0)
        if skips and not self.costs:
            raise NotCalibratedError(f"sparsity {level} needs a calibration of {self.path.name}")
        self.sparsity = FakeSparsity(level, skips)
        self.levels.append(level)

    def set_adapter(self, path: Path | None) -> None:
        if path is not None and path.name in self.misfits:
            raise ValueError(f"the adapter {path.name} was trained on another model")
        self.adapter = None if path is None else FakeAdapter(path.name, path)
        self.adapter_digest = "" if path is None else "a" * 64
        self.adapters.append(None if path is None else path.name)

    def close(self) -> None:
        self.is_closed = True


def fake_cost(level: Level, n_tokens: int = 100) -> LevelCost:
    head = Part("head", 28e6, 14e6, 0.25, "screen 7.0 MB")
    whole = [SiteCost(i, "up", 1.0, 0.0, 5e5, 5e5, 0.0, 0.15, 0.03 + 0.01 * i) for i in (0, 1)]
    sites = (
        *whole,
        SiteCost(0, "o", 0.4, 0.002, 2e5, 9e4, 3e-6, 0.5, 0.001),
        SiteCost(1, "o", 1.0, 0.0, 2e5, 2e5, 0.0, 0.0, None),
    )
    return LevelCost(level, n_tokens, 0.01, 0.002, 0.99, 0.01, 0.008, 96e6, (head,), sites)


def fake_compare(
    model: FakeModel,
    prompt: Sequence[int],
    answer: Sequence[int],
    params: FakeParams,
    *,
    on_progress: Callable[[str, float], None],
) -> LevelCost:
    assert list(prompt) == model.prompts[-1] and params == model.params[-1]
    for i in range(len(answer)):
        on_progress(f"measuring {model.sparsity.level}", (i + 1) / len(answer))
    return fake_cost(model.sparsity.level, len(answer))


class FakeGeneration:
    """engine.Generation: a token takes 0.1 s, a prompt token 0.01 s, on a clock of its own."""

    def __init__(self, steps: Iterator[FakeStep], usage: FakeUsage) -> None:
        self._steps, self.usage, self.text = steps, usage, ""
        self.token_ids: list[int] = []

    def __iter__(self) -> FakeGeneration:
        return self

    def __next__(self) -> FakeStep:
        step = next(self._steps)
        if step.token_id >= 0:
            self.token_ids.append(step.token_id)
        self.text += step.text
        return step


def fake_stream(
    model: FakeModel,
    ids: Sequence[int],
    params: FakeParams,
    *,
    cancel: FakeCancel | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    continues: bool = False,
) -> FakeGeneration:
    if not 0 < len(ids) < model.max_seq_len:
        raise ValueError(f"the prompt has {len(ids)} tokens, the context {model.max_seq_len}")
    model.prompts.append(list(ids))
    model.params.append(params)
    model.continued.append(continues)
    shared = min(model.cached_prefix(ids), len(ids) - 1)
    usage = FakeUsage(prompt_tokens=len(ids), cached_tokens=shared, seed=params.seed or 4711)
    steps = _steps(model, list(ids), params, usage, cancel or FakeCancel())
    if on_progress is not None:
        on_progress(len(ids), len(ids))
    return FakeGeneration(steps, usage)


def _steps(
    model: FakeModel, ids: list[int], params: FakeParams, usage: FakeUsage, cancel: FakeCancel
) -> Iterator[FakeStep]:
    reply = model.next_reply()
    if reply.reading is not None:
        reply.reading(cancel)
    usage.prefill_s = round(0.01 * (len(ids) - usage.cached_tokens), 6)
    usage.time_to_first_token_s = round(usage.prefill_s + 0.1, 6)
    model.cached, said, reason = list(ids), "", "stop"
    for number, char in enumerate(reply.text):
        if reply.during is not None:
            reply.during(number, cancel)
        if cancel.is_set() or number == params.max_tokens:
            reason = "cancelled" if cancel.is_set() else "length"
            break
        if len(model.cached) >= model.max_seq_len:
            reason = "context"
            break
        said += char
        if found := next((s for s in params.stop if said.endswith(s)), None):
            reason = "stop_string"
            assert len(found) == 1, "the fake holds nothing back: stop texts of one character"
            break
        model.cached.append(ord(char) + _FIRST_CHARACTER)
        usage.new_tokens += 1
        usage.decode_s = round(0.1 * usage.new_tokens, 6)
        yield FakeStep(model.cached[-1], char, -0.5)
    if cancel.is_set():
        reason = "cancelled"
    if reply.error is not None:
        raise reply.error
    usage.finish_reason = reason
    yield FakeStep(-1, "", 0.0, reason)


@dataclass
class FakeSavedCaches:
    """engine.SavedCaches: `kept` stands for the disk, name -> (fingerprint, ids)."""

    kept: dict[str, tuple[str, list[int]]]
    limits: list[int]
    MIN_TOKENS = 64

    def names(self) -> list[str]:
        return sorted(self.kept)

    def keep(self, name: str, model: FakeModel, ids: Sequence[int], limit_bytes: int) -> bool:
        self.limits.append(limit_bytes)
        held, usable = model.cached_prefix(ids), FakeModel()
        fingerprint, usable.cached = self.kept.get(name, ("", []))
        shared = usable.cached_prefix(ids) if fingerprint == model.fingerprint else 0
        if held - shared >= self.MIN_TOKENS:
            self.kept[name] = (model.fingerprint, list(ids[:held]))
            return True
        if shared < len(usable.cached):
            self.remove(name)
        return False

    def restore(self, name: str, model: FakeModel, ids: Sequence[int]) -> int:
        fingerprint, kept = self.kept.get(name, ("", []))
        disk = FakeModel(cached=kept)
        shared = disk.cached_prefix(ids) if fingerprint == model.fingerprint else 0
        if shared < model.cached_prefix(ids) + self.MIN_TOKENS:
            return 0
        model.cached = kept[:shared]
        return shared

    def remove(self, name: str) -> None:
        self.kept.pop(name, None)

    def prune(self, limit_bytes: int) -> None:
        assert limit_bytes == 0
        self.kept.clear()


def report_on(on_progress: Callable[[str, float], None]) -> None:
    """Report, for ten seconds at most, until the calibration is stopped by that."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        on_progress("answers", 0.5)
        time.sleep(0.01)
    raise AssertionError("nobody stopped the calibration")


@dataclass
class FakeEngine:
    """What `engine` and `data.models.resolve` are replaced with; see install_in.

    models     by name; other names are not found
    loading    called while a model loads
    calibrating  called in the middle of a calibration, with what hears of its progress
    calibrations  how many were begun
    kept       caches on the disk
    limits     the bytes that were allowed for them
    """

    models: dict[str, FakeModel | Exception]
    loading: Callable[[Callable[[str, float], None]], None] | None = None
    calibrating: Callable[[Callable[[str, float], None]], None] | None = None
    calibrations: int = 0
    methods_measured: int = 0
    loads: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    limits: list[int] = field(default_factory=list)

    def load(self, path: Path, weight_format: str | None = None, **options: Any) -> FakeModel:
        on_progress = options.pop("on_progress")
        self.loads.append({"path": path, **options})
        if self.loading is not None:
            self.loading(on_progress)
        model = self.models[path.stem]
        if isinstance(model, Exception):
            raise model
        model.path = path
        return model

    def calibrate(
        self, model: FakeModel, on_progress: Callable[[str, float], None]
    ) -> dict[Level, LevelCost]:
        self.calibrations += 1
        on_progress("answers", 0.5)
        if self.calibrating is not None:
            self.calibrating(on_progress)
        model.costs = {level: fake_cost(level) for level in ("balanced", "fast")}
        model.methods = []
        return model.costs

    def measure_methods(
        self, model: FakeModel, on_progress: Callable[[str, float], None]
    ) -> list[LevelCost]:
        self.methods_measured += 1
        on_progress("measuring head only", 0.5)
        if self.calibrating is not None:
            self.calibrating(on_progress)
        model.methods = [fake_cost("head only")._replace(level_s=0.009, kl=0.001)]
        return model.methods

    def resolve(self, name: str) -> ResolvedModel:
        from data.models import ModelNotFoundError

        if name not in self.models:
            raise ModelNotFoundError(
                f"no model {name!r}; `sparsechat models pull NAME` fetches one"
            )
        return ResolvedModel(name, Path(f"{name}.gguf"), "installed")

    def install_in(self, set_item: Callable[[dict[str, Any], str, Any], None]) -> None:
        """set_item  MonkeyPatch.setitem, or operator.setitem in a process of its own.

        Dictionaries are patched, because asking the engine for a name to keep imports Numba.
        """
        import data.models
        import engine

        names = {
            "load": self.load,
            "stream": fake_stream,
            "SamplingParams": FakeParams,
            "Cancel": FakeCancel,
            "calibrate": self.calibrate,
            "compare_with_dense": fake_compare,
            "level_costs": lambda model: model.costs,
            "method_costs": lambda model: model.methods,
            "measure_methods": self.measure_methods,
            "NotCalibratedError": NotCalibratedError,
            "SavedCaches": lambda folder: FakeSavedCaches(self.kept, self.limits),
        }
        for name, value in names.items():
            set_item(vars(engine), name, value)
        set_item(vars(data.models), "resolve", self.resolve)


def replies(*texts: str | Reply) -> deque[Reply]:
    """Texts as replies."""
    return deque(Reply(t) if isinstance(t, str) else t for t in texts)


def passage(text: str, title: str = "", **more: Any) -> Any:
    """A retrieval Passage around `text`."""
    from retrieval.passages import Passage

    known: dict[str, Any] = {
        "chunk_id": 1,
        "document_id": 1,
        "title": title or "Zurich",
        "uri": "/docs/zurich.txt",
        "url": "",
        "page": None,
        "line": 3,
        "headings": (),
        "start": 10,
        "end": 10 + len(text),
        "text": text,
        "score": 0.9,
        "chunk_ids": (1,),
        "dense": 0.8,
        "lexical": 7.5,
        "dense_rank": 1,
        "lexical_rank": 2,
        "hit_start": 10,
        "hit_end": 10 + len(text),
    }
    return Passage(**known | more)


class FakeEncoder:
    """retrieval.encoder.Encoder, of which only the name counts."""

    encoder_id, dimension = "fake-1", 2

    def encode(self, texts: Sequence[str]) -> Any:
        raise AssertionError("the fake base does not encode")


@dataclass
class FakeBase:
    """What a FakeKnowledgeBase holds.

    passages   by a word; a query finds those whose word it has
    encoder    name of its encoder; n_embedded of n_chunks have vectors
    busy       whether another process writes
    """

    passages: dict[str, list[Any]] = field(default_factory=dict)
    encoder: str | None = "minilm"
    n_chunks: int = 4
    n_embedded: int = 4
    busy: bool = False
    queries: list[tuple[Any, ...]] = field(default_factory=list)
    added: list[Any] = field(default_factory=list)


class FakeKnowledgeBase:
    """retrieval.KnowledgeBase over FakeBases; `bases` are those on the disk."""

    bases: dict[str, FakeBase]

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, Path(name)
        self._kept = self.bases[name]
        self._encoder: Any = None
        self.is_closed = False

    @classmethod
    def open(
        cls, name: str | Path, encoder: Any = None, *, loads_encoder: bool = True
    ) -> FakeKnowledgeBase:
        from retrieval import KnowledgeBaseNotFoundError

        if str(name) not in cls.bases:
            raise KnowledgeBaseNotFoundError(f"there is no knowledge base {name!r}")
        return cls(str(name))

    @classmethod
    def names(cls) -> list[str]:
        return sorted(cls.bases)

    def close(self) -> None:
        self.is_closed = True

    def use_encoder(self, encoder: Any) -> None:
        assert not self.is_closed
        self._encoder = encoder

    def show(self) -> Any:
        from retrieval.reports import Info

        kept, is_built = self._kept, self._kept.n_embedded > 0
        return Info(
            name=self.name,
            folder=self.folder,
            created="2026-11-22T20:00:00+00:00",
            n_documents=2,
            n_chunks=kept.n_chunks,
            n_embedded=kept.n_embedded,
            commit=1,
            encoder=kept.encoder,
            encoder_id="fake-1" if is_built else None,
            dimension=2 if is_built else None,
            chunker="sentences-1",
            n_sentences=3,
            backend="faiss",
            generation=1 if is_built else None,
            n_indexed=kept.n_embedded,
            kind="Flat" if is_built else None,
            why="few vectors" if is_built else None,
            n_bytes=1000,
            n_index_bytes=100,
            sources=(("/docs", 2),),
        )

    def look_up(
        self, query: str, k: int = 3, w: int = 5, w_th: float = 0.5, mode: str = "hybrid",
        filter: Any = None,
    ) -> Any:  # fmt: skip
        from retrieval.search import Search

        assert not self.is_closed
        self._kept.queries.append((query, k, w, w_th, mode, filter))
        found = [p for word, them in self._kept.passages.items() if word in query for p in them]
        is_less = mode != "lexical" and (self._encoder is None or not self._kept.n_embedded)
        return Search(
            passages=tuple(found[:k]),
            query=query,
            mode="lexical" if is_less else mode,
            why="there is no encoder" if is_less else "",
            threshold=0.5,
            candidates=tuple(found[k:]),
            timings={"lexical": 0.002, "dense": 0.001},
        )

    def embed(self, encoder: Any, on_progress: Any = None, cancel: Any = None) -> int:
        from retrieval import BusyError

        if self._kept.busy:
            raise BusyError("another process writes")
        new = self._kept.n_chunks - self._kept.n_embedded
        while self._kept.n_embedded < self._kept.n_chunks and not (cancel and cancel.is_set()):
            self._kept.n_embedded += 1
            if on_progress:
                on_progress(self._kept.n_embedded, self._kept.n_chunks, "embedding")
        return new

    def build(self, on_progress: Any = None, cancel: Any = None) -> int:
        return 1


@dataclass
class FakeLibrary:
    """What `retrieval` is replaced with; `encoder` may be an exception, or block when called."""

    bases: dict[str, FakeBase] = field(default_factory=dict)
    encoder: Callable[[str], Any] = lambda name: FakeEncoder()

    def install_in(self, set_item: Callable[[dict[str, Any], str, Any], None]) -> None:
        import retrieval
        import retrieval.encoder
        from retrieval.bases import KnowledgeBaseNotFoundError
        from retrieval.writer_lock import BusyError

        for error in (KnowledgeBaseNotFoundError, BusyError):
            set_item(vars(retrieval), error.__name__, error)
        shelf = type("Shelf", (FakeKnowledgeBase,), {"bases": self.bases})
        set_item(vars(retrieval), "KnowledgeBase", shelf)
        set_item(vars(retrieval.encoder), "load_encoder", lambda name: self.encoder(name))
