"""What the CPU that Numba compiles for can do, asked of LLVM itself.

LLVM aborts the process when it is told to use an instruction that the CPU lacks. Lists of features
do not say what it has: NUMBA_CPU_NAME, NUMBA_CPU_FEATURES and NUMBA_ENABLE_AVX change them, a name
stands for a list of its own, and one feature brings others with it. So a little plain code, which
compiles for every CPU, is compiled for the same target, and what LLVM made of it tells.

NUMBA_CPU_NAME alone keeps the features of this machine, as it does in Numba; with an empty
NUMBA_CPU_FEATURES beside it, the name's own count: NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from llvmlite import binding
from numba.core.registry import cpu_target

# The sum of products of bytes, the size of bytes, a * b + c, and float16 to float32
_PROBE = """
define i32 @mixed(<64 x i8> %a, <64 x i8> %b) {
  %x = zext <64 x i8> %a to <64 x i32>
  %y = sext <64 x i8> %b to <64 x i32>
  %xy = mul <64 x i32> %x, %y
  %sum = call i32 @llvm.vector.reduce.add.v64i32(<64 x i32> %xy)
  ret i32 %sum
}
define i32 @signed(<64 x i8> %a, <64 x i8> %b) {
  %x = sext <64 x i8> %a to <64 x i32>
  %y = sext <64 x i8> %b to <64 x i32>
  %xy = mul <64 x i32> %x, %y
  %sum = call i32 @llvm.vector.reduce.add.v64i32(<64 x i32> %xy)
  ret i32 %sum
}
define <64 x i8> @size(<64 x i8> %a) {
  %x = call <64 x i8> @llvm.abs.v64i8(<64 x i8> %a, i1 false)
  ret <64 x i8> %x
}
define <16 x float> @fma(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %x = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %x
}
define <16 x float> @widen(<16 x half> %a) {
  %x = fpext <16 x half> %a to <16 x float>
  ret <16 x float> %x
}
declare i32 @llvm.vector.reduce.add.v64i32(<64 x i32>)
declare <64 x i8> @llvm.abs.v64i8(<64 x i8>, i1)
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""

# name -> its mark in the assembly, the best first; a mark that LLVM ceases to make costs speed only
_SETS = {
    "avx512vnni": r"vpdpbusd\s.*%zmm",
    "avxvnni": r"vpdpbusd\s.*%ymm",
    "avx512bw": r"vpabsb\s.*%zmm",
    "avx2": r"vpabsb\s.*%ymm",
    "ssse3": r"pabsb\s.*%xmm",
    "sse2": r"pmaddwd\s.*%xmm",  # every x86-64
    # not the forms of SVE, on z registers; Apple writes sdot.4s
    "neon-i8mm": r"\busdot(\.4s)?\s+v\d",
    "neon-dotprod": r"\bsdot(\.4s)?\s+v\d",
}
_FMA = r"fmadd|\bfmla\b|xvmadd"
_FLOAT16 = r"vcvtph2ps|\bfcvtl\b"

GENERIC = "generic"
INSTRUCTIONS = (*_SETS, GENERIC)


@dataclass(frozen=True)
class Cpu:
    """What a CPU has: the name of its best instructions for products of bytes, and two more."""

    instructions: str  # one of INSTRUCTIONS
    fma: bool  # a * b + c, rounded once, on float32
    float16: bool  # conversion from float16 and to it; without it LLVM calls a C function


def examine(triple: str, name: str, features: str) -> Cpu:
    """What LLVM knows of a CPU, by its name and its list of features ("+avx2,-fma", or none)."""
    target = binding.Target.from_triple(triple)
    module = binding.parse_assembly(_PROBE)
    module.triple = triple
    text = target.create_target_machine(cpu=name, features=features).emit_assembly(module)
    found = (name for name, mark in _SETS.items() if re.search(mark, text))
    return Cpu(
        instructions=next(found, GENERIC),
        fma=re.search(_FMA, text) is not None,
        float16=re.search(_FLOAT16, text) is not None,
    )


@lru_cache(maxsize=1)
def cpu() -> Cpu:
    """The CPU that Numba compiles for in this process; takes some milliseconds, once."""
    # what Numba, too, keys its cache with: compiled kernels are never loaded on another CPU
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return examine(triple, name, features)


def instructions() -> str:
    """The instruction set that weight kernels are compiled for, one of INSTRUCTIONS."""
    return cpu().instructions
