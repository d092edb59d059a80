"""Compiled loops of training: arrays and numbers in, no torch.

A kernel is a task: threads call it at once, and each takes the next item until none is left
(tasks.py). Letters of all files: T tokens, E hidden_size, F intermediate_size, D head_dim.
Activations come in two widths: float32, or bfloat16 where the products are made of those.
"""
