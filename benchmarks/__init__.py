"""Measures: one question per script, `python -m benchmarks.<name> [--quick] [--save]`.

decode       tokens a second of an answer, and the share of the memory's bandwidth
prefill      tokens a second of a prompt, and the share of the processor's multiplications
longcontext  both at 2,000 tokens
beams        a step of several beams, or of several tokens, against one
lookup       answers that quote their context
resume       a saved conversation against reading it again
startup      from the command to the prompt and to the first token; idle CPU
disturbed    cancelling, and busy cores
quality      logits against float32's and llama.cpp's
retrieval    what is found for questions whose answers are known, in each mode
answers      right answers with passages against without
questions    which questions those two ask, and where they come from
training     training's speed, memory, quality and resuming, beside TRL and PEFT
targets      what was aimed at, against what results/ says; measures nothing
all          everything above, saved: `python -m benchmarks.all --save`, about six hours

--model shape-1.1b and shape-6.7b are random weights in real shapes; --avx2 limits both sides. The
rest is machinery: options (flags), rounds (two processes in turns), side and *_driver (what runs in
them), peers (llama.cpp's builds), machine, bandwidth and peak (what is possible here), gguf_files,
process, terminal, report.
"""
