"""A step of an optimizer over all weights of a model, for its time; the gradients are random."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from engine.checkpoints import open_checkpoint
from engine.shapes import matrix_shapes

FUSED, FOREACH = "torch fused", "torch default"


class Steps:
    """Optimizers over the same parameters, each made when it is first asked for."""

    def __init__(self, model: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        shapes = matrix_shapes(open_checkpoint(model).decoder_config())
        self._threads = threads
        self._parameters = {n: torch.nn.Parameter(torch.randn(s)) for n, s in shapes.items()}
        for parameter in self._parameters.values():
            parameter.grad = torch.randn_like(parameter)
        self._made: dict[str, Any] = {}

    @property
    def n_parameters(self) -> int:
        """Weights of all matrices."""
        return sum(int(p.numel()) for p in self._parameters.values())

    def seconds(self, name: str) -> float:
        """Of one step, per parameter."""
        step = self._made.get(name) or self._made.setdefault(name, self._make(name))
        started = time.perf_counter()
        step()
        return (time.perf_counter() - started) / self.n_parameters

    def _make(self, name: str) -> Any:
        import torch

        from engine.training.optimizers import optimizer

        if name in (FUSED, FOREACH):
            return torch.optim.AdamW(
                self._parameters.values(), lr=1e-5, weight_decay=0.0, fused=name == FUSED
            ).step
        made = optimizer(name, self._parameters, 0.0, self._threads)
        return lambda: made.step(1e-5, 1.0)
