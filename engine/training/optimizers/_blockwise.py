"""AdamW over tensors in blocks: states, what they missed, and threads that share the work."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.training.optimizers import BETA1, BETA2, EPS, Parameters, State, decays, require_same
from engine.training.optimizers import _blocks as blocks
from engine.training.optimizers._missed import Missed

PIECE = 512  # blocks that one call of a kernel takes at most: 131,072 weights


class Kind(NamedTuple):
    """How states are kept.

    dtypes  of the arrays: name: (dtype, entries a block); BLOCK entries = one a weight
    update, settle  kernels of _blocks; coded: update takes a salt and scratch
    """

    dtypes: dict[str, tuple[type, int]]
    update: Callable[..., None]
    settle: Callable[..., None]
    coded: bool


FLOATS = Kind(
    {"m": (np.float32, blocks.BLOCK), "v": (np.float32, blocks.BLOCK), "last_step": (np.int32, 1)},
    blocks.update,
    blocks.settle,
    coded=False,
)
CODES = Kind(
    {
        "m": (np.uint8, blocks.BLOCK),
        "v": (np.uint8, blocks.BLOCK),
        "m_top": (np.float32, 1),
        "v_top": (np.float32, 1),
        "last_step": (np.int32, 1),
    },
    blocks.update_8bit,
    blocks.settle_8bit,
    coded=True,
)


class Blockwise:
    """An engine.training.optimizers.Optimizer."""

    def __init__(
        self, parameters: Parameters, kind: Kind, weight_decay: float, threads: int
    ) -> None:
        self._kind, self._parameters = kind, dict(parameters)
        self._decay = {n: weight_decay if decays(p) else 0.0 for n, p in parameters.items()}
        self._missed = {decay: Missed(BETA1, BETA2, decay) for decay in self._decay.values()}
        self._states = {name: _zeros(kind, p.numel()) for name, p in parameters.items()}
        self._step = 0
        pieces = [
            (name, first, min(first + PIECE, n))
            for name, states in self._states.items()
            for n in [len(states["last_step"])]
            for first in range(0, n, PIECE)
        ]
        self._parts = [pieces[i::threads] for i in range(threads) if i < len(pieces)]
        self._pool = ThreadPoolExecutor(threads) if len(self._parts) > 1 else None

    @property
    def n_bytes(self) -> int:
        """Memory of the states."""
        return sum(a.nbytes for states in self._states.values() for a in states.values())

    def step(self, learning_rate: float, scale: float) -> None:
        """See Optimizer."""
        self._step += 1
        gradients = {n: p.grad for n, p in self._parameters.items() if p.grad is not None}
        flat = {n: (_memory(self._parameters[n]), _flat(g)) for n, g in gradients.items()}

        def work(name: str, first: int, last: int) -> None:
            if name not in flat:
                return
            missed = self._missed[self._decay[name]]
            self._kind.update(
                first, last, *flat[name], *self._states[name].values(), missed.moves,
                missed.shrink, self._step, learning_rate, self._consts(name), np.float32(scale),
                *(self._for_codes(name) if self._kind.coded else ()),
            )  # fmt: skip

        self._share(work)
        for missed in self._missed.values():
            missed.advance(learning_rate)

    def settle(self) -> None:
        """See Optimizer."""

        def work(name: str, first: int, last: int) -> None:
            missed = self._missed[self._decay[name]]
            self._kind.settle(
                first, last, _memory(self._parameters[name]), *self._states[name].values(),
                missed.moves, missed.shrink, self._step, self._consts(name),
            )  # fmt: skip

        self._share(work)

    def state(self) -> State:
        """See Optimizer."""
        state: State = {"step": np.array([self._step])}
        for name, states in self._states.items():
            state |= {f"{name}/{key}": array for key, array in states.items()}
        for decay, missed in self._missed.items():
            state |= {f"missed/{decay!r}/{key}": a for key, a in missed.state().items()}
        return state

    def load(self, state: State) -> None:
        """See Optimizer."""
        for name, states in self._states.items():
            for key, own in states.items():
                own[:] = require_same(f"{name}/{key}", state.get(f"{name}/{key}"), own.shape)
        self._step = int(require_same("step", state.get("step"), (1,))[0])
        for decay, missed in self._missed.items():
            names = {key: f"missed/{decay!r}/{key}" for key in ("moves", "shrink")}
            shape = (self._step + 1,)
            missed.load({k: require_same(n, state.get(n), shape) for k, n in names.items()})

    def _for_codes(self, name: str) -> tuple[np.uint32, NDArray[np.float32]]:
        """Salt and scratch of blocks.update_8bit."""
        salt = np.uint32(zlib.crc32(f"{name} {self._step}".encode()))
        return salt, np.empty((2, blocks.BLOCK), np.float32)

    def _consts(self, name: str) -> tuple[float, float, float, float]:
        return (BETA1, BETA2, EPS, self._decay[name])

    def _share(self, work: Callable[[str, int, int], None]) -> None:
        """Call work for every piece, on all threads; kernels release the interpreter's lock."""

        def all_of(part: list[tuple[str, int, int]]) -> None:
            for piece in part:
                work(*piece)

        list(
            map(all_of, self._parts) if self._pool is None else self._pool.map(all_of, self._parts)
        )


def _zeros(kind: Kind, n: int) -> dict[str, NDArray[Any]]:
    n_blocks = -(-n // blocks.BLOCK)
    return {
        name: np.zeros(n if entries == blocks.BLOCK else n_blocks, dtype)
        for name, (dtype, entries) in kind.dtypes.items()
    }


def _memory(parameter: Any) -> NDArray[np.float32]:
    """(n,) float32: the parameter's own memory."""
    assert parameter.is_contiguous(), "a copy would be updated, not the parameter"
    return _flat(parameter)


def _flat(tensor: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().view(-1).numpy()
    return array
