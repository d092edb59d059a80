"""Which instruction sets this machine can run, so that each is tested wherever it can be."""

from __future__ import annotations

from engine.kernels import cpu

_X86 = ("avx512vnni", "avxvnni", "avx512bw", "avx2", "ssse3", "sse2")
_ARM = ("neon-i8mm", "neon-dotprod")


def runnable() -> list[str]:
    """Those that kernels can be compiled for in this process, and run."""
    here = cpu.instructions()
    for family in (_X86, _ARM):
        if here in family:
            below = family[family.index(here) :]
            # the 256-bit form of AVX-512's instruction is AVX-VNNI's; AVX-VNNI has no 512 bits
            return [n for n in below if here != "avxvnni" or n != "avx512bw"] + [cpu.GENERIC]
    return [cpu.GENERIC]
