"""What a figure was measured on: the processor, the versions, the memory's speed, who else ran.

Only the standard library at import: peers load this file in their own environments too.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks import bandwidth
from benchmarks.bandwidth import Bandwidth

ROOT = Path(__file__).parents[1]
DISTURBED_PERCENT = 10  # of a core: with more foreign CPU a figure is not to be quoted
_OTHER_L3 = 64 << 20  # assumed where the system does not tell: larger than most
_LARGE = 1 << 30


class Load(NamedTuple):
    """What else used the processor, in percent of one core; None elsewhere than on Linux."""

    foreign_percent: float | None
    steal_percent: float | None


class Background:
    """Watches the machine during a `with` block; `load` is there after it.

    foreign = all CPU time of the machine but this process's and its finished children's; steal =
    what the hypervisor gave to other machines.
    """

    def __enter__(self) -> Background:
        self._before = _clocks()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.load = load_between(self._before, _clocks())


class Clocks(NamedTuple):
    """Seconds on four clocks; busy and steal are sums over all cores, None off Linux."""

    wall: float
    own: float
    busy: float | None
    steal: float | None


def load_between(before: Clocks, after: Clocks) -> Load:
    """The load of the time between two readings."""
    wall = after.wall - before.wall
    if None in (before.busy, after.busy) or wall <= 0:
        return Load(None, None)
    assert before.busy is not None and after.busy is not None
    assert before.steal is not None and after.steal is not None
    foreign = (after.busy - before.busy) - (after.own - before.own)
    # the system counts in ticks of 10 ms and may credit us less than our own clock says
    return Load(
        round(max(0.0, 100 * foreign / wall), 1),
        round(100 * (after.steal - before.steal) / wall, 1),
    )


def busy_and_steal(stat: str, ticks_per_s: int) -> tuple[float, float]:
    """Seconds of CPU time and of steal from the text of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return (user + nice + system + irq + softirq) / ticks_per_s, steal / ticks_per_s


def _clocks() -> Clocks:
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    try:
        with open("/proc/stat", encoding="ascii") as file:
            busy, steal = busy_and_steal(file.readline(), os.sysconf("SC_CLK_TCK"))
    except OSError:
        return Clocks(time.perf_counter(), own, None, None)
    return Clocks(time.perf_counter(), own, busy, steal)


def memory() -> dict[str, int] | None:
    """Bytes of this process in memory: of its own (anon), mapped files, and the most of both ever.

    None elsewhere than on Linux. A page of a mapped file counts once it was touched.
    """
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    named = dict(line.split(":", 1) for line in lines)
    keys = {"anon": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    if not named.keys() >= set(keys.values()):
        return None
    return {name: int(named[key].split()[0]) << 10 for name, key in keys.items()}


def describe(
    bandwidths: Iterable[Bandwidth] = (), variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The machine as one JSON object.

    variables  environment variables of our processes, for the instructions that they use
    read       the median of `bandwidths` for each size and number of threads, and their range
    read_gb_s  the one of the size that was measured first (the model's) on the most threads
    """
    import numba
    import numpy as np

    bandwidths = list(bandwidths)
    read = bandwidth.typical(bandwidths)
    model = [b for b in read if b.n_bytes == read[0].n_bytes]
    most = max(model, key=lambda b: b.threads, default=None)
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "cpu_features": _features(),
        "instructions": _instructions(variables or {}),
        "l3_mb": round(l3_bytes() / 2**20, 1) if _l3_file() else None,
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "read_gb_s": most and round(most.gb_s, 1),
        "read": [
            b._replace(gb_s=round(b.gb_s, 1))._asdict() | bandwidth.spread(b, bandwidths)
            for b in read
        ],
    }


def cpu_name() -> str:
    """The processor's name for people."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith(("model name", "Model\t")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit() -> str | None:
    """The commit that is checked out, "-dirty" behind it when files differ; None without git."""
    head = _output(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    if not head:
        return None
    # results of another benchmark of the same run change nothing
    changed = _output(
        ["git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!benchmarks/results"]
    )
    return f"{head}-dirty" if changed else head


def _output(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    env = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _features() -> list[str]:
    """Those of the instruction sets that decide the speed of dot products."""
    from llvmlite import binding

    names = ("avx2", "avxvnni", "avx512f", "avx512vnni", "avx512bf16", "amx-int8", "neon",
             "dotprod", "i8mm")  # fmt: skip
    found = binding.get_host_cpu_features()
    return [name for name in names if found.get(name)]


def _instructions(variables: Mapping[str, str]) -> str | None:
    """The set that our weight kernels are compiled for; asked in a process with these variables."""
    code = "from engine.kernels.cpu import instructions; print(instructions())"
    return _output([sys.executable, "-c", code], {**variables, "PYTHONPATH": str(ROOT)}) or None


def _l3_file() -> Path | None:
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    for level in folder.glob("index*/level"):
        if level.read_text("ascii").strip() == "3":
            return level.with_name("size")
    return None


def l3_bytes() -> int:
    """Size of the last-level cache, or a guess that is rather too large."""
    file = _l3_file()
    if file is None:
        return _OTHER_L3
    text = file.read_text("ascii").strip()
    return int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def large_bytes() -> int:
    """The size of an array that no cache holds."""
    return max(_LARGE, 4 * l3_bytes())
