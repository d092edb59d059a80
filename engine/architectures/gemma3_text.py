"""Gemma 3 without pictures, as Hugging Face names it."""

from __future__ import annotations

from engine.architectures import gemma3

LAYOUT, TENSORS, GGUF = gemma3.LAYOUT, gemma3.TENSORS, gemma3.GGUF
decoder_config = gemma3.decoder_config
