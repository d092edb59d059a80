"""docs/models.md: which families work in which ways, found out by trying each on a tiny checkpoint.

`make docs` writes it anew; tests/parity/test_models_table.py compares the file with what this
gives.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import engine
from engine.checkpoints import open_checkpoint
from engine.context import context_of
from engine.export import Source, to_gguf, to_huggingface
from engine.kernels.tables import DOWN_SITE
from engine.sparsity import head, levels
from engine.sparsity.kv import KVBudget
from engine.sparsity.levels import Sparsity
from engine.sparsity.limits import limits
from engine.sparsity.thresholds import forced
from engine.templates import TEMPLATES, _forms
from engine.training.fast_path import is_fast
from tests.engine.export.families import family_checkpoint
from tests.engine.training.checkpoints import disturb_adapters, gradients, random_batch, trainable
from tests.tiny import LONG_IDS, PROMPT_IDS, reference_logits

_ALONE = 8  # tokens that are decoded one by one
FILE = Path(__file__).parents[1] / "docs" / "models.md"


class Family(NamedTuple):
    """name, models that belong to it, a checkpoint of tests/engine/export/families.py."""

    name: str
    models: str
    checkpoint: str


FAMILIES = (
    Family("Llama", "Llama 1 to 3, Llama-2-7B-32K, TinyLlama, OpenLlama, SmolLM2", "llama-grouped"),
    Family("Mistral", "Mistral 7B", "mistral"),
    Family("Qwen2", "Qwen2, Qwen2.5", "qwen2"),
    Family("GPT-NeoX", "Pythia, RedPajama-INCITE, GPT-NeoXT-20B, Dolly", "neox"),
    Family("MPT", "MPT-7B, MPT-7B-chat-8k, MPT-30B", "mpt-clipped"),
    Family("GPT-Neo", "TinyStories, GPT-Neo", "gpt-neo"),
    Family("OPT", "OPT-125M to 66B", "opt"),
    Family("GPT-2", "GPT-2, DistilGPT-2", "gpt2"),
    Family("GPT-J", "GPT-J-6B", "gptj"),
    Family("Phi-3", "Phi-3, Phi-3.5, Phi-4-mini", "phi3-longrope"),
    Family("Gemma 2", "Gemma 2", "gemma2-24"),
    Family("Gemma 3", "Gemma 3 (text)", "gemma3-24"),
)
COLUMNS = (
    *("family", "loads HF", "loads GGUF", "fast kernels", "sparse", "trains", "exports"),
    "longer texts",
)
# names of well-known checkpoints without a template of their own, and model_type
FORMS = (
    ("Pythia-Chat-Base-7B", "gpt_neox"),
    ("GPT-NeoXT-Chat-Base-20B", "gpt_neox"),
    ("RedPajama-INCITE-7B-Chat", "gpt_neox"),
    ("Llama-2-7b-chat-hf", "llama"),
    ("Llama-2-7B-32K-Instruct", "llama"),
    ("mpt-7b-8k-chat", "mpt"),
    ("LLaMA-2-7B-32K", "llama"),
    ("open_llama_7b_v2", "llama"),
    ("TinyStories-33M", "gpt_neo"),
    ("pythia-6.9b", "gpt_neox"),
)


class Tried:
    """One family; every method tries one thing and gives the words of its cell."""

    def __init__(self, family: Family, folder: Path) -> None:
        self._path = family_checkpoint(family.checkpoint)
        self._folder = folder  # to write to
        self._expected = reference_logits(self._path, PROMPT_IDS)
        self._model = engine.load(self._path, threads=1, kv_cache="f32")
        self.config = self._model.config
        self.notes = list(limits(self.config))

    def loads_directory(self) -> str:
        return _yes(self._is_right(self._model))

    def loads_file(self) -> str:
        """And writes it: a file of llama.cpp's kind is made of the directory."""
        path = self._folder / "tiny.gguf"
        try:
            to_gguf(path, Source(self._path), self._model.logits, "f32")
        except ValueError as error:
            self.notes.append(str(error))
            return "–"
        return _yes(self._is_right(engine.load(path, threads=1, kv_cache="f32")))

    def has_kernels(self) -> str:
        """8-bit weights in the kernels' layout; and training's own kernels at sizes that fit."""
        small = engine.load(self._path, "q8", threads=1)
        decodes = small.weight_format == "q8" and self._is_right(small, 0.2)
        sizes = ("hidden_size", "intermediate_size", "head_dim")
        larger = {name: 64 * getattr(self.config, name) for name in sizes}
        trains = is_fast(replace(self.config, **larger))
        return ", ".join(_named({"decoding": decodes, "training": trains}))

    def skips(self) -> str:
        """What a token leaves out, each alone."""
        model, decoder = self._model, self._model.decoder
        matrices = model.weights.matrices
        screen = head.certified(matrices.get("head", matrices["embedding"]))
        levels.apply(model, Sparsity("exact", screen))
        has_screen = decoder.can_screen(1)
        levels.apply(model, Sparsity())
        dense = self._last_logits()
        decoder.use_kv_budget(KVBudget(6, 16))
        reads_less = bool((self._last_logits() != dense).any())
        decoder.use_kv_budget(None)
        decoder.use_thresholds(levels.sparse_of(model, forced(decoder, [LONG_IDS * 3], 0.5)))
        self._last_logits()
        read = decoder.n_active[:, DOWN_SITE] / (_ALONE * self.config.intermediate_size)
        decoder.use_thresholds(None)
        parts = {"head": has_screen, "keys and values": reads_less,
                 "feed-forward": bool((read < 0.9).all())}  # fmt: skip
        return ", ".join(_named(parts))

    def trains(self) -> str:
        """Gradients of everything that a method trains."""
        checkpoint = open_checkpoint(self._path)
        batch, works = random_batch([9, 30], self.config.vocab_size), {}
        for method, options in {"lora": {"rank": 2}, "full": {}}.items():
            made = trainable(checkpoint, method, **options)
            disturb_adapters(made)
            found = gradients(made, batch).values()
            works[method] = all(np.isfinite(g).all() and g.any() for g in found)
        return ", ".join(_named({"LoRA": works["lora"], "full": works["full"]}))

    def exports(self) -> str:
        """A directory that transformers loads, too, beside the file of loads_file."""
        folder = self._folder / "hf"
        to_huggingface(folder, Source(self._path), self._model.logits, "f32")
        theirs = reference_logits(folder, PROMPT_IDS)
        is_right = bool(np.abs(theirs - self._expected).max() < 1e-3 * np.abs(theirs).max())
        return ", ".join(_named({"HF": is_right, "GGUF": (self._folder / "tiny.gguf").is_file()}))

    def reads_on(self) -> str:
        """Whether --max-seq-len may go beyond what the weights were trained for."""
        try:
            context_of(self.config, 2 * self.config.max_seq_len)
        except ValueError:
            self.notes.append("positions were learned: texts end at the trained length")
            return "–"
        return "yes"

    def _is_right(self, model: engine.Model, most: float = 1e-3) -> bool:
        off = (model.logits(PROMPT_IDS) - self._expected).std()
        return bool(off < most * self._expected.std())

    def _last_logits(self) -> np.ndarray:
        """After a text that is long enough to leave some of it out, read token by token at last."""
        decoder, ids = self._model.decoder, [*LONG_IDS, *LONG_IDS]
        cache = decoder.new_cache()
        decoder.extend(cache, ids[:-_ALONE])
        return np.stack([decoder.extend(cache, [i])[0].copy() for i in ids[-_ALONE:]])


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _named(works: dict[str, bool]) -> list[str]:
    return [name for name, is_so in works.items() if is_so] or ["–"]


