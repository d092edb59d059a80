"""What the flags of every kernel promise."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from engine.kernels.compiler import kernel


@pytest.mark.parametrize(("decorator", "counts"), [(kernel, False), (numba.njit, True)])
def test_kernels_do_not_count_the_owners_of_arrays(decorator: object, counts: bool) -> None:
    """Which Numba does by itself."""

    def one_of(pair, n):  # type: ignore[no-untyped-def]
        chosen = pair[0]
        for _ in range(n):
            chosen = pair[1]
        return chosen[0]

    compiled = decorator(one_of)  # type: ignore[operator]
    assert compiled((np.ones(2), np.full(2, 3.0)), 1) == 3
    code = "".join(compiled.inspect_llvm().values())
    assert ("@NRT_incref" in code) == counts
