"""README.md of a Hugging Face directory."""

from __future__ import annotations

from engine.export.checking import Report
from engine.export.source import Source


def card(name: str, source: Source, base: str, report: Report) -> str:
    """What it is, what it was made of, how it was checked, and how to use it."""
    adapter = source.adapter
    made = f"`{base}`"
    if adapter is not None:
        made += f" with the adapter `{adapter.name}` (LoRA, rank {adapter.rank}) merged into it"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
base_model: {base}
---

# {name}

Weights of {made}, {report.format}, written by sparsechat. The licence is that of the base model.

Checked after writing, against the model in memory: {report.line()}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello"}}],
    add_generation_prompt=True, return_dict=True, return_tensors="pt",
)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))
```

In sparsechat: `sparsechat --model {name}`, named as a path.
"""
