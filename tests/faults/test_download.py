"""What can go wrong while bytes come in: the line, the disk, the bytes themselves."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data import download
from data.download import DownloadError, WrongHashError, fetch
from data.files import DiskFullError
from tests.data.file_server import FileServer, serving

CONTENT = os.urandom(1 << 20) * 5
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_PAUSE_S", 0.0)
    with serving(FileServer(CONTENT)) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "model.whl.part"


def test_a_line_that_breaks_is_picked_up_where_it_broke(server: FileServer, part: Path) -> None:
    server.breaks_after = [300_000, 100, 0]
    fetch(server.url, part, SHA256)
    assert part.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=300100-", "bytes=300100-"]


def test_a_line_that_always_breaks_gives_up_keeps_the_bytes_and_says_so(
    server: FileServer, part: Path
) -> None:
    server.breaks_after = [300_000] + [0] * 20
    with pytest.raises(
        DownloadError, match=r"0\.3 MB are kept; the same command tries again"
    ) as caught:
        fetch(server.url, part, SHA256)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == download.ATTEMPTS
    assert part.read_bytes() == CONTENT[:300_000]
    server.breaks_after = []
    fetch(server.url, part, SHA256)
    assert part.read_bytes() == CONTENT


def test_a_line_may_break_often_as_long_as_it_gets_on(server: FileServer, part: Path) -> None:
    server.breaks_after = [1 << 19] * 9
    fetch(server.url, part, SHA256)
    assert part.read_bytes() == CONTENT
    assert len(server.requests) == 10


def test_a_server_that_breaks_and_knows_no_ranges_does_not_loop_for_ever(
    server: FileServer, part: Path
) -> None:
    server.ranges = False
    server.breaks_after = [2 << 20] * 100
    with pytest.raises(DownloadError, match="the connection broke"):
        fetch(server.url, part, SHA256)
    assert len(server.requests) <= 2 * download.ATTEMPTS


def test_a_file_that_changes_between_two_attempts_is_not_stitched_together(
    server: FileServer, part: Path
) -> None:
    server.breaks_after = [300_000]
    seen = []

    def on_progress(stage: str, done: int, total: int | None) -> None:
        if done >= 300_000 and not seen:
            seen.append(done)
            server.content, server.etag = CONTENT[::-1], '"two"'

    fetch(server.url, part, hashlib.sha256(CONTENT[::-1]).hexdigest(), on_progress=on_progress)
    assert seen
    assert part.read_bytes() == CONTENT[::-1]


def test_wrong_bytes_are_deleted_and_both_hashes_named(server: FileServer, part: Path) -> None:
    with pytest.raises(WrongHashError) as caught:
        fetch(server.url, part, "0" * 64)
    message = str(caught.value)
    assert "\n" not in message
    assert SHA256 in message and "0" * 64 in message and "Try once more" in message
    assert list(part.parent.iterdir()) == []


def test_a_part_that_was_damaged_on_the_disk_is_found_out_and_deleted(
    server: FileServer, part: Path
) -> None:
    server.breaks_after = [300_000] + [0] * 20
    with pytest.raises(DownloadError):
        fetch(server.url, part, SHA256)
    part.write_bytes(b"\0" * 300_000)  # what some file systems leave after a power cut
    server.breaks_after = []
    with pytest.raises(WrongHashError):
        fetch(server.url, part, SHA256)
    assert list(part.parent.iterdir()) == []
    fetch(server.url, part, SHA256)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_overloaded_server_is_asked_again(server: FileServer, part: Path, status: int) -> None:
    server.statuses = [status] * 2
    fetch(server.url, part, SHA256)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "Not Found"), (401, "PIP_FIND_LINKS"), (403, "PIP_FIND_LINKS")]
)
def test_a_refusal_is_final_and_one_line(
    server: FileServer, part: Path, status: int, hint: str
) -> None:
    server.statuses = [status] * 5
    with pytest.raises(DownloadError, match=f"{status} .*{hint}|{status} {hint}") as caught:
        fetch(server.url, part, SHA256)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_an_unknown_host_fails_at_once(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_such_host(*args: Any, **options: Any) -> Any:
        asked.append(args)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"index\.invalid cannot be reached"):
        fetch("http://index.invalid/model.whl", part, SHA256)
    assert len(asked) == 1


def test_nobody_listening_is_said_after_a_few_attempts(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRY_PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(DownloadError, match=r"no connection .*refused"):
            fetch(f"http://127.0.0.1:{port}/model.whl", part, SHA256)


class FullDisk:
    """A file that takes `room` bytes and then fails as a full disk does."""

    def __init__(self, file: Any, room: int, number: int = errno.ENOSPC) -> None:
        self.file, self.room, self.number = file, room, number

    def write(self, block: bytes) -> int:
        if self.file.tell() + len(block) > self.room:
            raise OSError(self.number, os.strerror(self.number))
        return int(self.file.write(block))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def fill_disk(monkeypatch: pytest.MonkeyPatch, suffix: str, room: int) -> None:
    """Files that end in `suffix` and are written in binary mode meet a full disk."""
    really_open = Path.open

    def open_(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = really_open(path, mode, *args, **options)
        full = path.name.endswith(suffix) and "b" in mode and ("w" in mode or "+" in mode)
        return FullDisk(file, room) if full else file

    monkeypatch.setattr(Path, "open", open_)


def test_a_disk_that_fills_up_half_way_leaves_nothing_and_names_the_bytes(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, ".part", 1_000_000)
    with pytest.raises(DiskFullError, match=r"more bytes .*SPARSECHAT_HOME") as caught:
        fetch(server.url, part, SHA256, bytes_after=1000)
    missing = int(re.findall(r"([\d,]+) more bytes", str(caught.value))[0].replace(",", ""))
    assert len(CONTENT) - 1_000_000 + 1000 <= missing <= len(CONTENT) + 1000
    assert "\n" not in str(caught.value)
    assert list(part.parent.iterdir()) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_too_full_from_the_start_is_left_untouched(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 0, 10**6))
    missing = len(CONTENT) + 500 - 10**6
    with pytest.raises(DiskFullError, match=f"{missing:,} more bytes"):
        fetch(server.url, part, SHA256, bytes_after=500)
    assert list(part.parent.iterdir()) == []


def test_a_part_survives_when_the_rest_would_not_fit(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.breaks_after = [300_000] + [0] * 20
    with pytest.raises(DownloadError):
        fetch(server.url, part, SHA256)
    server.breaks_after = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 0, 10**6))
    with pytest.raises(DiskFullError, match=f"{len(CONTENT) - 300_000 - 10**6:,} more bytes"):
        fetch(server.url, part, SHA256)
    assert part.read_bytes() == CONTENT[:300_000]


def test_an_interruption_keeps_the_part_for_the_next_attempt(
    server: FileServer, part: Path
) -> None:
    def interrupt(stage: str, done: int, total: int | None) -> None:
        if done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, part, SHA256, on_progress=interrupt)
    kept = part.stat().st_size
    assert 1_000_000 < kept < len(CONTENT)
    fetch(server.url, part, SHA256)
    assert server.requests == [None, f"bytes={kept}-"]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("range_header", ["bytes 5-9/10", "bytes */10", "nonsense", ""])
def test_a_range_nobody_asked_for_is_not_written_into_the_file(
    server: FileServer, part: Path, range_header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.breaks_after = [1000] + [0] * 20
    with pytest.raises(DownloadError):
        fetch(server.url, part, SHA256)
    server.breaks_after = []
    really = download._understand

    def misled(response: Any) -> Any:
        if response.status == 206:
            del response.headers["Content-Range"]
            response.headers["Content-Range"] = range_header
        return really(response)

    monkeypatch.setattr(download, "_understand", misled)
    try:
        fetch(server.url, part, SHA256)
    except DownloadError:
        assert part.read_bytes() == CONTENT[:1000]
    else:
        assert part.read_bytes() == CONTENT
