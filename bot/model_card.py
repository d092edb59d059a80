"""What a model is, as facts: from its record, its registry entry and the checkpoint's header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.removing import size_of
from data import catalogue
from data.files import megabytes
from data.models import ResolvedModel
from data.records import InstalledModel

if TYPE_CHECKING:
    from engine.checkpoints import Checkpoint

# larger files are not read only to name their hash
_HASHED_BYTES = 1_000_000_000
_LINES = ("parts", "memory", "abilities")  # facts that take a line each


def describe(
    found: ResolvedModel, record: InstalledModel | None, n_tokens: int | None = None
) -> dict[str, Any]:
    """Facts in the order in which they are shown; None where nothing is known.

    record    what pull has written down, None for models that it did not fetch
    n_tokens  of context, for the memory; None: the model's own, at most 4096
    "problem" is the reason when the checkpoint's header cannot be read, else None.
    """
    listed = catalogue.find(found.name) if record else None
    size = record.size if record else size_of(found.path)
    card: dict[str, Any] = {
        "name": found.name,
        "title": listed.title if listed else None,
        "path": str(found.path.absolute()),
        "found_as": found.source,
        "pulled_from": record.source if record else None,
        "pulled_at": record.pulled_at if record else None,
        "licence": record.licence if record else None,
        "size": size,
        "sha256": record.sha256 if record else None,
    }
    try:
        card |= _header(found.path, card, n_tokens)
        problem = None
    except (ValueError, OSError) as error:
        problem = str(error)
    return {**card, "problem": problem}


def lines(card: Mapping[str, Any]) -> list[str]:
    """For people: a fact a line, what has parts below it."""
    plain = {key: value for key, value in card.items() if key not in (*_LINES, "problem")}
    width = max(map(len, plain))
    found = [
        f"{fact.replace('_', ' '):<{width}}  {_in_words(fact, value)}"
        for fact, value in plain.items()
        if value is not None
    ]
    if "parts" in card:
        found += ["", *_part_lines(card["parts"]), "", *_memory_lines(card["memory"])]
        found += ["", *_ability_lines(card["abilities"])]
    return found


def _header(path: Path, card: Mapping[str, Any], n_tokens: int | None) -> dict[str, Any]:
    from engine.checkpoints import open_checkpoint
    from engine.inspection import (
        abilities_of,
        memory_of,
        missing_from,
        parts_of,
        positions_of,
        reach_of,
    )

    checkpoint = open_checkpoint(path)
    config = checkpoint.decoder_config()
    parts = parts_of(checkpoint)
    n_bytes: Counter[str] = Counter()
    for part in parts:
        n_bytes[part.kinds[0]] += part.n_bytes
    names = checkpoint.tensor_names()
    missing = missing_from(checkpoint)
    kinds = Counter(checkpoint.kind(name) for name in names)
    memory = memory_of(checkpoint, n_tokens or min(config.max_seq_len, 4096))
    matrices = {kind for part in parts if part.name != "norms" for kind in part.kinds[:1]}
    return {
        "licence": card["licence"] or _licence(checkpoint),
        "sha256": card["sha256"] or _sha256(checkpoint),
        "architecture": config.architecture,
        "parameters": sum(part.n_weights for part in parts),
        "quantisation": n_bytes.most_common(1)[0][0] if n_bytes else None,
        "tensors": dict(kinds.most_common()),
        "missing": ", ".join(missing[:5]) + (" …" if missing[5:] else "") or None,
        "context_length": config.max_seq_len,
        "reach": reach_of(config),
        "positions": positions_of(config),
        "layers": config.n_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "tied_head": config.tied_head,
        "tokenizer": checkpoint.tokenizer_json is not None or bool(checkpoint.ggml_tokenizer),
        "chat_template": checkpoint.chat_template is not None,
        "template": _template(checkpoint),
        "parts": [
            {"name": p.name, "parameters": p.n_weights, "size": p.n_bytes, "kinds": list(p.kinds)}
            for p in parts
        ],
        "memory": {
            "context": memory.n_tokens,
            "weights": memory.weights,
            **{f"kv_{name}": size for name, size in memory.kv.items()},
            "scratch": memory.scratch,
            **{f"total_{name}": memory.total(name) for name in memory.kv},
        },
        "abilities": [ability._asdict() for ability in abilities_of(config, matrices)],
    }


def _sha256(checkpoint: Checkpoint) -> str | None:
    """As remembered, or of files that are read in a moment."""
    from engine.cache_dir import cache_dir
    from engine.fingerprint import fingerprint, remembered

    if sum(file.stat().st_size for file in checkpoint.files) <= _HASHED_BYTES:
        return fingerprint(checkpoint, cache_dir())
    return remembered(checkpoint, cache_dir())


def _template(checkpoint: Checkpoint) -> str | None:
    """The name of the form that a conversation takes; None without a tokenizer."""
    from engine.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(checkpoint)
    except ValueError as error:
        return f"none, the tokenizer cannot be read: {error}"
    if tokenizer is None:
        return None
    name = tokenizer.template.name
    return "the model's own (jinja)" if name == "jinja" else f"{name}, chosen for it"


def _licence(checkpoint: Checkpoint) -> str | None:
    """What the checkpoint says of itself: GGUF's key, or the head of a README.md."""
    metadata: Mapping[str, Any] = getattr(checkpoint, "metadata", {})
    value = metadata.get("general.license")
    if isinstance(value, str):
        return value[:100]
    card = checkpoint.path / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(20_000).split("---")
    for line in head[1].splitlines() if len(head) > 2 and not head[0].strip() else ():
        key, _, value = line.partition(":")
        if key in ("license", "license_name") and value.strip():
            return value.strip().strip("'\"")[:100]
    return None


def _in_words(fact: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{count} {kind}" for kind, count in value.items())
    if isinstance(value, int):
        return f"{value:,} bytes" if fact == "size" else f"{value:,}"
    return str(value)


def _part_lines(parts: list[dict[str, Any]]) -> list[str]:
    total = sum(part["size"] for part in parts) or 1
    rows = [
        f"  {part['name']:<13}{part['parameters']:>16,}{megabytes(part['size']):>11}"
        f"{100 * part['size'] / total:>6.1f} %  {', '.join(part['kinds'])}"
        for part in parts
    ]
    return [f"{'part':<15}{'parameters':>16}{'stored':>11}{'share':>8}", *rows]


def _memory_lines(memory: Mapping[str, int]) -> list[str]:
    formats = [key.removeprefix("total_") for key in memory if key.startswith("total_")]
    rows = [
        f"  {megabytes(memory[f'total_{name}']):>9} with keys and values in {name} "
        f"({megabytes(memory[f'kv_{name}'])})"
        for name in formats
        if name != "f32"
    ]
    head = f"memory at {memory['context']:,} tokens of context"
    weights, scratch = megabytes(memory["weights"]), megabytes(memory["scratch"])
    return [f"{head}: weights {weights}, buffers {scratch}", *rows]


def _ability_lines(abilities: list[dict[str, Any]]) -> list[str]:
    width = max(len(ability["name"]) for ability in abilities)
    return [
        f"{'+' if ability['is_fast'] else '-'} {ability['name']:<{width}}  {ability['note']}"
        for ability in abilities
    ]
