"""Read, complete, write, compare, and only then let the result have its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.checkpoints import RawTensor, open_checkpoint
from engine.checkpoints._json import read_object
from engine.checkpoints.huggingface import HuggingFaceCheckpoint
from engine.export import checking
from engine.importing.completeness import Chosen, complete
from engine.importing.expected import Expected, expected
from engine.importing.sources import Place, find_paths, named
from engine.packed import replacing_folder
from engine.safetensors_shards import Entry, write_shards

RECORD = "import.json"  # marks a folder as imported
# larger ones are compared by their bytes alone: both sides' logits would need twice the memory
COMPARED_BYTES = 2_000_000_000
_SLAB = 1 << 24
_BESIDE = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("generation_config.json", "README.md", "LICENSE", "LICENSE.txt"),
)
Progress = Callable[[str, float], None]  # stage, fraction done in [0, 1]


class Report(NamedTuple):
    """What was written.

    kind      what the pickles were
    left_out  names of tensors that no decoder of this architecture has
    n_tokens  that logits were computed of; all are finite
    largest   difference of two logits, of what was read and what was written; None: too large for
              that, only the bytes were compared
    """

    path: Path
    kind: str
    n_tensors: int
    n_bytes: int
    left_out: tuple[str, ...]
    n_tokens: int
    largest: float | None

    def line(self) -> str:
        """How it was checked, for people."""
        same = f"{self.n_tensors} tensors are the same bit for bit"
        if self.largest is None:
            return f"{same}; logits of {self.n_tokens} tokens are finite"
        return f"{same}; logits of {self.n_tokens} tokens differ by {self.largest:.2g} at most"


def import_model(
    folder: Path,
    to: Path,
    config_from: Path | None = None,
    on_progress: Progress | None = None,
    *,
    origin: str = "",
) -> Report:
    """Make a Hugging Face directory at `to` of the pickles in `folder`.

    config_from  a folder with config.json and the tokenizer, or a config.json alone; None: `folder`
                 has both
    origin       what the model was called, which tells its chat form; "": as `folder` is
    Tensors keep their bytes. ValueError and FileNotFoundError say in one line what is wrong; then,
    and after an interrupt, nothing is left and what stood at `to` stays.
    """
    report = on_progress or (lambda stage, fraction: None)
    config_file, config = _config_of(folder, config_from)
    kind, paths = find_paths(folder)
    opened = _Opened()
    places = []
    for i, path in enumerate(paths):
        report("reading names", i / len(paths))
        places += opened.places(path)
    chosen, want = _chosen(folder, config_file, config, kind, places, opened)
    with replacing_folder(to) as temporary:
        named_config = {"_name_or_path": origin or folder.resolve().name, **config}
        # beside a config.json alone may lie anything
        beside = [config_from] if config_from is not None and config_from.is_dir() else []
        _write_beside(temporary, named_config, [*beside, folder])
        entries = [_entry(place, opened) for place in chosen.places]
        write_shards(temporary, entries, partial(report, "writing weights"))
        _require_same_bytes(temporary, chosen.places, opened, report)
        report("checking", 0.0)
        with _told_of(folder, temporary):
            n_tokens, largest = _compared(temporary, folder, config, want, chosen.places, opened)
        size = sum(place.n_bytes for place in chosen.places)
        done = Report(to, kind, len(chosen.places), size, chosen.left_out, n_tokens, largest)
        _write_record(temporary, folder, done)
    return done


@contextmanager
def _told_of(folder: Path, temporary: Path) -> Iterator[None]:
    """Errors about a folder that will be gone name the pickles', which are what is at fault."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace(str(temporary), str(folder))
        raise ValueError(text.replace(temporary.name, folder.name)) from None


def _config_of(folder: Path, config_from: Path | None) -> tuple[Path, dict[str, Any]]:
    place = folder if config_from is None else config_from
    file = place / "config.json" if place.is_dir() else place
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; --config names a folder with the model's config.json and tokenizer"
        )
    config = read_object(file)
    if isinstance(quantized := config.get("quantization_config"), dict):
        method = quantized.get("quant_method")
        raise ValueError(f"{file}: weights quantised by {method!r} are not read")
    return file, config


