"""A frozen base of one byte a weight: activations of 16 bits going forward, of 8 going back."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.kernels.layout import StoredTensor
from engine.training.bases._int8 import Int8, to_int8
from engine.training.products import has_quick_bf16

WIDTH = torch.bfloat16 if has_quick_bf16() else torch.float32


def freeze(tensors: Sequence[StoredTensor]) -> Int8:
    """One scale a row."""
    return to_int8(tensors)
