"""Our AdamW against torch's plain one: dense, lazy, and with states of 8 bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from engine.training.optimizers import Optimizer, optimizer
from engine.training.optimizers import _blocks as blocks

N_STEPS = 30


def parameter(rng: np.random.Generator, *shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))


def rate(step: int) -> float:
    return 1e-2 * (1 + math.cos(step / 5))


class Reference:
    """torch.optim.AdamW without fusing."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], weight_decay: float) -> None:
        self.parameters = {n: torch.nn.Parameter(p.detach().clone()) for n, p in parameters.items()}
        self._adam = torch.optim.AdamW(
            [
                {"params": [p], "weight_decay": weight_decay if p.ndim > 1 else 0.0}
                for p in self.parameters.values()
            ],
            foreach=False,
        )

    def step(self, gradients: dict[str, torch.Tensor], learning_rate: float) -> None:
        for name, p in self.parameters.items():
            p.grad = gradients[name].clone()
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()


def gradients_of(
    rng: np.random.Generator, parameters: dict[str, torch.nn.Parameter], share: float
) -> dict[str, torch.Tensor]:
    """Random gradients; of the embedding's rows only a share has any."""
    found = {}
    for name, p in parameters.items():
        g = rng.standard_normal(tuple(p.shape), dtype=np.float32)
        if name == "embedding":
            g[rng.random(len(g)) > share] = 0
        found[name] = torch.from_numpy(g)
    return found


def run(
    made: Optimizer, parameters: dict[str, torch.nn.Parameter], gradients: Any, rate: float
) -> None:
    for name, p in parameters.items():
        p.grad = gradients[name] * 4
    made.step(rate, 0.25)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("threads", [1, 2])
def test_adamw_equals_torch_with_rows_updated_lazily(
    rng: np.random.Generator, weight_decay: float, threads: int
) -> None:
    parameters = {
        "embedding": parameter(rng, 700, 256),
        "layers.0.wq": parameter(rng, 8, 16),
        "final_norm": parameter(rng, 16),
    }
    reference = Reference(parameters, weight_decay)
    made = optimizer("adamw", parameters, weight_decay, threads)
    for step in range(N_STEPS):
        gradients = gradients_of(rng, parameters, 0.1)
        reference.step(gradients, rate(step))
        run(made, parameters, gradients, rate(step))
    # rows that the last steps left alone are behind until they are settled
    assert not torch.allclose(parameters["embedding"], reference.parameters["embedding"], atol=1e-4)
    made.settle()
    for name, p in parameters.items():
        torch.testing.assert_close(p, reference.parameters[name], rtol=1e-5, atol=5e-6)


def test_settling_between_steps_changes_nothing(rng: np.random.Generator) -> None:
    first = {"embedding": parameter(rng, 50, 256)}
    second = {"embedding": torch.nn.Parameter(first["embedding"].detach().clone())}
    often, once = optimizer("adamw", first, 0.1), optimizer("adamw", second, 0.1)
    for step in range(N_STEPS):
        gradients = gradients_of(rng, first, 0.2)
        run(often, first, gradients, rate(step))
        run(once, second, gradients, rate(step))
        often.settle()
    once.settle()
    torch.testing.assert_close(first["embedding"], second["embedding"], rtol=1e-5, atol=1e-6)


def test_rows_that_are_never_touched_only_decay(rng: np.random.Generator) -> None:
    p = parameter(rng, 2, 256)
    before = p.detach().clone()
    made = optimizer("adamw", {"embedding": p}, 0.5)
    for _ in range(3):
        gradient = torch.zeros(2, 256)
        gradient[0] = 1
        run(made, {"embedding": p}, {"embedding": gradient}, 0.1)
    assert torch.equal(p[1], before[1])
    made.settle()
    torch.testing.assert_close(p[1], before[1] * 0.95**3, rtol=1e-6, atol=0)


