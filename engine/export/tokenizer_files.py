"""tokenizer.json and tokenizer_config.json of a GGUF file's tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.checkpoints import Checkpoint
from engine.tokenizer.parts import Parts


def write_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
    """Both files; nothing when the checkpoint has no tokenizer."""
    from engine.tokenizer.ggml import parts_from_ggml

    metadata = checkpoint.ggml_tokenizer
    parts = None if metadata is None else parts_from_ggml(metadata)
    if parts is None:
        return
    _surround(parts)
    parts.backend.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    text = json.dumps(_config(checkpoint, parts), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _surround(parts: Parts) -> None:
    """Let the backend itself put BOS and EOS around a text, where the file wants them there."""
    from tokenizers import processors

    if not parts.prefix and not parts.suffix:
        return
    before, after = (
        [str(parts.backend.id_to_token(i)) for i in ids] for ids in (parts.prefix, parts.suffix)
    )
    names = dict(zip([*before, *after], [*parts.prefix, *parts.suffix], strict=True))
    parts.backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B", *after],
        special_tokens=list(names.items()),
    )


def _config(checkpoint: Checkpoint, parts: Parts) -> dict[str, Any]:
    named = {name: str(parts.backend.id_to_token(i)) for name, i in parts.named.items()}
    config = {
        **named,
        "add_bos_token": bool(parts.prefix),
        "add_eos_token": bool(parts.suffix),
        "clean_up_tokenization_spaces": False,
        "model_max_length": checkpoint.decoder_config().max_seq_len,
        "tokenizer_class": "PreTrainedTokenizerFast",  # what tokenizer.json says, and no more
    }
    template = checkpoint.tokenizer_config.get("chat_template")
    return config if template is None else {**config, "chat_template": template}
