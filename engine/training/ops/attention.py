"""Causal attention of packed documents with rotated heads.

Letters: T tokens, H heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.training.kernels import attention as kernels
from engine.training.kernels.attention import RUN
from engine.training.kernels.tile import COLUMNS
from engine.training.ops.team import run

Tensor = Any


@dataclass(slots=True, eq=False)
class Documents:
    """Where documents begin, which are the longest, and the angles of their tokens.

    cos, sin  (T, rotary_dim / 2) float32
    """

    starts: Tensor  # (documents + 1,) int64
    order: Tensor  # (documents,) int64, the longest first
    longest: int
    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, lengths: list[int], cos: Tensor, sin: Tensor) -> Documents:
        """From the lengths of a batch."""
        starts = torch.from_numpy(np.cumsum([0, *lengths]))
        order = torch.from_numpy(np.argsort(-np.asarray(lengths), kind="stable"))
        return cls(starts, order, max(lengths), cos.contiguous(), sin.contiguous())


@dataclass(frozen=True, slots=True)
class Heads:
    """Their shapes; rotary_dim of each head_dim are turned; scores are times scale."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    rotary_dim: int
    interleaved: bool
    scale: float


def attend(qkv: Tensor, heads: Heads, documents: Documents) -> Tensor:
    """qkv (T, H + 2 n_kv_heads heads of D), float32 or bfloat16, before rotation -> (T, H D)."""
    return _Attention.apply(qkv, heads, documents)


def _scratch(documents: Documents, head_dim: int) -> tuple[Tensor, int]:
    """Room for one document a thread, and its bytes for a thread."""
    padded = -(-documents.longest // COLUMNS) * COLUMNS
    n = 3 * RUN * head_dim + RUN + 5 * padded * head_dim + 2 * RUN * padded
    n = -(-n // 16) * 16
    return torch.empty(torch.get_num_threads(), n), 4 * n


def _arguments(
    heads: Heads, documents: Documents, qkv: Tensor, out: Tensor, log_sums: Tensor
) -> Any:
    scratch, n_bytes = _scratch(documents, heads.head_dim)
    return (
        *(qkv, documents.cos, documents.sin, documents.starts, documents.order),
        *(heads.n_heads, heads.n_kv_heads, heads.head_dim, heads.rotary_dim),
        *(int(heads.interleaved), scratch, n_bytes, out, log_sums, float(heads.scale)),
    )


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: Heads, documents: Documents) -> Tensor:
        out = torch.empty(len(qkv), heads.n_heads * heads.head_dim, dtype=qkv.dtype)
        log_sums = torch.empty(len(qkv), heads.n_heads)
        kernel = kernels.forward_2 if qkv.dtype == torch.bfloat16 else kernels.forward_4
        n_items = len(documents.order) * heads.n_kv_heads
        run(kernel, n_items, *_arguments(heads, documents, qkv, out, log_sums))
        ctx.save_for_backward(qkv, out, log_sums)
        ctx.heads, ctx.documents = heads, documents
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Any, ...]:
        qkv, out, log_sums = ctx.saved_tensors
        heads, documents = ctx.heads, ctx.documents
        d_qkv = torch.empty_like(qkv)
        kernel = kernels.backward_2 if qkv.dtype == torch.bfloat16 else kernels.backward_4
        arguments = _arguments(heads, documents, qkv, out, log_sums)
        d_out = d_out.contiguous()
        run(kernel, len(documents.order) * heads.n_kv_heads, *arguments, d_out, d_qkv)
        return d_qkv, None, None