def test_8bit_states_follow_float32(rng: np.random.Generator) -> None:
    """The same quadratic, from the same start: about the same way down."""
    target = torch.from_numpy(rng.standard_normal((64, 256), dtype=np.float32))
    scales = torch.from_numpy(10.0 ** rng.uniform(-2, 0, (64, 256)).astype(np.float32))
    losses = {}
    for name in ("adamw", "adamw8bit"):
        p = torch.nn.Parameter(torch.zeros(64, 256))
        made = optimizer(name, {"w": p})
        noise = np.random.default_rng(1)
        for step in range(300):
            p.grad = scales * (p.detach() - target)
            p.grad += 0.1 * scales * torch.from_numpy(noise.standard_normal(p.shape, np.float32))
            made.step(0.02 * (1 - step / 300), 1.0)
        losses[name] = float((scales * (p.detach() - target) ** 2).mean())
    start = float((scales * target**2).mean())
    assert losses["adamw"] < 0.01 * start
    assert abs(losses["adamw8bit"] - losses["adamw"]) < 0.002 * start


def test_8bit_rows_are_lazy_too(rng: np.random.Generator) -> None:
    p = parameter(rng, 100, 256)
    before = p.detach().clone()
    reference = Reference({"embedding": p}, 0.0)
    made = optimizer("adamw8bit", {"embedding": p})
    for step in range(N_STEPS):
        gradients = gradients_of(rng, {"embedding": p}, 0.2)
        reference.step(gradients, rate(step))
        run(made, {"embedding": p}, gradients, rate(step))
    made.settle()
    moved, wanted = p.detach() - before, reference.parameters["embedding"].detach() - before
    assert float((moved - wanted).norm() / wanted.norm()) < 0.1


def test_small_tensors_keep_float32(rng: np.random.Generator) -> None:
    p = {"final_norm": parameter(rng, 576), "w": parameter(rng, 64, 256)}
    p["odd"] = parameter(rng, 4097)  # no whole vectors
    made = optimizer("adamw8bit", p)
    assert made.n_bytes == 8 * (576 + 4097) + (2 + 12 / 256) * 64 * 256
    reference = Reference(p, 0.0)
    for step in range(5):
        gradients = gradients_of(rng, p, 1.0)
        reference.step(gradients, rate(step))
        run(made, p, gradients, rate(step))
    for name in ("final_norm", "odd"):
        torch.testing.assert_close(p[name], reference.parameters[name])


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_loaded_state_goes_on_with_the_same_bits(rng: np.random.Generator, name: str) -> None:
    start = {"embedding": parameter(rng, 40, 256), "w": parameter(rng, 64, 80)}
    steps = [gradients_of(rng, start, 0.3) for _ in range(8)]
    made = optimizer(name, start, 0.1)
    for step in range(4):
        run(made, start, steps[step], rate(step))
    copy = {n: torch.nn.Parameter(p.detach().clone()) for n, p in start.items()}
    resumed = optimizer(name, copy, 0.1)
    resumed.load({key: array.copy() for key, array in made.state().items()})
    for step in range(4, 8):
        run(made, start, steps[step], rate(step))
        run(resumed, copy, steps[step], rate(step))
    for key in start:
        assert torch.equal(start[key], copy[key])


def test_the_state_of_another_model_is_refused(rng: np.random.Generator) -> None:
    made = optimizer("adamw8bit", {"w": parameter(rng, 64, 80)})
    with pytest.raises(ValueError, match="the optimizer's state of another model: w/m is missing"):
        made.load({})
    other = optimizer("adamw8bit", {"w": parameter(rng, 64, 90)})
    with pytest.raises(ValueError, match=r"w/m has shape \(5760,\), not \(5120,\)"):
        made.load(other.state())
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'; this build has adamw, adamw8b"):
        optimizer("sgd", {})


