"""Every operation against torch's own, and its gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from engine.training.ops.attention import Documents, Heads, attend
from engine.training.ops.int8 import dequantize, quantize, quantize_finely
from engine.training.ops.norm import add_rms_norm, rms_norm
from engine.training.ops.swiglu import swiglu

BF16 = torch.bfloat16
WIDTHS = [torch.float32, BF16]
# a value of bfloat16 is off by 2**-9 of itself at most; sums of a few by a little more
TOLERANCE = {torch.float32: 2e-5, BF16: 1.5e-2}


def random(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values).to(dtype)


def check_gradients(f: Callable[..., Any], *inputs: Any, step: float = 1e-2) -> None:
    """The gradient of a random weighting of f's outputs, along random directions, each input's.

    Central differences of a float32 function; the weighting is kept in float64.
    """
    inputs = tuple(x.clone().requires_grad_() for x in inputs)

    def outputs(values: Any) -> list[Any]:
        found = f(*values)
        return list(found) if isinstance(found, tuple) else [found]

    weights = [random(*o.shape, seed=9 + i).double() for i, o in enumerate(outputs(inputs))]

    def total(values: Any) -> Any:
        return sum((o.double() * w).sum() for o, w in zip(outputs(values), weights, strict=True))

    total(inputs).backward()
    for i, x in enumerate(inputs):
        direction = random(*x.shape, seed=50 + i)
        direction = direction / direction.norm() + x.grad / x.grad.norm()

        def moved(by: float, i: int = i, direction: Any = direction) -> float:
            values = [
                v.detach() + by * direction if j == i else v.detach() for j, v in enumerate(inputs)
            ]
            return float(total(values))

        difference = (moved(step) - moved(-step)) / (2 * step)
        assert float((x.grad * direction).sum()) == pytest.approx(difference, rel=5e-3), i


def close(ours: Any, theirs: Any, width: Any = torch.float32) -> None:
    theirs = theirs.detach().float().numpy()
    bound = TOLERANCE[width]
    assert_allclose(
        ours.detach().float().numpy(), theirs, rtol=bound, atol=bound * np.abs(theirs).max() / 4
    )


# ---- norm ---------------------------------------------------------------------------------------


def torch_norm(x: Any, weight: Any, eps: float) -> Any:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n_rows", [1, 7, 130])
def test_rms_norm_equals_torch(width: Any, n_rows: int) -> None:
    x, weight = random(n_rows, 96), random(96, seed=1)
    ours = rms_norm(x, weight, 1e-3, width)
    assert ours.dtype == width
    close(ours, torch_norm(x, weight, 1e-3), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_add_rms_norm_equals_torch(width: Any) -> None:
    x, y, weight = random(33, 64), random(33, 64, seed=1, dtype=width), random(64, seed=2)
    total, normed = add_rms_norm(x, y, weight, 1e-5)
    assert torch.equal(total, x + y.float())
    assert normed.dtype == width
    close(normed, torch_norm(x + y.float(), weight, 1e-5), width)


def test_gradients_of_rms_norm() -> None:
    check_gradients(lambda x, w: rms_norm(x, w, 1e-3, torch.float32), random(9, 64), random(64))


def test_gradients_of_add_rms_norm() -> None:
    check_gradients(
        lambda x, y, w: add_rms_norm(x, y, w, 1e-3),
        random(9, 64),
        random(9, 64, seed=1),
        random(64),
    )


def test_gradients_of_add_rms_norm_in_bfloat16_are_those_in_float32() -> None:
    x, y, weight = random(40, 64), random(40, 64, seed=1, dtype=BF16), random(64, seed=2)
    d_total, d_normed = random(40, 64, seed=3), random(40, 64, seed=4, dtype=BF16)
    found = []
    for width in (torch.float32, BF16):
        inputs = x.clone().requires_grad_(), y.to(width).requires_grad_()
        outputs = add_rms_norm(*inputs, weight, 1e-5)
        torch.autograd.backward(outputs, (d_total, d_normed.to(width)))
        found.append([one.grad for one in inputs])
    close(found[1][0], found[0][0])
    assert found[1][1].dtype == BF16
    close(found[1][1], found[0][1], BF16)


# ---- swiglu -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_swiglu_equals_torch(width: Any) -> None:
    both = (3 * random(50, 192)).to(width)
    gate, up = both.float().chunk(2, 1)
    ours = swiglu(both)
    assert ours.dtype == width
    close(ours, torch.nn.functional.silu(gate) * up, width)


def test_gradients_of_swiglu() -> None:
    check_gradients(swiglu, 2 * random(5, 64), step=1e-3)


def test_gradients_of_swiglu_in_bfloat16_are_those_of_torch() -> None:
    both = random(20, 128, dtype=BF16).requires_grad_()
    dh = random(20, 64, seed=1, dtype=BF16)
    swiglu(both).backward(dh)
    exact = both.detach().float().requires_grad_()
    gate, up = exact.chunk(2, 1)
    (torch.nn.functional.silu(gate) * up).backward(dh.float())
    close(both.grad, exact.grad, BF16)


# ---- attention ----------------------------------------------------------------------------------

LENGTHS = [5, 70, 1, 33, 130]


def documents(rotary_dim: int, lengths: list[int] = LENGTHS) -> Documents:
    angles = random(sum(lengths), rotary_dim // 2, seed=7)
    return Documents.of(lengths, angles.cos(), angles.sin())


def torch_attention(qkv: Any, heads: Heads, at: Documents) -> Any:
    """A document after the other, in torch's operations."""
    n, d, half = heads.n_heads + 2 * heads.n_kv_heads, heads.head_dim, heads.rotary_dim // 2
    x = qkv.view(len(qkv), n, d)
    q, k, v = x.split([heads.n_heads, heads.n_kv_heads, heads.n_kv_heads], 1)

    def rotate(x: Any) -> Any:
        turned, rest = x[..., : 2 * half], x[..., 2 * half :]
        cos, sin = at.cos[:, None], at.sin[:, None]
        if heads.interleaved:
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        else:
            a, b = turned[..., :half], turned[..., half:]
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        return torch.cat([turned, rest], -1)

    group = heads.n_heads // heads.n_kv_heads
    q, k, v = rotate(q), rotate(k).repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    out = []
    for start, stop in zip(at.starts[:-1].tolist(), at.starts[1:].tolist(), strict=True):
        scores = torch.einsum("ihd,jhd->hij", q[start:stop], k[start:stop]) * heads.scale
        scores = scores + torch.full_like(scores[0], -torch.inf).triu(1)
        out.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[start:stop]))
    return torch.cat(out).flatten(1)


