"""The engine compiled for lesser CPUs than this one: it starts, and computes the same.

LLVM aborts the process when it is asked for an instruction that the CPU lacks, so each CPU has a
process of its own.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from engine.kernels import cpu
from tests.engine.decoders import small_config, small_decoder
from tests.engine.kernels.instruction_sets import runnable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 names"),
]
IDS = [5, 17, 2, 96, 41, 8, 8, 60, 33]
FORMATS = ("q4", "q4_0", "q8", "f16")

_MODEL = """
import sys
import numpy as np
from engine.kernels import cpu
from tests.engine.test_other_cpus import FORMATS, logits
np.savez(sys.argv[1], **{name: logits(name) for name in FORMATS})
print(cpu.instructions())
"""


def logits(format_name: str) -> NDArray[np.float32]:
    """Of IDS at once, then the last ones one by one: (9 + 4, vocab_size)."""
    decoder = small_decoder(small_config(), format_name)
    rows = [decoder.extend(decoder.new_cache(), IDS, all_logits=True).copy()]
    cache = decoder.new_cache()
    decoder.extend(cache, IDS[:-4])
    rows += [decoder.extend(cache, [token_id]).copy() for token_id in IDS[-4:]]
    return np.concatenate(rows)


def run_as(name: str, folder: Path, code: str, *arguments: str) -> str:
    """The output of Python code that is compiled for a CPU."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(folder / "cache"),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def skip_unless_runnable(instructions: str) -> None:
    here = cpu.cpu()
    if instructions not in runnable() or not (here.fma and here.float16):
        pytest.skip(f"this CPU cannot run {instructions}")
    if instructions == cpu.instructions():
        pytest.skip(f"this CPU runs {instructions} itself")


@pytest.mark.parametrize(("name", "instructions"), [("nocona", "sse2"), ("haswell", "avx2")])
def test_a_model_computes_the_same_on_another_cpu(
    tmp_path: Path, name: str, instructions: str
) -> None:
    skip_unless_runnable(instructions)
    file = tmp_path / "logits.npz"
    assert run_as(name, tmp_path, _MODEL, str(file)) == instructions
    with np.load(file) as there:
        for format_name in FORMATS:
            at_once, one_by_one = there[format_name][: len(IDS)], there[format_name][len(IDS) :]
            assert_array_equal(one_by_one, at_once[-4:])
            # activations are rounded to 15 bits, and sums are rounded where there is no fma
            here = logits(format_name)
            assert_allclose(there[format_name], here, atol=2e-3 * np.abs(here).max())
