"""How many cores a process may use: affinity, and the quotas of Linux control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import cores
from engine.cores import MAX_THREADS, default_threads, quotas


class Machine:
    """A process and its control groups, as Linux shows them, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.process = folder
        self._groups: list[str] = []
        self._mounts: list[str] = []

    def mount(self, name: str, kind: str, options: str, root: str = "/") -> Path:
        """A tree of groups of which the process sees those below `root`."""
        place = self.folder / name
        place.mkdir()
        self._mounts.append(
            f"30 24 0:26 {root} {place} rw,nosuid shared:9 - {kind} {kind} {options}"
        )
        (self.process / "mountinfo").write_text("\n".join(self._mounts))
        return place

    def join(self, group: str) -> None:
        """Make the process a member: a line of /proc/self/cgroup."""
        self._groups.append(group)
        (self.process / "cgroup").write_text("\n".join(self._groups))


def limit(folder: Path, quota: str, period: str = "100000", version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} {period}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_default_follows_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert default_threads() == 1


@pytest.mark.parametrize(
    ("quota", "n"), [("150000", 2), ("100000", 1), ("20000", 1), ("1000000", 4)]
)
def test_the_default_is_what_the_quota_allows_rounded_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, quota: str, n: int
) -> None:
    limit(machine.mount("tree", "cgroup2", "rw"), quota)
    machine.join("0::/")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(cores, "_PROCESS", machine.process)
    assert default_threads() == n


def test_the_default_stays_within_what_a_team_takes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)), raising=False)
    monkeypatch.setattr(cores, "_PROCESS", machine.process)
    assert default_threads() == MAX_THREADS


def test_every_group_around_the_process_limits_it(machine: Machine) -> None:
    tree = machine.mount("tree", "cgroup2", "rw,nsdelegate")
    limit(tree / "user.slice", "300000")
    limit(tree / "user.slice" / "shell", "50000")
    limit(tree / "user.slice" / "shell" / "job", "max")
    limit(tree / "user.slice" / "another", "1000")
    machine.join("0::/user.slice/shell/job")
    assert quotas(machine.process) == [3.0, 0.5]


def test_version_1_is_read_from_the_cpu_controller_only(machine: Machine) -> None:
    limit(machine.mount("memory", "cgroup", "rw,memory") / "a", "1000", version=1)
    tree = machine.mount("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    limit(tree, "-1", version=1)
    limit(tree / "a", "250000", version=1)
    for group in ("5:memory:/a", "4:cpuset:/a", "3:cpu,cpuacct:/a/b", "1:name=systemd:/", "0::/"):
        machine.join(group)
    assert quotas(machine.process) == [2.5]


def test_a_container_sees_its_own_part_of_the_tree(machine: Machine) -> None:
    """Without a namespace of its own it is told the host's path, which is nowhere inside."""
    tree = machine.mount("cpu", "cgroup", "rw,cpu", root="/docker/0123")
    limit(tree, "200000", version=1)
    limit(tree / "part", "100000", version=1)
    machine.join("3:cpu:/docker/0123/part")
    assert quotas(machine.process) == [2.0, 1.0]


def test_a_group_outside_of_the_mounted_part_leaves_the_limit_of_the_part(
    machine: Machine,
) -> None:
    limit(machine.mount("tree", "cgroup2", "rw", root="/docker/0123"), "200000")
    machine.join("0::/../elsewhere")
    assert quotas(machine.process) == [2.0]


@pytest.mark.parametrize("text", ["max 100000", "", "one two", "100000", "100000 0", "\xff 1"])
def test_what_is_no_limit_or_makes_no_sense_limits_nothing(machine: Machine, text: str) -> None:
    tree = machine.mount("tree", "cgroup2", "rw")
    (tree / "cpu.max").write_text(text, "latin-1")
    machine.join("0::/")
    assert quotas(machine.process) == []


def test_a_system_without_control_groups_has_no_quotas(tmp_path: Path) -> None:
    assert quotas(tmp_path) == []
    (tmp_path / "cgroup").write_text("nonsense\n\n0::/\n")
    (tmp_path / "mountinfo").write_text("nonsense\n\n1 2 - cgroup2\n- -\n")
    assert quotas(tmp_path) == []