SHAPES = {
    "grouped": Heads(4, 2, 32, 32, False, 32**-0.5),
    "interleaved": Heads(3, 1, 64, 64, True, 0.2),
    "half turned": Heads(2, 2, 64, 32, False, 0.125),
    "half turned, interleaved": Heads(2, 2, 64, 32, True, 0.125),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SHAPES)
def test_attention_and_its_gradient_equal_torch(name: str, width: Any) -> None:
    heads, at = SHAPES[name], documents(SHAPES[name].rotary_dim)
    size = (heads.n_heads + 2 * heads.n_kv_heads) * heads.head_dim
    qkv = (1.5 * random(sum(LENGTHS), size)).to(width).requires_grad_()
    exact = qkv.detach().float().requires_grad_()
    ours, theirs = attend(qkv, heads, at), torch_attention(exact, heads, at)
    assert ours.dtype == width
    close(ours, theirs, width)
    weights = random(*ours.shape, seed=3, dtype=width)
    ours.backward(weights)
    theirs.backward(weights.float())
    error = (qkv.grad.float() - exact.grad).norm() / exact.grad.norm()
    assert error < (1e-5 if width == torch.float32 else 5e-3)
    largest = (qkv.grad.float() - exact.grad).abs().max() / exact.grad.abs().max()
    assert largest < (1e-5 if width == torch.float32 else 1e-2)


def test_gradients_of_attention() -> None:
    heads, at = SHAPES["interleaved"], documents(64, [3, 9])
    check_gradients(lambda qkv: attend(qkv, heads, at), random(12, 5 * 64), step=3e-3)


# ---- int8 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [96, 48, 37])
@pytest.mark.parametrize("width", WIDTHS)
def test_quantize_is_off_by_half_a_step_at_most(width: Any, n: int) -> None:
    x, factors = random(37, n, dtype=width), random(n, seed=1)
    q, scales = quantize(x, factors)
    assert q.dtype == torch.int8
    error = (q * scales[:, None] - x.float() * factors).abs().numpy()
    assert (error <= 0.501 * scales[:, None].numpy()).all()
    assert (q.abs().amax(1) == 127).all()


@pytest.mark.parametrize("n", [96, 48, 37])
def test_quantize_finely_is_off_by_a_254th_of_that(n: int) -> None:
    x = random(37, n)
    q, rest, scales = quantize_finely(x)
    error = ((q + rest / 254) * scales[:, None] - x).abs().numpy()
    assert (error <= 0.51 / 254 * scales[:, None].numpy()).all()


def test_a_row_of_zeros_is_zero_in_int8() -> None:
    q, scales = quantize(torch.zeros(3, 32))
    assert not q.any()
    assert not scales.any()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rank", [0, 16, 48])
@pytest.mark.parametrize("n", [64, 48, 37])
def test_dequantize_equals_numpy(width: Any, rank: int, n: int) -> None:
    rng = np.random.default_rng(0)
    sums, fine = (torch.from_numpy(rng.integers(-9999, 9999, (21, n), np.int32)) for _ in "ab")
    scales, factors = random(21), random(n, seed=1)
    z, b = random(21, rank, seed=2, dtype=width), random(rank, n, seed=3)
    expected = (sums + fine / 254) * scales[:, None] * factors + z.float() @ b
    found = dequantize(sums, fine, scales, factors, (z, b) if rank else None, width)
    assert found.dtype == width
    close(found, expected, width)
