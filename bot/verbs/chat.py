"""Talk with a model (this is what `sparsechat` alone does)."""

from __future__ import annotations

import argparse
import os
import sys

from bot import render, terminal
from bot.config import mistyped_variables, read_config
from bot.options import add_setting_flags, given_settings
from bot.version import version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings."""
    add_setting_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Open the shell; the model loads behind it."""
    config = read_config(given_settings(args))
    settings = config.settings()
    if settings.plain:
        render.use_plain()
    for line in mistyped_variables(os.environ):
        render.err(f"warning: {line}")

    from bot.adapters import find, wanted_adapter
    from bot.knowledge import wanted_base
    from bot.loading import find_model
    from bot.offering import ensure_base

    found, base = find_model(settings.model), wanted_base(settings)
    if base is not None:
        ensure_base(base)
    if (adapter := wanted_adapter(settings)) is not None:
        find(adapter)
    if terminal.is_terminal(sys.stdin):
        named = f"{found.name} with {adapter}" if adapter else found.name
        using = f"{named} · {base}" if base else named
        render.out(f"sparsechat {version()} · {using} · /help lists the commands, Ctrl-D leaves")
    from bot.opening import open_shell

    return open_shell(config, found, args.log_path)
