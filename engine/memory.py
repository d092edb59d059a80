"""How much memory this process uses, and how much more it may take."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_PROC = Path("/proc")
# version 2 and version 1 of Linux control groups: (limit, used, what of it could be dropped)
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def used_bytes() -> int:
    """Of this process, resident; where that is unknown, its highest so far; 0 on Windows."""
    found = _kilobytes(_PROC / "self" / "status", "VmRSS")
    return found if found is not None else peak_bytes()


def available_bytes() -> int | None:
    """What new memory can be had without swapping; None where that is unknown."""
    found = _kilobytes(_PROC / "meminfo", "MemAvailable")
    left = [found] if found is not None else []
    for folder, limit, used, droppable in _GROUPS:
        try:
            most = int((Path(folder) / limit).read_text())
            now = int((Path(folder) / used).read_text())
            match = re.search(
                rf"^{droppable} (\d+)", (Path(folder) / "memory.stat").read_text(), re.M
            )
        except (OSError, ValueError):
            continue  # no such group, or "max"
        left.append(max(0, most - now + (int(match[1]) if match else 0)))
    return min(left, default=None)


def _kilobytes(path: Path, key: str) -> int | None:
    try:
        match = re.search(rf"^{key}:\s+(\d+) kB", path.read_text(), re.M)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def peak_bytes() -> int:
    """The most that this process had so far; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