def _chosen(
    folder: Path,
    config_file: Path,
    config: dict[str, Any],
    kind: str,
    places: list[Place],
    opened: _Opened,
) -> tuple[Chosen, Expected]:
    is_plain = kind == "pytorch_model.bin"
    try:
        want = expected(config, {place.key for place in places} if is_plain else ())
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from None
    try:
        found = complete(named(kind, places, want), want, not is_plain, opened.are_same)
    except ValueError as error:
        text = str(error)
        begins = text.startswith(str(folder))
        raise ValueError(text if begins else f"{folder}, {kind}: {text}") from None
    return found, want


class _Opened:
    """The pickle that was read last: no other is in memory."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._tensors: dict[str, RawTensor] = {}

    def _read(self, path: Path) -> dict[str, RawTensor]:
        if path != self._path:
            from engine.training.pickles import read_pickle

            self._path, self._tensors = None, {}
            self._tensors = read_pickle(path)
            self._path = path
        return self._tensors

    def places(self, path: Path) -> list[Place]:
        return [
            Place(key, key, path, tensor.shape, tensor.kind, tensor.data.size)
            for key, tensor in self._read(path).items()
        ]

    def tensor(self, place: Place) -> RawTensor:
        """With Hugging Face's name."""
        return replace(self._read(place.path)[place.key], name=place.name or place.key)

    def data(self, place: Place) -> NDArray[np.uint8]:
        return self._read(place.path)[place.key].data

    def are_same(self, one: Place, other: Place) -> bool:
        """Whether both hold the same numbers."""
        if one.kind != other.kind or one.shape != other.shape:
            return False
        data = self.data(one)
        return _same(data, self.data(other))


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    if one.size != other.size:
        return False
    slabs: Iterable[int] = range(0, one.size, _SLAB)
    return all(np.array_equal(one[i : i + _SLAB], other[i : i + _SLAB]) for i in slabs)


def _entry(place: Place, opened: _Opened) -> Entry:
    assert place.name is not None
    return Entry(place.name, place.kind, place.shape, place.n_bytes, partial(opened.data, place))


def _write_beside(folder: Path, config: dict[str, Any], sources: list[Path]) -> None:
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in _BESIDE:
        for source in sources:
            if (source / name).is_file() and not (folder / name).exists():
                shutil.copyfile(source / name, folder / name)


def _require_same_bytes(
    written: Path, places: tuple[Place, ...], opened: _Opened, report: Progress
) -> None:
    checkpoint = open_checkpoint(written)
    assert isinstance(checkpoint, HuggingFaceCheckpoint)
    for i, place in enumerate(places):
        report("comparing weights", i / len(places))
        tensor = checkpoint.stored_tensor(place.name or "")
        if tensor.shape != place.shape or not _same(tensor.data, opened.data(place)):
            raise ValueError(
                f"{place.name} is not what {place.path.name} holds; the disk may be failing; what "
                "was written is taken away again"
            )
        tensor.release()


def _compared(
    written: Path,
    folder: Path,
    config: dict[str, Any],
    want: Expected,
    places: tuple[Place, ...],
    opened: _Opened,
) -> tuple[int, float | None]:
    """(tokens, largest difference of two logits or None). The packed weights of what was written
    are kept: the first start finds them."""
    from engine.model import load

    model = load(written)
    try:
        ids = checking.probe_ids(model.tokenizer, want.config.vocab_size, model.max_seq_len)
        found = model.logits(ids)
    finally:
        model.close()
    if not np.isfinite(found).all():
        raise ValueError(
            "its logits are not all finite numbers, so what was written is taken away again; the "
            "weights are damaged, or the config is another model's"
        )
    if sum(place.n_bytes for place in places) > COMPARED_BYTES:
        return len(ids), None
    tensors = {tensor.name: tensor for tensor in map(opened.tensor, places)}
    source = HuggingFaceCheckpoint(folder, config, tensors, ())
    expected_logits = checking.logits_of(source, ids)
    largest = float(np.abs(found - expected_logits).max())
    if not largest <= 1e-4 * np.abs(expected_logits).max():
        raise ValueError(
            f"its logits differ by {largest:.3g} from those of the pickles, so what was written is "
            "taken away again"
        )
    return len(ids), largest


def _write_record(folder: Path, source: Path, done: Report) -> None:
    """For `models list` and `models show`."""
    record = {
        "imported_from": str(source.absolute()),
        "kind": done.kind,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tensors": done.n_tensors,
        "bytes": done.n_bytes,
        "left_out": list(done.left_out),
        "files": sorted(path.name for path in folder.iterdir()),
        "checked": done.line(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
