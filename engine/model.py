"""A model that is ready to answer: load() and the Python surface on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from engine.adapters import Adapter, pairs_for, read_adapter, require_base
from engine.bolt import best_so_far
from engine.cache import KVCache
from engine.cache_dir import cache_dir
from engine.checkpoints import open_checkpoint
from engine.config import DecoderConfig
from engine.context import context_of, within_memory
from engine.cores import default_threads
from engine.decoder import Decoder
from engine.fingerprint import fingerprint
from engine.formats import require_format
from engine.kernels.compiler import is_compiled
from engine.kernels.cpu import instructions
from engine.kv_formats import kv_format, kv_format_for
from engine.lookup import CallTimes
from engine.low_rank import pack_low_rank
from engine.recommended import generation_defaults_of, stop_ids_of
from engine.sampling import SamplingParams
from engine.sparsity.levels import Sparsity, apply, sparsity_of
from engine.sparsity.trained import Trained, read_trained
from engine.threads import Team
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.weights import LAYOUT_VERSION, Weights, load_weights

LoadProgress = Callable[[str, float], None]  # stage, fraction done in [0, 1]


@dataclass
class Model:
    """Weights, tokenizer and one conversation's cache. Not for use by two threads at once."""

    path: Path
    config: DecoderConfig
    tokenizer: Tokenizer | None
    decoder: Decoder
    fingerprint: str  # SHA-256 of the checkpoint
    max_seq_len: int  # tokens of prompt and answer together
    stop_ids: frozenset[int]  # end the answer
    generation_defaults: dict[str, float]  # sampling values that the checkpoint recommends
    packed_file: Path | None = None  # of the packed weights
    trained: Trained | None = None  # thresholds that the weights were trained for
    context_note: str = ""  # what the user should be told about max_seq_len
    cache: KVCache = field(init=False)
    sparsity: Sparsity = field(init=False, default_factory=Sparsity)  # what is skipped
    call_times: CallTimes = field(init=False, default_factory=CallTimes)  # of decoding, for lookup
    adapter: Adapter | None = field(init=False, default=None)  # what is added to the weights
    adapter_digest: str = field(init=False, default="")  # SHA-256 of it as it is computed

    def __post_init__(self) -> None:
        self.cache = self.decoder.new_cache()

    @property
    def weights(self) -> Weights:
        """The packed weights."""
        return self.decoder.weights

    @property
    def weight_format(self) -> str:
        """The format that most bytes are in."""
        sizes: Counter[str] = Counter()
        for weight in self.weights.matrices.values():
            sizes[weight.format] += weight.data.nbytes
        return sizes.most_common(1)[0][0]

    @property
    def n_weights(self) -> int:
        """Numbers in all matrices."""
        return sum(w.n_out * w.n_in for w in self.weights.matrices.values())

    @property
    def n_bytes(self) -> int:
        """Bytes of all packed weights."""
        return self.weights.n_bytes

    @property
    def threads(self) -> int:
        """How many threads compute, at most: one while other programs use the other cores."""
        return self.decoder.team.n_threads

    @property
    def instructions(self) -> str:
        """The CPU's instructions that kernels are compiled for, one of kernels.cpu.INSTRUCTIONS."""
        return instructions()

    @property
    def kv_cache(self) -> str:
        """The format of keys and values."""
        return self.cache.format_name

    def kv_bytes(self, n_tokens: int | None = None) -> int:
        """Of the keys and values of so many tokens; None: of those that are held now."""
        n_tokens = len(self.cache.token_ids) if n_tokens is None else n_tokens
        return n_tokens * self.cache.bytes_per_token

    def set_threads(self, threads: int | None) -> None:
        """Compute on so many threads from the next call on; None = the cores of this process.

        ValueError outside 1 … engine.cores.MAX_THREADS.
        """
        self.decoder.set_threads(default_threads() if threads is None else threads)

    def set_sparsity(self, level: str | float) -> None:
        """Skip what the level allows from the next call on: "off", "exact", "balanced", "fast", or
        a share of the feed-forward up to 0.9.

        ValueError; engine.NotCalibratedError where engine.calibrate has to be called first.
        """
        apply(self, sparsity_of(self, level))
        self.call_times = CallTimes()

    def set_adapter(self, adapter: Adapter | str | Path | None) -> None:
        """Add an adapter, or one in a folder, to the weights from the next call on; None: none.

        Nothing is loaded again; the cache is emptied. ValueError when it was trained on another
        model, does not fit, or sparsity leaves a share of the feed-forward out.
        """
        adapter = read_adapter(adapter) if isinstance(adapter, str | Path) else adapter
        packed = None
        if adapter is not None:
            require_base(adapter, self.fingerprint)
            if isinstance(self.sparsity.level, float) and self.sparsity.layers is not None:
                raise ValueError(
                    f"an adapter changes whole feed-forwards, and sparsity {self.sparsity.level} "
                    "leaves a share of them out; use off, exact, balanced or fast with it"
                )
            in_float32 = all(w.format == "f32" for w in self.weights.matrices.values())
            packed = pack_low_rank(pairs_for(adapter, self.config), adapter.scale, not in_float32)
        self.decoder.use_adapter(packed)
        self.adapter, self.adapter_digest = adapter, packed.digest if packed else ""
        if any(site.active < 1 for site in self.sparsity.sites):
            apply(self, sparsity_of(self, self.sparsity.level))  # thresholds go, or come back
        self.cache.truncate(0)
        self.call_times = CallTimes()

    def cached_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading ids need no computation."""
        return self.cache.common_prefix(token_ids)

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Scores after each token, teacher-forced: (len(token_ids), vocab_size) float32.

        The conversation's cache is left alone.
        """
        if not 0 < len(token_ids) <= self.max_seq_len:
            raise ValueError(
                f"logits() takes 1 to {self.max_seq_len} token ids, got {len(token_ids)}"
            )
        return self.decoder.extend(self.decoder.new_cache(), token_ids, all_logits=True)

    def generate(
        self,
        input_tokens: Sequence[int],
        prompt_tokens: Sequence[int] = (),
        max_predictions: int = 100,
        beam_width: int = 3,
        temperature: float | None = None,
        **options: Any,
    ) -> list[int]:
        """BOLT's call: the ids that follow prompt_tokens + input_tokens, new ones only.

        beam_width 1    temperature None or 0 is greedy, else tokens are drawn
        beam_width > 1  beam search; BOLT's rule: temperature re-weighs each step (engine/beam.py)
                        and nothing is drawn
        options         prompt (another name of prompt_tokens), seed, allowed_repeats,
                        punctuation_tokens, punctuation_repeat_threshold, length_penalty …: fields
                        of SamplingParams. BOLT's rule that no token returns is on when
                        allowed_repeats is given.
        """
        *_, last = self.streaming_generate(
            input_tokens, prompt_tokens, max_predictions, max_predictions, beam_width, temperature,
            **options,
        )  # fmt: skip
        return last

    def streaming_generate(
        self,
        input_tokens: Sequence[int],
        prompt_tokens: Sequence[int] = (),
        prediction_chunk_size: int = 1,
        max_predictions: int = 100,
        beam_width: int = 3,
        temperature: float | None = None,
        **options: Any,
    ) -> Iterator[list[int]]:
        """The best ids so far, after every prediction_chunk_size; the last item is generate's.

        With several beams an earlier token may change when another beam takes the lead.
        """
        if "prompt" in options:
            prompt_tokens = options.pop("prompt")
        options.setdefault("top_k", 0)  # BOLT filters nothing
        params = SamplingParams(
            temperature=temperature,
            max_tokens=max_predictions,
            beams=beam_width,
            **options,
        )
        ids = [*prompt_tokens, *input_tokens]
        return best_so_far(self, ids, params, prediction_chunk_size)

    def train(
        self,
        train_data: Any,
        learning_rate: float = 1e-5,
        epochs: int = 5,
        batch_size: int = 10_000,
        train_metrics: Sequence[str] = ("loss",),
        val_data: Any = None,
        val_metrics: Sequence[str] = (),
        max_in_memory_batches: int | None = None,
        **options: Any,
    ) -> dict[str, list[float]]:
        """BOLT's call: learn from rows, then answer with what was learned. A value an epoch for
        each metric, "train_loss", "val_loss" …, and "epoch_times" in seconds.

        train_data, val_data  a file or folder, or "a.jsonl:2,b.jsonl:1" (data.training_rows)
        batch_size            trained tokens that a step takes
        ..._metrics           loss, categorical_accuracy, perplexity
        options               callbacks (engine.training.callbacks), on_event, and all settings of
                              engine.training.settings: method="lora" with a learning_rate of 2e-4
                              for a model whose weights do not fit several times into memory
        Needs torch. The run is kept, as one of the command line is. ValueError, OSError.
        """
        from engine.training.bolt import train

        return train(
            self, train_data, learning_rate, epochs, batch_size, train_metrics, val_data,
            val_metrics, max_in_memory_batches, **options,
        )  # fmt: skip

    def close(self) -> None:
        """End the threads; they start again should the model be used again."""
        self.decoder.team.close()


