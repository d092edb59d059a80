from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from data import hub
from data.catalogue import HubSource
from data.download import DownloadError, WrongHashError
from data.files import DiskFullError
from data.hub import HubFile, Listing

REPOSITORY = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LLAMA = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
SOURCE = HubSource("org/name")


def ignore(stage: str, done: int, total: int | None) -> None:
    """A progress callback."""


def test_a_directory_is_what_the_decoder_reads_and_only_from_the_root() -> None:
    names = [*LLAMA, "model.safetensors", "README.md", "onnx/config.json", "pytorch_model.bin"]
    assert hub.choose(names, SOURCE) == [*LLAMA, "model.safetensors"]


def test_shards_and_template_belong_to_the_directory() -> None:
    names = [
        *LLAMA,
        "chat_template.jinja",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
    ]
    assert hub.choose(names, SOURCE) == names


def test_weights_that_are_there_twice_are_fetched_once() -> None:
    names = [*LLAMA, "model-00001-of-00001.safetensors", "consolidated.safetensors"]
    assert hub.choose(names, SOURCE) == names[:-1]
    assert hub.choose([*LLAMA, "weights.safetensors"], SOURCE) == [*LLAMA, "weights.safetensors"]


def test_a_named_file_is_all_that_is_fetched() -> None:
    source = HubSource("org/name", file="q4/a.gguf")
    assert hub.choose(["a.gguf", "q4/a.gguf", "config.json"], source) == ["q4/a.gguf"]
    with pytest.raises(DownloadError, match=r"org/name has no file q4/a.gguf; it has a\.gguf"):
        hub.choose(["a.gguf"], source)


def test_one_gguf_file_is_the_model_and_of_several_one_must_be_named() -> None:
    assert hub.choose(["a.gguf", "README.md"], SOURCE) == ["a.gguf"]
    with pytest.raises(DownloadError, match=r"name one file of org/name; it has a.gguf, b.gguf"):
        hub.choose(["a.gguf", "b.gguf"], SOURCE)


@pytest.mark.parametrize("names", [[], ["config.json", "pytorch_model.bin"], ["model.safetensors"]])
def test_a_repository_without_a_readable_model_is_refused(names: list[str]) -> None:
    with pytest.raises(DownloadError, match="pickled weights are not read"):
        hub.choose(names, SOURCE)


def test_of_a_repository_of_data_the_files_that_match_are_fetched() -> None:
    source = HubSource("org/data", patterns=("a_*.jsonl", "b/*"))
    assert hub.choose(["a_1.jsonl", "a.jsonl", "b/c.txt"], source) == ["a_1.jsonl", "b/c.txt"]
    with pytest.raises(
        DownloadError, match=r"org/data has no file that matches a_\*.jsonl or b/\*"
    ):
        hub.choose(["README.md"], source)


class OfflineModeIsEnabled(ConnectionError):
    pass


class RepositoryNotFoundError(Exception):
    pass


class GatedRepoError(RepositoryNotFoundError):
    pass


class RevisionNotFoundError(Exception):
    pass


class ConnectTimeout(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OfflineModeIsEnabled("long\nstory"), "HF_HUB_OFFLINE is set"),
        (GatedRepoError(), "accept its terms on the hub and set HF_TOKEN"),
        (RepositoryNotFoundError(), "knows no such repository"),
        (RevisionNotFoundError(), "no such revision"),
        (ConnectTimeout(), "the hub cannot be reached"),
        (RuntimeError("\n first line\nsecond"), "RuntimeError: first line"),
        (PermissionError(errno.EACCES, "no"), "PermissionError"),
    ],
)
def test_whatever_the_library_raises_becomes_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", fail)
    with pytest.raises(DownloadError, match=said) as caught:
        hub.look_up(SOURCE)
    assert "\n" not in str(caught.value)


