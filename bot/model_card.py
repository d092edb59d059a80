"""What a model is, as facts: from its record, its registry entry and the checkpoint's header."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from data import catalogue
from data.models import ResolvedModel
from data.records import InstalledModel


def describe(found: ResolvedModel, record: InstalledModel | None) -> dict[str, Any]:
    """Facts in the order in which they are shown; None where nothing is known.

    record  what pull has written down, None for models that it did not fetch
    "problem" is the reason when the checkpoint's header cannot be read, else None.
    """
    listed = catalogue.find(found.name) if record else None
    size = record.size if record else _size(found.path)
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
        card |= _header(found.path, card["sha256"])
        problem = None
    except (ValueError, OSError) as error:
        problem = str(error)
    return {**card, "problem": problem}


def _header(path: Path, sha256: str | None) -> dict[str, Any]:
    from engine.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(path)
    config = checkpoint.decoder_config()
    tensors = [checkpoint.tensor(name) for name in checkpoint.tensor_names()]
    kinds = Counter(tensor.kind for tensor in tensors)
    n_bytes: Counter[str] = Counter()
    for tensor in tensors:
        n_bytes[tensor.kind] += tensor.data.size
    template = checkpoint.chat_template
    return {
        "sha256": sha256 or checkpoint.fingerprint(),
        "architecture": config.architecture,
        "parameters": sum(prod(tensor.shape) for tensor in tensors),
        "quantisation": n_bytes.most_common(1)[0][0] if n_bytes else None,
        "tensors": dict(kinds.most_common()),
        "context_length": config.max_seq_len,
        "layers": config.n_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "tied_head": config.tied_head,
        "tokenizer": checkpoint.tokenizer_json is not None or bool(checkpoint.ggml_tokenizer),
        "chat_template": template is not None,
    }


def _size(path: Path) -> int:
    inside = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file()]
    return sum(p.stat().st_size for p in inside)