_CELLS: tuple[Callable[[Tried], str], ...] = (
    Tried.loads_directory,
    Tried.loads_file,
    Tried.has_kernels,
    Tried.skips,
    Tried.trains,
    Tried.exports,
    Tried.reads_on,
)


def row_of(family: Family) -> tuple[list[str], list[str]]:
    """The cells behind the family's name, and notes on them."""
    with tempfile.TemporaryDirectory() as folder:
        tried = Tried(family, Path(folder))
        return [cell(tried) for cell in _CELLS], tried.notes


def form_of(name: str, model_type: str) -> str:
    """The template that a checkpoint of this name gets."""
    vocabulary = {"<|im_start|>"} if "mpt" in name and "chat" in name else set[str]()
    return _forms.form_of(Path(name), {"model_type": model_type}, vocabulary)


def document() -> str:
    """docs/models.md."""
    notes: list[str] = []
    rows = []
    for family in FAMILIES:
        cells, said = row_of(family)
        notes += [note for note in said if note not in notes]
        marks = "".join(f" [{notes.index(note) + 1}]" for note in said)
        rows.append([f"{family.name}{marks}", *cells])
    forms = [[name, f"`{form_of(name, kind)}`"] for name, kind in FORMS]
    others = ", ".join(f"`{name}`" for name in TEMPLATES)
    return f"""# Models

Written by `make docs`, which tries every cell on a tiny random checkpoint; the tests compare.

{_table(COLUMNS, rows)}

{_numbered(notes)}

- loads HF: a Hugging Face directory gives the logits of transformers; loads GGUF: a file does
- fast kernels: weights are repacked for kernels of the engine's own; training has some for layers
  like Llama's, and torch's operations for all others
- sparse: what a token may leave out (`sparsechat sparsity report` says what that is worth)
- trains: methods that have gradients for all that they train; exports: what is written, read back
  and compared
- longer texts: `--max-seq-len` may go beyond the trained length

Models that belong to these families:

{_table(("family", "models"), [[family.name, family.models] for family in FAMILIES])}

## Chat forms

A checkpoint's own template is used where it has one. Others get one by their names and tokens;
`--template` or `/set template=` chooses another ({others}), and `/raw_prompt` shows what
the model sees. `completion` has no turns: a base model goes on with what is typed.

{_table(("checkpoint", "form"), forms)}
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _numbered(notes: Sequence[str]) -> str:
    return "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))


def main() -> int:
    FILE.write_text(document(), encoding="utf-8")
    print(f"wrote {FILE}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