def test_offline_mode_of_the_real_library_is_respected_at_once() -> None:
    code = (
        "from data import hub; from data.catalogue import HubSource\n"
        "try: hub.look_up(HubSource('org/name'))\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.stdout.startswith("DownloadError HF_HUB_OFFLINE is set"), done.stderr
    assert done.stdout.count("\n") == 1


def listing(*names: str, content: bytes = b"12345", size: int | None = None) -> Listing:
    digest = hashlib.sha256(content).hexdigest()
    held = tuple(HubFile(name, len(content) if size is None else size, digest) for name in names)
    return Listing(COMMIT, held, "mit")


def pretend_download(monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> list[str]:
    """hf_hub_download writes `content` or raises it; returns what it was asked for."""
    asked: list[str] = []

    def download(repository: str, name: str, *, revision: str, local_dir: Path) -> str:
        asked.append(f"{repository}/{name}@{revision}")
        (local_dir / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
        if isinstance(content, Exception):
            raise content
        (local_dir / name).write_bytes(content)
        return str(local_dir / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_files_are_fetched_from_the_pinned_commit_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend_download(monkeypatch, b"12345")
    seen: list[int] = []
    held = hub.fetch_files(
        SOURCE, listing("a.json", "b.gguf"), tmp_path, lambda s, done, total: seen.append(done)
    )
    assert asked == [f"org/name/a.json@{COMMIT}", f"org/name/b.gguf@{COMMIT}"]
    assert [(record.name, record.size) for record in held] == [("a.json", 5), ("b.gguf", 5)]
    assert held[0].sha256 == hashlib.sha256(b"12345").hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.gguf"]
    assert seen[-1] == 10


def test_a_wrong_hash_deletes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_download(monkeypatch, b"54321")
    with pytest.raises(WrongHashError, match=r"b\.gguf has SHA-256 .* is expected"):
        hub.fetch_files(SOURCE, listing("b.gguf"), tmp_path, ignore)
    assert not (tmp_path / "b.gguf").exists()


def test_a_wrong_size_deletes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_download(monkeypatch, b"12345")
    with pytest.raises(DownloadError, match="has 5 bytes where the hub says 6"):
        hub.fetch_files(SOURCE, listing("b.gguf", size=6), tmp_path, ignore)
    assert not (tmp_path / "b.gguf").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_download(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    folder = tmp_path / "staging"
    folder.mkdir()
    with pytest.raises(DiskFullError, match="5 more bytes"):
        hub.fetch_files(SOURCE, listing("b.gguf"), folder, ignore)
    assert not folder.exists()


def test_a_disk_too_full_from_the_start_is_said_before_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend_download(monkeypatch, b"12345")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=4))
    with pytest.raises(DiskFullError, match="1 more bytes"):
        hub.fetch_files(SOURCE, listing("b.gguf"), tmp_path, ignore)
    assert asked == []


# the real library against a small hub of our own


CONTENT = {"config.json": b'{"model_type": "llama"}', "model.safetensors": os.urandom(200_000)}


@pytest.fixture
def small_hub() -> Iterator[str]:
    """The hub's questions that a pull asks, answered from CONTENT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(self.path.partition("?")[0], with_body=True)

        def do_HEAD(self) -> None:
            self._answer(self.path.partition("?")[0], with_body=False)

        def _answer(self, path: str, with_body: bool) -> None:
            name = path.rpartition("/")[2]
            path = path.replace("/api/datasets/", "/api/models/").removeprefix("/datasets")
            headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if path == "/api/models/org/name":
                body = json.dumps(self._info()).encode()
                headers["Content-Type"] = "application/json"
            elif path == f"/org/name/resolve/{COMMIT}/{name}" and name in CONTENT:
                body = CONTENT[name]
                headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
            else:
                body = b""
            self.send_response(200 if body else 404)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body if with_body else b"")

        def _info(self) -> dict[str, Any]:
            lfs = CONTENT["model.safetensors"]
            digest = hashlib.sha256(lfs).hexdigest()
            return {
                "id": "org/name",
                "modelId": "org/name",
                "sha": COMMIT,
                "tags": [],
                "private": False,
                "cardData": {"license": "apache-2.0"},
                "siblings": [
                    {"rfilename": "config.json", "size": len(CONTENT["config.json"])},
                    {
                        "rfilename": "model.safetensors",
                        "size": len(lfs),
                        "lfs": {"sha256": digest, "size": len(lfs), "pointerSize": 134},
                    },
                ],
            }

        def log_message(self, *args: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()
    thread.join()


def run_against(small_hub: str, tmp_path: Path, code: str) -> str:
    """What `code` prints in a process that knows no other hub and has `tmp_path` for its files."""
    # the endpoint is read when the library is imported: hence another process
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": small_hub,
        "HF_HOME": str(tmp_path / "hf"),
        "SPARSECHAT_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_real_library_fetches_files_of_a_repository_of_data(
    small_hub: str, tmp_path: Path
) -> None:
    code = (
        "from pathlib import Path\n"
        "from data import hub\n"
        "from data.catalogue import HubSource\n"
        "source = HubSource('org/name', patterns=('*.safetensors',))\n"
        "listing = hub.look_up(source)\n"
        f"held = hub.fetch_files(source, listing, Path({str(tmp_path)!r}), lambda *report: None)\n"
        "print(listing.commit, *(record.name for record in held))"
    )
    assert run_against(small_hub, tmp_path, code) == f"{COMMIT} model.safetensors\n"
    held = (tmp_path / "model.safetensors").read_bytes()
    assert held == CONTENT["model.safetensors"]


def test_the_real_library_pulls_a_directory_that_resolve_then_finds(
    small_hub: str, tmp_path: Path
) -> None:
    code = (
        "from data import models\n"
        "made = models.pull('org/name')\n"
        "print(made.licence, made.source, made.sha256, sep='\\n')\n"
        "print(models.resolve('org/name').path)"
    )
    printed = run_against(small_hub, tmp_path, code)
    folder = tmp_path / "home" / "data" / "models" / "org--name"
    assert printed.splitlines() == [
        "apache-2.0",
        f"hub repository org/name@{COMMIT}",
        hashlib.sha256(CONTENT["model.safetensors"]).hexdigest(),
        str(folder),
    ]
    held = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in CONTENT}
    assert held == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CONTENT, "model.json"])
