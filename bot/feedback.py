"""Answers that were rated, as training rows: one JSON object a line, for its owner's eyes only.

A row holds the conversation as the model saw it and the answer that is to be learned; other answers
in it have the weight 0. `sparsechat train FILE` reads it: rows rated "bad" are not learned.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bot.adapters import to_record
from bot.prompt import Message

if TYPE_CHECKING:
    from bot.loading import LoadedModel
    from engine.tokenizer import Tokenizer

Rating = Literal["good", "bad", "fixed"]


def path() -> Path:
    """Where rows are kept."""
    from data import paths

    return paths.data_dir() / "feedback" / "answers.jsonl"


def row_of(
    rating: Rating,
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    loaded: LoadedModel,
    before: str | None = None,
) -> dict[str, Any]:
    """A row of a conversation whose last message is the answer.

    before  the answer that the model gave, where the last message is a correction of it
    """
    *asked, answer = messages
    ids = tokenizer.encode_chat(asked, add_generation_prompt=True)
    others = [m | {"weight": 0} if m["role"] == "assistant" else m for m in asked]
    first = answer["content"] if before is None else before
    known = hashlib.sha256(json.dumps([asked, first]).encode()).hexdigest()[:16]
    return {
        "id": known,
        "rating": rating,
        "messages": [*others, answer],
        **({} if before is None else {"rejected": before}),
        "prompt": {
            "text": tokenizer.render(asked, add_generation_prompt=True),
            "token_ids": ids,
            "template": tokenizer.template.name,
        },
        "model": {
            "name": loaded.name,
            "fingerprint": loaded.model.fingerprint,
            "weight_format": loaded.model.weight_format,
        },
        "adapter": to_record(loaded.model),
        "at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def keep(row: Mapping[str, Any]) -> tuple[Path, bool]:
    """Append the row, in place of an earlier one of the same answer; whether there was one.

    OSError, one line, when it cannot be written.
    """
    from data import files, locks

    file = path()
    files.private_folder(file.parent)
    with locks.hold(file.with_suffix(".lock")):
        lines = _lines(file)
        mark = f'"id": {json.dumps(row["id"])}'
        kept = [line for line in lines if not line.startswith("{" + mark)]
        if len(kept) < len(lines):
            _replace(file, kept)
        line = json.dumps(row, ensure_ascii=False) + "\n"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as out:
            if kept and not kept[-1].endswith("\n"):
                out.write(b"\n")  # a line that was cut must not take the next one with it
            out.write(line.encode("utf-8", "replace"))
            out.flush()
            files.sync(out.fileno())
    return file, len(kept) < len(lines)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _replace(file: Path, lines: Sequence[str]) -> None:
    temporary = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
        out.writelines(lines)
    os.replace(temporary, file)
