"""The fast path: a layer with Llama's flags, whose parts between products are kernels.

The residual stream is float32. What a sublayer adds to it waits until the next norm, which adds it
in the same pass; activations in between have the dtype of the base. What a norm or swiglu makes can
be made again in backward: a third less to keep, for a twenty-fifth of a step's time.
Letters: T tokens, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from engine.config import DecoderConfig
from engine.training.ops.attention import Documents, Heads, attend
from engine.training.ops.norm import add_rms_norm, rms_norm
from engine.training.ops.swiglu import swiglu
from engine.training.projection import Again, Projection

Tensor = Any


class Stream(NamedTuple):
    """x (T, E) float32, and what is still to be added to it: y (T, E) or None."""

    x: Tensor
    y: Tensor | None = None

    def total(self) -> Tensor:
        """x + y, float32."""
        return self.x if self.y is None else self.x + self.y


def heads_of(config: DecoderConfig) -> Heads:
    """What attention needs of the config."""
    scale = config.attention_scale or config.head_dim**-0.5
    n_heads, n_kv, d = config.n_heads, config.n_kv_heads, config.head_dim
    return Heads(n_heads, n_kv, d, config.rotary_dim, config.rope.interleaved, scale)


@dataclass(slots=True, eq=False)
class LlamaLayer:
    """projections by the names of layers.GROUPS; vectors by canonical names.

    middle  what stands between `up` and `down`
    """

    config: DecoderConfig
    projections: Mapping[str, Projection]
    vectors: Mapping[str, Tensor]
    width: Any  # of activations: torch's dtype
    middle: Callable[[Tensor], Tensor] = swiglu

    def __call__(
        self, x: Tensor, y: Tensor | None, documents: Documents, training: bool
    ) -> tuple[Tensor, Tensor]:
        """A stream (x, y) to the next."""
        projections, middle = self.projections, self.middle
        x, normed, again = self._norm(x, y, "attention_norm")
        qkv = projections["qkv"](normed, training, again)
        y = projections["out"](attend(qkv, heads_of(self.config), documents), training)
        x, normed, again = self._norm(x, y, "ffn_norm")
        up = projections["up"](normed, training, again)
        activated = Again(middle, (up,)) if middle is swiglu else None
        return x, projections["down"](middle(up), training, activated)

    def _norm(self, x: Tensor, y: Tensor | None, name: str) -> tuple[Tensor, Tensor, Again]:
        weight, eps = self.vectors[name], self.config.norm_eps
        if y is None:
            normed = rms_norm(x, weight, eps, self.width)
        else:
            x, normed = add_rms_norm(x, y.to(self.width), weight, eps)
        return x, normed, Again(partial(rms_norm, eps=eps, width=self.width), (x, weight))
