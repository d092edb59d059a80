"""What a block of weights missed while its gradient was zero, as a few numbers.

AdamW moves a weight also in steps whose gradient is zero: the mean of past gradients fades by beta1
a step, and goes on to push. Dense AdamW pays for that with a pass over all weights at every step;
here a block (256 weights of an embedding or a head) that a step does not touch costs nothing, and
is caught up when it is touched again, or at `settle`. With m and v as the last touching step `last`
left them, the missed steps j = last + 1 … t move a weight by

    -m / (sqrt(v) + eps / q) · Σ_j rate_j · beta1^(j-last) / c1_j / q_j · Π_i>j (1 - rate_i · decay)

with c1_j = 1 - beta1^j and q_j = sqrt(beta2^(j-last) / (1 - beta2^j)), the bias corrections of the
steps as they were. The sum is one number per `last`: `moves[last]`. It is what dense AdamW does, up
to q beside eps being that of the first missed step: gradients above 1e-5 do not notice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FADED = 400  # steps after which beta1^n = 5e-19 moves nothing


class Missed:
    """Kept up to date by one `advance` a step.

    moves   (step + 1,) float64: the sum above for each last touching step; moves[step] is 0
    shrink  (step + 1,) float64: what weight decay left of a weight since step 0
    """

    def __init__(self, beta1: float, beta2: float, weight_decay: float) -> None:
        self._beta1, self._beta2, self._weight_decay = beta1, beta2, weight_decay
        self.moves = np.zeros(1)
        self.shrink = np.ones(1)

    @property
    def step(self) -> int:
        """How many steps there were."""
        return len(self.moves) - 1

    def advance(self, learning_rate: float) -> None:
        """Another step, at this rate."""
        step = self.step + 1
        kept = 1 - learning_rate * self._weight_decay
        if kept != 1:
            self.moves *= kept
        first = max(0, step - FADED)
        n = step - np.arange(first, step)  # steps since each last one
        q = np.sqrt(self._beta2**n / (1 - self._beta2**step))
        self.moves[first:] += learning_rate * self._beta1**n / (1 - self._beta1**step) / q
        self.moves = np.append(self.moves, 0.0)
        self.shrink = np.append(self.shrink, self.shrink[-1] * kept)

    def state(self) -> dict[str, NDArray[np.float64]]:
        """For a checkpoint."""
        return {"moves": self.moves, "shrink": self.shrink}

    def load(self, state: dict[str, NDArray[np.float64]]) -> None:
        """What state() gave."""
        self.moves, self.shrink = state["moves"].copy(), state["shrink"].copy()
