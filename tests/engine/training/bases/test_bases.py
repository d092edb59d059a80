"""How close the two products of each base are to those of the stored matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints import RawTensor
from engine.training.bases import BASES, Low, _int8, bf16, freeze, q4, width
from engine.training.bases.f32 import F32
from engine.training.bases.q4 import Q4

N, K, T, R = (96, 64), 160, 50, 16
# relative to the norm of the exact result
ERRORS = {"f32": 1e-6, "bf16": 6e-3, "int8": 1.2e-2, "int16": 8e-4, "q4": 0.08}
BACK = ERRORS | {"bf16": 1.5e-2}


def stored() -> list[RawTensor]:
    rng = np.random.default_rng(0)
    tensors = []
    for n in N:
        values = rng.standard_normal((n, K)).astype(np.float32)
        data = values.reshape(-1).view(np.uint8)
        tensors.append(RawTensor(f"w{n}", values.shape, "F32", data))
    return tensors


def exact() -> Any:
    return torch.from_numpy(np.concatenate([t.float32() for t in stored()]))


def random(*shape: int, seed: int, dtype: Any = torch.float32) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values).to(dtype)


def error(found: Any, expected: Any) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.fixture(params=["amx", "int8", "int16", "float32"], autouse=True)
def quickest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """CPUs by what they multiply quickest."""
    found: str = request.param
    for module, name in ((_int8, "int8"), (_int8, "int16"), (q4, "int16")):
        monkeypatch.setattr(module, f"has_quick_{name}", lambda name=name: found == name)
    monkeypatch.setattr(bf16, "has_amx", lambda: found == "amx")
    return found


@pytest.mark.parametrize("adapters", ["none", "of these inputs", "of dropped inputs"])
@pytest.mark.parametrize("name", sorted(BASES))
def test_products_are_close(name: str, adapters: str) -> None:
    base, dtype = freeze(name, stored()), width(name)
    x, z, b = random(T, K, seed=1, dtype=dtype), random(T, R, seed=2), random(sum(N), R, seed=3)
    a = random(R, K, seed=4) if adapters == "of these inputs" else None
    if a is not None:
        z = x.float() @ a.t()
    low = None if adapters == "none" else Low(z.to(dtype), b.to(dtype), a)
    expected = x.float() @ exact().t() + (z @ b.t() if low else 0)
    found = base.product(x, low)
    assert found.dtype == dtype
    assert error(found, expected) < ERRORS[name]


@pytest.mark.parametrize("with_adapters", [False, True])
@pytest.mark.parametrize("name", sorted(BASES))
def test_input_gradients_are_close(name: str, with_adapters: bool) -> None:
    base, dtype = freeze(name, stored()), width(name)
    dy, dz, a = random(T, sum(N), seed=1, dtype=dtype), random(T, R, seed=2), random(R, K, seed=3)
    low = (dz.to(dtype), a) if with_adapters else None
    expected = dy.float() @ exact() + (dz @ a if with_adapters else 0)
    found = base.input_gradient(dy, low)
    assert found.dtype == dtype
    assert error(found, expected) < BACK[name]


@pytest.mark.parametrize(
    ("name", "bytes_a_weight"), [("int8", 1), ("int16", 2), ("bf16", 3), ("f32", 4)]
)
def test_bytes_kept(name: str, bytes_a_weight: int, quickest: str) -> None:
    n_weights = sum(N) * K
    if (name, quickest) == ("bf16", "amx"):
        bytes_a_weight = 2  # its gradients need no bytes of their own
    assert bytes_a_weight <= freeze(name, stored()).n_bytes / n_weights < bytes_a_weight + 0.04


@pytest.mark.parametrize("shape", [(48, 40), (40, 48)])
def test_int16_keeps_matrices_of_odd_sizes_as_they_are(shape: tuple[int, int]) -> None:
    values = random(*shape, seed=0).numpy()
    base = freeze("int16", [RawTensor("w", shape, "F32", values.reshape(-1).view(np.uint8))])
    assert isinstance(base, F32)
    assert (base.weight.numpy() == values).all()


def test_q4_takes_blocks_as_they_are_stored() -> None:
    rng = np.random.default_rng(0)
    blocks = np.zeros((5, 2, 20), np.uint8)
    blocks[..., :4] = rng.standard_normal((5, 2, 2)).astype(np.float16).view(np.uint8)
    blocks[..., 4:] = rng.integers(0, 256, (5, 2, 16))
    tensor = RawTensor("w", (5, 64), "Q4_1", blocks.reshape(-1))
    base = freeze("q4", [tensor])
    assert isinstance(base, Q4)
    assert base.n_bytes == 5 * 2 * 20
    expected = torch.from_numpy(tensor.float32()).to(base.dequantized().dtype)
    assert error(base.dequantized(), expected.float()) < 1e-3


def test_q4_refuses_rows_that_are_no_whole_blocks() -> None:
    tensor = RawTensor("w", (3, 40), "F32", np.zeros(480, np.uint8))
    with pytest.raises(ValueError, match="base q4 packs inputs by 32; w has 40; choose int8"):
        freeze("q4", [tensor])


def test_an_unknown_base_is_named() -> None:
    with pytest.raises(
        ValueError, match="unknown base 'q5'; this build has bf16, f32, int16, int8"
    ):
        freeze("q5", stored())
