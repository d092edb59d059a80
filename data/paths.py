"""Where sparsechat keeps its files (design.md §5).

Every function reads the environment when it is called and creates nothing: looking for a model
works in a read-only home. Whoever writes creates the folder with `data.files.private_folder`.
"""

from __future__ import annotations

import os
from pathlib import Path

APP = "sparsechat"


def home() -> Path | None:
    """The folder named by SPARSECHAT_HOME (`~` expanded, made absolute); None when it is unset."""
    value = os.environ.get("SPARSECHAT_HOME", "").strip()
    return Path(os.path.abspath(os.path.expanduser(value))) if value else None


def config_dir() -> Path:
    """`config.toml` and `personas/`."""
    return _below_home("config") or _platform_folder("user_config_path")


def data_dir() -> Path:
    """`models/`, `knowledge/`, `adapters/`, `sessions.db`: what would be missed if it were lost."""
    return _below_home("data") or _platform_folder("user_data_path")


def state_dir() -> Path:
    """`history` and `logs/`."""
    return _below_home("state") or _platform_folder("user_state_path")


def cache_dir() -> Path:
    """`packed/`, `kv/`, `numba/`: all of it can be made again."""
    return _below_home("cache") or _platform_folder("user_cache_path")


def models_dir() -> Path:
    """One folder per pulled model."""
    return data_dir() / "models"


def _below_home(kind: str) -> Path | None:
    folder = home()
    return folder / kind if folder else None


def _platform_folder(function: str) -> Path:
    import platformdirs

    return Path(getattr(platformdirs, function)(APP, appauthor=False))
