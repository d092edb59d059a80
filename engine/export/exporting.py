"""Write, open again, compare, and only then let the result have its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engine.adapters import Adapter, Base, in_modules, write_adapter
from engine.export import gguf, huggingface
from engine.export.card import card
from engine.export.checking import Logits, Report, check, compared, probe_ids, require_close
from engine.export.floats import KINDS
from engine.export.source import Source
from engine.packed import replacing, replacing_folder, share
from engine.templates import known_as
from engine.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from engine.model import Model

Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]

# of directories and of files, the default first: None = as the checkpoint's floats are
FORMATS = {"huggingface": tuple(KINDS), "gguf": tuple(gguf.FORMATS)}


def to_huggingface(
    folder: str | Path,
    source: Source,
    logits: Logits,
    format_name: str | None = None,
    *,
    base: str = "",
    on_progress: Progress | None = None,
) -> Report:
    """Write a directory that transformers loads.

    logits       of the model in memory: token ids -> (T, vocab_size)
    format_name  f32, f16 or bf16; None: as the checkpoint's floats are
    base         what the card calls the model that it was made of
    ValueError when the result does not give the logits, or cannot be written; nothing is left then,
    and what stood at `folder` stays.
    """
    folder = Path(folder)
    report = on_progress or (lambda stage, fraction: None)
    number = huggingface.default_number(source) if format_name is None else KINDS[format_name]
    name = next(name for name, kind in KINDS.items() if kind == number)
    base = base or source.checkpoint.path.stem
    with replacing_folder(folder) as temporary:
        huggingface.write_files(temporary, source, number, report)
        report("checking", 0.0)
        found = check(temporary, name, logits, load_tokenizer(source.checkpoint))
        text = card(folder.name, source, base, found)
        (temporary / "README.md").write_text(text, encoding="utf-8")
    return found._replace(path=folder)


def to_gguf(
    path: str | Path,
    source: Source,
    logits: Logits,
    format_name: str = "q8_0",
    *,
    on_progress: Progress | None = None,
) -> Report:
    """Write a file that llama.cpp loads; see to_huggingface.

    format_name  f32, f16, bf16, q8_0, q4_1 or q4_0
    """
    path = Path(path)
    report = on_progress or (lambda stage, fraction: None)
    with replacing(path) as file:
        gguf.write_file(file, source, format_name, _name_for(path, source), report)
        file.flush()
        report("checking", 0.0)
        found = check(Path(file.name), format_name, logits, load_tokenizer(source.checkpoint))
        share(Path(file.name))
    return found._replace(path=path)


def _name_for(path: Path, source: Source) -> str:
    """general.name: where there is no chat template, the name tells which one is to be used."""
    checkpoint = source.checkpoint
    if checkpoint.chat_template is not None:
        return path.stem
    return known_as(checkpoint.path, checkpoint.config)


def to_peft(folder: str | Path, adapter: Adapter, model: Model, base: str) -> Report:
    """Write an adapter of the model in PEFT's layout; the model has it in use afterwards.

    base  what peft loads the model by: a folder or a name on the hub
    """
    folder = Path(folder)
    ids = probe_ids(model.tokenizer, model.config.vocab_size, model.max_seq_len)
    model.set_adapter(adapter)
    expected = model.logits(ids)
    origin = Base(base, model.fingerprint, model.config.architecture)
    as_written = in_modules(adapter, model.config)
    with TemporaryDirectory() as temporary:
        written = write_adapter(Path(temporary) / folder.name, as_written, origin)
        try:
            model.set_adapter(written)
            found = compared(expected, model.logits(ids))
        finally:
            model.set_adapter(adapter)
        size = sum(file.stat().st_size for file in written.iterdir())
    report = Report(folder, "peft", size, len(ids), *found)
    require_close(report)
    write_adapter(folder, as_written, origin)
    return report
