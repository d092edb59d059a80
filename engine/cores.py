"""How many threads to compute with: the cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_THREADS = 256

_PROCESS = Path("/proc/self")


def default_threads() -> int:
    """The cores of this process, by affinity and by the quotas of its control groups."""
    if hasattr(os, "sched_getaffinity"):
        n = len(os.sched_getaffinity(0))
    else:
        n = os.cpu_count() or 1
    return max(1, math.ceil(min([n, MAX_THREADS, *quotas(_PROCESS)])))


def quotas(process: Path) -> list[float]:
    """Cores that each Linux control group around a process allows; empty without a limit.

    process  its folder in /proc
    """
    try:
        groups = (process / "cgroup").read_text("utf-8").splitlines()
        mounts = (process / "mountinfo").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = (_quota(folder) for group in groups for folder in _folders(group, mounts))
    return [quota for quota in found if quota is not None]


def _folders(group: str, mounts: list[str]) -> Iterator[Path]:
    """The folder of one line of /proc/self/cgroup and those of the groups around it.

    group  "0::/a/b" in version 2, "4:cpu,cpuacct:/a/b" in version 1
    """
    number, _, rest = group.partition(":")
    controllers, _, path = rest.partition(":")
    kind = "cgroup2" if number == "0" else "cgroup"
    if kind == "cgroup" and "cpu" not in controllers.split(","):
        return
    for mount in mounts:
        where, _, what = mount.partition(" - ")
        fields, type_, options = where.split(), *what.partition(" ")[::2]
        if type_ != kind or len(fields) < 5:
            continue
        if kind == "cgroup" and "cpu" not in options.split()[-1].split(","):
            continue
        # a container may see only its own part of the tree, mounted under another name
        root, inside = PurePosixPath(fields[3]), PurePosixPath(path)
        below = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath()
        yield Path(fields[4])
        for n in range(1, len(below.parts) + 1):
            yield Path(fields[4], *below.parts[:n])


def _quota(folder: Path) -> float | None:
    """Cores that a group allows, None where it does not limit them."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text("ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
            period = (folder / "cpu.cfs_period_us").read_text("ascii")
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max" is no number
    return cores if cores > 0 else None  # -1: no limit
