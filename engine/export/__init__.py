"""Models on their way to other programs: Hugging Face directories, files of GGUF and llama2.c.

What is written stands under a temporary name until it was opened again and gave the logits of the
model in memory; a result that does not is taken away. Rows, names and tokenizers are translated
between the containers where their conventions differ.
"""

from __future__ import annotations

from engine.export.checking import Report
from engine.export.exporting import FORMATS, to_gguf, to_huggingface, to_peft
from engine.export.llama2c import to_llama2c
from engine.export.source import Source

__all__ = ["FORMATS", "Report", "Source", "to_gguf", "to_huggingface", "to_llama2c", "to_peft"]
