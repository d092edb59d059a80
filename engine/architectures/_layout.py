"""How a checkpoint stores what the decoder has as matrices by rows of outputs."""

from __future__ import annotations

from typing import NamedTuple


class Layout(NamedTuple):
    """Of an architecture's Hugging Face checkpoints; LAYOUT in its file, where it is not this one.

    by_head         q, k and v in one tensor lie head by head: q, k and v of the first, of the
                    second … instead of all of q, then all of k, then all of v
    transposed      matrices of layers are (n_in, n_out)
    norm_offset     what the weights of norms are stored without
    interleaved     rows of wq and wk stand so that the rotation pairs neighbours
    first_position  the row of the position embedding that position 0 has
    """

    by_head: bool = False
    transposed: bool = False
    norm_offset: float = 0.0
    interleaved: bool = False
    first_position: int = 0
