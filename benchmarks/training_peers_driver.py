"""The peers' side of training: transformers and PEFT in a plain loop, and TRL's SFTTrainer.

All of them train what ours trains: LoRA of rank 16 on all linear layers (or all weights), AdamW,
gradients clipped to a norm of 1. Files of rows: benchmarks/training_rows.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.training_side import Loop, TrainingSide

NOT_TRAINED = -100
LEARNING_RATE = 2e-4
# rows of a packed step: as many tokens as ours; more would be cut by nobody who wants GSM8K's
WIDTH = 512
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Row = Sequence[Sequence[int]]  # token ids and labels


class Peers(TrainingSide):
    """The model that this process trains."""

    def prepare(self, gguf: str, folder: str) -> dict[str, Any]:
        """A GGUF file of SmolLM2-135M as a Hugging Face directory in float32."""
        from tests.parity.smollm2 import reference_model

        reference_model(Path(gguf)).save_pretrained(folder)
        return {}

    def open(
        self, kind: str, model: str, rows: str, threads: int, seed: int = 0,
        rates: Sequence[float] = (), width: int | None = WIDTH,
    ) -> dict[str, Any]:  # fmt: skip
        """Load, and wait before the first step.

        kind   lora, lora-compiled, full; trl, trl-tuned
        rates  of each step; () = the same for all
        width  tokens that each row is padded to; None: the longest of its step
        """
        import torch

        started = time.perf_counter()
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        steps: list[list[Row]] = json.loads(Path(rows).read_text("utf-8"))
        work = _trl if kind.startswith("trl") else _plain
        self._model = _loaded(model)
        if kind != "full" and not kind.startswith("trl"):
            self._model = _with_lora(self._model)

        def train(loop: Loop) -> None:
            torch.set_num_threads(threads)  # it is a setting of a thread
            work(loop, self._model, kind, steps, rates, width)

        self._loop = Loop(train)
        self._loop.ready()
        return {"load_s": time.perf_counter() - started}

    def save(self, into: str) -> dict[str, Any]:
        """The adapter, as PEFT writes it."""
        self._model.save_pretrained(into)
        return {}

    def evaluate(self, model: str, adapter: str | None, rows: str, threads: int) -> dict[str, Any]:
        """The mean loss of documents, in float32, an adapter merged into the weights before."""
        import torch
        from peft import PeftModel

        torch.set_num_threads(threads)
        loaded = _loaded(model)
        if adapter is not None:
            loaded = PeftModel.from_pretrained(loaded, adapter).merge_and_unload()
        loaded.eval()
        total, n = 0.0, 0
        steps: list[list[Row]] = json.loads(Path(rows).read_text("utf-8"))
        with torch.no_grad():
            for step in steps:
                ids, labels, _ = _tensors(step, None)
                n_labels = int((labels != NOT_TRAINED).sum())
                loss = loaded(input_ids=ids, labels=labels, use_cache=False).loss
                total, n = total + float(loss) * n_labels, n + n_labels
        return {"loss": total / n, "n": n}


def _loaded(folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS,
                      task_type="CAUSAL_LM")  # fmt: skip


def _with_lora(model: Any) -> Any:
    from peft import get_peft_model

    return get_peft_model(model, _lora_config())


def _tensors(rows: Sequence[Row], width: int | None) -> tuple[Any, Any, int]:
    """Ids and labels (rows, width) padded at the right, and how many are no padding.

    Nothing looks to the right, so padding needs no mask.
    """
    import torch

    width = width or max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full((len(rows), width), NOT_TRAINED)
    for i, (row_ids, row_labels) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        labels[i, : len(row_labels)] = torch.tensor(row_labels)
    return ids, labels, sum(len(row_ids) for row_ids, _ in rows)


def _plain(
    loop: Loop, model: Any, kind: str, steps: Sequence[Sequence[Row]], rates: Sequence[float],
    width: int | None,
) -> None:  # fmt: skip
    """A loop as one writes it who knows both libraries."""
    import torch

    if kind == "lora-compiled":
        for layer in model.base_model.model.model.layers:
            layer.compile()  # layer by layer: all alike, so compiled once
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    for number, rows in enumerate(steps):
        loop.wait()
        if rates:
            adam.param_groups[0]["lr"] = rates[number]
        ids, labels, n_tokens = _tensors(rows, width)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad()
        loop.made(n_tokens, float(loss.detach()))


def _trl(loop: Loop, model: Any, kind: str, steps: Sequence[Sequence[Row]], *_: Any) -> None:
    """SFTTrainer, with its defaults but for the order of rows and what makes noise or files.

    tuned: float32, no checkpointing of activations, documents packed to WIDTH, four of these a step
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tuned: dict[str, Any] = {
        "bf16": False, "gradient_checkpointing": False, "packing": True, "max_length": WIDTH,
        "per_device_train_batch_size": 4,
    }  # fmt: skip
    config = SFTConfig(
        output_dir=mkdtemp(prefix="trl-"), use_cpu=True, train_sampling_strategy="sequential",
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        num_train_epochs=100, **(tuned if kind == "trl-tuned" else {}),
    )  # fmt: skip
    rows = [row for step in steps for row in step]
    data = Dataset.from_dict({"input_ids": [r[0] for r in rows], "labels": [r[1] for r in rows]})

    counts: list[int] = []
    losses: list[float] = []

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **more: Any) -> None:
            loop.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            loop.made(counts[state.global_step - 1], losses[-1])

    class Watched(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **more: Any) -> Any:
            found = super().compute_loss(*args, **more)
            losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
            return found

    trainer = Watched(
        model=model, args=config, train_dataset=data, processing_class=_tokenizer(),
        peft_config=_lora_config(), callbacks=[Turns()],
    )  # fmt: skip
    collate = trainer.data_collator

    def counted(examples: Sequence[Any]) -> Any:
        counts.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    trainer.data_collator = counted
    trainer.train()


def _tokenizer() -> Any:
    """One that knows how to pad and to end, which is all that rows of ids ask for."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "<|endoftext|>")),
        eos_token="<|im_end|>", pad_token="<|im_end|>",
    )  # fmt: skip


if __name__ == "__main__":
    Peers().serve("prepare", "open", "save", "evaluate")
