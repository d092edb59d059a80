"""What LLVM says of CPUs, also of those that are not here: nothing is run on them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

from engine.kernels import cpu
from engine.kernels.cpu import Cpu

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
KNOWN = {  # triple, name, features -> instruction set, fma, float16
    (X86, "nocona", ""): ("sse2", False, False),
    (X86, "generic", ""): ("sse2", False, False),
    (X86, "goldmont", ""): ("ssse3", False, False),
    (X86, "sandybridge", ""): ("ssse3", False, False),
    (X86, "ivybridge", ""): ("ssse3", False, True),
    (X86, "haswell", ""): ("avx2", True, True),
    (X86, "haswell", "-avx2"): ("ssse3", True, True),
    (X86, "haswell", "+avxvnni"): ("avxvnni", True, True),
    (X86, "znver3", ""): ("avx2", True, True),
    (X86, "skylake-avx512", ""): ("avx512bw", True, True),
    (X86, "cascadelake", ""): ("avx512vnni", True, True),
    (X86, "cascadelake", "-avx512vnni"): ("avx512bw", True, True),
    (X86, "sapphirerapids", ""): ("avx512vnni", True, True),
    (X86, "znver4", ""): ("avx512vnni", True, True),
    (X86, "alderlake", ""): ("avxvnni", True, True),
    ("x86_64-pc-windows-msvc", "alderlake", ""): ("avxvnni", True, True),
    ("x86_64-apple-darwin", "haswell", ""): ("avx2", True, True),
    (ARM, "cortex-a72", ""): ("generic", True, True),
    (ARM, "generic", "+sve"): ("generic", True, True),
    (ARM, "neoverse-n1", ""): ("neon-dotprod", True, True),
    (ARM, "neoverse-v1", ""): ("neon-i8mm", True, True),
    ("arm64-apple-darwin", "apple-m1", ""): ("neon-dotprod", True, True),
    ("arm64-apple-darwin", "apple-m2", ""): ("neon-i8mm", True, True),
    ("riscv64-unknown-linux-gnu", "generic-rv64", ""): ("generic", False, False),
}


@pytest.fixture(scope="module", autouse=True)
def _all_targets() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


@pytest.mark.parametrize("asked", KNOWN, ids=lambda asked: "-".join(filter(None, asked)))
def test_a_cpu_is_known_by_its_name_and_its_features(asked: tuple[str, str, str]) -> None:
    try:
        binding.Target.from_triple(asked[0])
    except RuntimeError:
        pytest.skip("this LLVM was built without it")
    assert cpu.examine(*asked) == Cpu(*KNOWN[asked])


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 names")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, "avx2"),
        ({"NUMBA_CPU_NAME": "alderlake", "NUMBA_CPU_FEATURES": ""}, "avxvnni"),
        ({"NUMBA_CPU_NAME": "nocona", "NUMBA_CPU_FEATURES": "+ssse3"}, "ssse3"),
        ({"NUMBA_CPU_NAME": "generic"}, "sse2"),
    ],
)
def test_numbas_own_variables_choose(variables: dict[str, str], expected: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from engine.kernels import cpu; print(cpu.instructions())"],
        env=os.environ | variables, cwd=Path(__file__).parents[3], capture_output=True, text=True,
    )  # fmt: skip
    assert (run.stdout.strip(), run.returncode) == (expected, 0), run.stderr


def test_this_cpu_has_a_name() -> None:
    assert cpu.instructions() in cpu.INSTRUCTIONS
    assert cpu.cpu() is cpu.cpu()
