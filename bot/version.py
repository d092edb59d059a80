"""Which build this is."""

from __future__ import annotations


def version() -> str:
    """The installed distribution's version; "(not installed)" when run from a bare source tree."""
    from importlib import metadata

    try:
        return metadata.version("sparsechat")
    except metadata.PackageNotFoundError:
        return "(not installed)"
