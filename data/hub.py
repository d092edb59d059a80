"""Files from the Hugging Face hub, through huggingface_hub, which is imported only in a pull.

HF_HUB_OFFLINE, HF_TOKEN, HF_HOME and HF_ENDPOINT keep their meaning. One question to the hub pins
the revision and gives sizes and hashes; the files then come one after another, and what stopped
half-way is resumed by the library.
"""

from __future__ import annotations

import fnmatch
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from . import files
from .catalogue import HubSource
from .download import DownloadError, Progress, WrongHashError, wrong_hash
from .records import FileRecord

ASK_TIMEOUT_S = 15.0
WATCH_S = 0.2
# of a model directory: what engine.checkpoints reads. Only the root: folders hold other formats.
PATTERNS = (
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"),
    *("chat_template.jinja", "*.safetensors", "*.safetensors.index.json"),
)
# and of a sentence-transformers directory, which modules.json marks
ENCODER_PATTERNS = (
    *("modules.json", "sentence_*_config.json", "config_sentence_transformers.json", "vocab.txt"),
    *("[0-9]_*/config.json", "[0-9]_*/model.safetensors"),
)


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository; sha256 is None for small files that the hub keeps in git."""

    name: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What will be fetched, from which commit."""

    commit: str
    files: tuple[HubFile, ...]
    licence: str | None


def look_up(source: HubSource) -> Listing:
    """Ask the hub for the commit and the files of `source`; DownloadError in one line."""
    with _one_line():
        from huggingface_hub import HfApi

        api = HfApi()
        info = (api.dataset_info if source.patterns else api.model_info)(
            source.repository,
            revision=source.revision,
            files_metadata=True,
            timeout=ASK_TIMEOUT_S,
        )
    found = {
        entry.rfilename: HubFile(
            entry.rfilename, entry.size or 0, entry.lfs.sha256 if entry.lfs else None
        )
        for entry in info.siblings or ()
    }
    card = getattr(info, "card_data", None)
    licence = card.get("license") if card else None
    names = choose(list(found), source)
    return Listing(str(info.sha), tuple(found[n] for n in names), str(licence) if licence else None)


def choose(names: list[str], source: HubSource) -> list[str]:
    """Which of a repository's files make the model; DownloadError when none or too many do."""
    if source.patterns:
        return _matching(names, source)
    if source.file:
        if source.file not in names:
            raise DownloadError(f"{source.repository} has no file {source.file}{_ggufs(names)}")
        return [source.file]
    root = [name for name in names if "/" not in name]
    wanted = [n for n in root if any(fnmatch.fnmatchcase(n, pattern) for pattern in PATTERNS)]
    weights = [name for name in wanted if name.endswith(".safetensors")]
    if "config.json" in wanted and weights:
        # some repositories carry the weights twice: model-0001-of-….safetensors and consolidated
        doubled = [name for name in weights if not name.startswith("model")]
        chosen = [name for name in wanted if name not in doubled or doubled == weights]
        if "modules.json" in names:
            chosen += [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in ENCODER_PATTERNS)]
        return chosen
    ggufs = [name for name in root if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise DownloadError(f"name one file of {source.repository}{_ggufs(names)}")
    raise DownloadError(
        f"{source.repository} has neither config.json with safetensors nor a GGUF file; "
        "pickled weights are not read; once they are here, or in the hub cache, "
        f"`sparsechat import {source.repository}` makes safetensors of them"
    )


def _matching(names: list[str], source: HubSource) -> list[str]:
    found = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in source.patterns)]
    if not found:
        wanted = " or ".join(source.patterns)
        raise DownloadError(f"{source.repository} has no file that matches {wanted}")
    return found


def fetch_files(
    source: HubSource, listing: Listing, folder: Path, on_progress: Progress
) -> list[FileRecord]:
    """Put the files of `listing` into `folder`, each compared with the hub's size and SHA-256."""
    total = sum(file.size_bytes for file in listing.files)
    files.require_space(folder, total - _bytes_below(folder))
    try:
        with _watched(folder, total, on_progress), files.room(folder, lambda: _left(folder, total)):
            for file in listing.files:
                _download(source, file.name, listing.commit, folder)
    except files.DiskFullError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    held = [_checked(folder / file.name, file) for file in listing.files]
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes for resuming
    return held


def _download(source: HubSource, name: str, commit: str, folder: Path) -> None:
    kind = {"repo_type": "dataset"} if source.patterns else {}
    with _one_line():
        from huggingface_hub import hf_hub_download

        hf_hub_download(source.repository, name, revision=commit, local_dir=folder, **kind)


def _checked(path: Path, file: HubFile) -> FileRecord:
    size, got = path.stat().st_size, files.sha256_of(path)
    if file.sha256 and got != file.sha256:
        files.delete(path)
        raise WrongHashError(wrong_hash(file.name, file.sha256, got))
    if size != file.size_bytes:
        files.delete(path)
        raise DownloadError(
            f"{file.name} has {size:,} bytes where the hub says {file.size_bytes:,}"
        )
    return FileRecord(file.name, size, got)


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn whatever huggingface_hub and its HTTP library raise into a DownloadError.

    Which HTTP library that is, and so its exceptions, changes between releases: hence Exception.
    A full disk stays an OSError, for files.room.
    """
    log = logging.getLogger("huggingface_hub")  # its retries would break into the progress bar
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in files.FULL:
            raise
        logger.opt(exception=error).debug("huggingface_hub failed")
        raise DownloadError(_said(error)) from error
    finally:
        log.setLevel(level)


def _said(error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in kinds:
        return "HF_HUB_OFFLINE is set, so the hub is not asked; unset it to pull"
    if "GatedRepoError" in kinds:
        return "the repository is gated: accept its terms on the hub and set HF_TOKEN"
    if "RepositoryNotFoundError" in kinds:
        return "the hub knows no such repository (a private one needs HF_TOKEN)"
    if "RevisionNotFoundError" in kinds:
        return "the repository has no such revision"
    if kinds & {"ConnectError", "ConnectionError", "ConnectTimeout", "LocalEntryNotFoundError"}:
        return "the hub cannot be reached"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}"


@contextmanager
def _watched(folder: Path, total: int, on_progress: Progress) -> Iterator[None]:
    """Report progress by looking at the folder: the library's own bars fit one kind of terminal."""
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    finished = threading.Event()

    def look() -> None:
        while not finished.wait(WATCH_S):
            on_progress("downloading", min(_bytes_below(folder), total), total)

    watcher = threading.Thread(target=look, name="hub-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
    on_progress("downloading", total, total)


def _bytes_below(folder: Path) -> int:
    n_bytes = 0
    for path in folder.rglob("*"):
        try:
            n_bytes += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # renamed while we look
    return n_bytes


def _left(folder: Path, total: int) -> int:
    return max(1, total - _bytes_below(folder))


def _ggufs(names: list[str]) -> str:
    found = [name for name in names if name.endswith(".gguf")]
    return f"; it has {', '.join(found)}" if found else "; it has no GGUF file"