@pytest.mark.parametrize("decode", ["m", "v"])
def test_codes_keep_their_values(decode: str) -> None:
    """A block of all values that codes stand for, and one step that changes none of them: with
    beta 1 and a gradient that does not count, what is encoded is what was decoded."""
    codes = np.arange(256, dtype=np.uint8)
    m, v = (codes.copy(), codes.copy())
    tops = np.ones(1, np.float32), np.ones(1, np.float32)
    scratch = np.empty((2, 256), np.float32)
    blocks.update_8bit(
        0, 1, np.zeros(256, np.float32), np.ones(256, np.float32), m, v, *tops,
        np.zeros(1, np.int32), np.zeros(1), np.ones(1), 1, 0.0, (1.0, 1.0, 1e-8, 0.0),
        np.float32(0), np.uint32(7), scratch,
    )  # fmt: skip
    found = m if decode == "m" else v
    wanted = codes.copy()
    if decode == "m":
        wanted[128] = 0  # minus zero
    assert found.tolist() == wanted.tolist()


def test_small_values_are_never_rounded_to_zero() -> None:
    w, g = np.zeros(256, np.float32), np.full(256, 1e-20, np.float32)
    g[0] = 1.0
    m, v = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    tops = np.zeros(1, np.float32), np.zeros(1, np.float32)
    scratch = np.empty((2, 256), np.float32)
    last_step = np.zeros(1, np.int32)
    moves, shrink = np.zeros(3), np.ones(3)
    for step in (1, 2):
        blocks.update_8bit(
            0, 1, w, g, m, v, *tops, last_step, moves, shrink, step, 0.1,
            (0.9, 0.999, 1e-8, 0.0), np.float32(1), np.uint32(step), scratch,
        )  # fmt: skip
    assert v[0] == 255 and v[1:].max() <= 1
    assert np.abs(w).max() < 0.21


@pytest.mark.parametrize("share", [1.0, 0.3, 0.011, 1e-5])
def test_rounding_is_right_in_the_mean(share: float) -> None:
    """What lies between two codes becomes each so often that their mean is it; 1e-5 is less than
    m's least code."""
    n_blocks = 400
    g = np.full((n_blocks, 256), -share, np.float32)
    g[:, 0] = 1
    m, v = np.zeros(g.size, np.uint8), np.zeros(g.size, np.uint8)
    tops = np.zeros(n_blocks, np.float32), np.zeros(n_blocks, np.float32)
    blocks.update_8bit(
        0, n_blocks, np.zeros(g.size, np.float32), g.reshape(-1), m, v, *tops,
        np.zeros(n_blocks, np.int32), np.zeros(1), np.ones(1), 1, 0.0, (0.0, 0.0, 1e-8, 0.0),
        np.float32(1), np.uint32(3), np.empty((2, 256), np.float32),
    )  # fmt: skip
    assert (tops[0] == 1).all() and (tops[1] == 1).all()
    magnitudes = codes_of_m(m).reshape(n_blocks, 256)[:, 1:]
    assert magnitudes.mean() == pytest.approx(-share, rel=0.01)
    assert len(np.unique(magnitudes)) <= 2
    if share > 1e-3:  # smaller squares count as v's least code
        squares = codes_of_v(v).reshape(n_blocks, 256)[:, 1:]
        assert squares.mean() == pytest.approx(share**2, rel=0.01)
        assert len(np.unique(squares)) <= 2


def codes_of_m(codes: Any) -> Any:
    """The twin of decode_m."""
    steps = (codes & 127).astype(np.int32)
    sizes = (0x3F800000 - (127 - steps) * (1 << 20)).astype(np.int32).view(np.float32)
    return np.where(steps == 0, 0, sizes) * np.where(codes > 127, -1.0, 1.0)


def codes_of_v(codes: Any) -> Any:
    """The twin of decode_v."""
    steps = codes.astype(np.int32)
    sizes = (0x3F800000 - (255 - steps) * (3 << 18)).astype(np.int32).view(np.float32)
    return np.where(steps == 0, 0, sizes).astype(np.float64)
