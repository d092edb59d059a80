"""Prepares: fetches and verifies models and says where they lie; imports nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import RegisteredModel
    from .download import DownloadError
    from .files import DiskFullError
    from .models import DEFAULT_MODEL, ModelNotFoundError, ResolvedModel, pull, resolve
    from .records import InstalledModel

__all__ = [
    "DEFAULT_MODEL",
    "DiskFullError",
    "DownloadError",
    "InstalledModel",
    "ModelNotFoundError",
    "RegisteredModel",
    "ResolvedModel",
    "pull",
    "resolve",
]

_HOMES = {
    "DiskFullError": "files",
    "DownloadError": "download",
    "InstalledModel": "records",
    "RegisteredModel": "catalogue",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'models')}"), name)