def load(
    path: str | Path,
    weight_format: str | None = None,
    *,
    max_seq_len: int | None = None,
    threads: int | None = None,
    kv_cache: str | None = None,
    adapter: str | Path | None = None,
    on_progress: LoadProgress | None = None,
) -> Model:
    """Open a GGUF file or a Hugging Face directory.

    weight_format  a file of engine/formats ("f32", "q8", "q4" …), or None for weights as stored
    max_seq_len    a smaller or larger context than the checkpoint's own
    threads        1 to 256, or None: the cores that this process may use
    kv_cache       a file of engine/kv_formats ("f32", "f16", "q8"), or None: f16, and f32 beside
                   weights that are all float32
    adapter        a folder in PEFT's layout, see Model.set_adapter
    on_progress    called with a stage and the fraction of it that is done

    FileNotFoundError and ValueError say in one line what is wrong with the file.
    """
    report = on_progress or (lambda stage, fraction: None)
    if weight_format is not None:
        require_format(weight_format)  # an unknown name fails before the work begins
    if kv_cache is not None:
        kv_format(kv_cache)
    team = Team(default_threads() if threads is None else threads)
    checkpoint = open_checkpoint(Path(path))
    config = checkpoint.decoder_config()
    context = context_of(config, max_seq_len)
    report("reading", 0.0)
    digest = fingerprint(checkpoint, cache_dir())
    name = f"{digest[:32]}-{weight_format or 'stored'}-v{LAYOUT_VERSION}.weights"
    packed_file = cache_dir() / "packed" / name
    weights = load_weights(checkpoint, config, weight_format, packed_file, report)
    tokenizer = load_tokenizer(checkpoint)
    decoder = Decoder(config, weights, team, kv_cache or kv_format_for(weights))
    report("starting" if is_compiled() else "compiling kernels (first start)", 0.0)
    cache = decoder.new_cache()
    context = within_memory(context, max_seq_len, cache.bytes_per_token, cache.format_name)
    decoder.extend(cache, [0])
    report("ready", 1.0)
    logger.info("loaded {} ({} layers, {:,} bytes)", path, config.n_layers, weights.n_bytes)
    model = Model(
        path=Path(path),
        config=config,
        tokenizer=tokenizer,
        decoder=decoder,
        fingerprint=digest,
        max_seq_len=context.n_tokens,
        stop_ids=stop_ids_of(checkpoint, tokenizer),
        generation_defaults=generation_defaults_of(checkpoint),
        packed_file=packed_file,
        trained=read_trained(checkpoint.path, (config.n_layers, config.intermediate_size), digest),
        context_note=context.note,
    )
    if adapter is not None:
        model.set_adapter(adapter)
    return model
