"""What the CPU that Numba compiles for can do."""

from __future__ import annotations

from functools import lru_cache

from llvmlite import binding
from numba import config


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """LLVM's names of the features that code is generated for.

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES narrow them, as they do for Numba itself.
    """
    if config.CPU_FEATURES is not None:
        listed = config.CPU_FEATURES.split(",")
        return frozenset(name[1:] for name in listed if name.startswith("+"))
    if config.CPU_NAME not in (None, "", "host", binding.get_host_cpu_name()):
        return frozenset()  # a named CPU without a feature list: take nothing for granted
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def has_vnni() -> bool:
    """AVX-512 VNNI: dot products of bytes in one instruction."""
    return {"avx512vnni", "avx512f", "avx512bw"} <= features()
