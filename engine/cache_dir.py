"""Where the engine keeps what it can compute again: packed weights and compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """$SPARSECHAT_HOME/cache, or the platform's cache folder; not created here."""
    home = os.environ.get("SPARSECHAT_HOME")
    return Path(home) / "cache" if home else platformdirs.user_cache_path("sparsechat", False)
