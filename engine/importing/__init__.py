"""Models on their way in: pickled weights become a Hugging Face directory of safetensors, once.

Pickles of a Hugging Face directory and those that OpenChatKit's scripts leave are read by torch's
weights-only loader (engine/training/pickles.py), one at a time. Nothing has its name until every
tensor was there exactly once, with its shape, and what was written gave the same logits.
"""

from __future__ import annotations

from engine.importing.converting import Report, import_model

__all__ = ["Report", "import_model"]
