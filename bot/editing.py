"""A text in the user's editor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bot import terminal

_USUAL = ("nano", "vim", "vi", "notepad")


def edited(text: str) -> str:
    """What the user makes of `text`. ValueError without a terminal or an editor, or when that
    fails; nothing goes through a shell."""
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)):
        raise ValueError("there is no terminal for an editor; put the text behind the command")
    words = _editor()
    with tempfile.TemporaryDirectory(prefix="sparsechat-") as folder:  # for its owner alone
        file = Path(folder) / "answer.md"
        file.write_text(text, encoding="utf-8")
        try:
            with terminal.lent():
                code = subprocess.run([*words, str(file)], check=False).returncode
        except OSError as error:
            raise ValueError(
                f"{words[0]} could not be started: {error.strerror}; set EDITOR"
            ) from None
        if code:
            raise ValueError(f"{words[0]} ended with code {code}; the answer stays as it is")
        return file.read_text(encoding="utf-8", errors="replace")


def _editor() -> list[str]:
    for variable in ("VISUAL", "EDITOR"):
        if text := os.environ.get(variable, "").strip():
            try:
                return shlex.split(text, posix=sys.platform != "win32")
            except ValueError:
                raise ValueError(f"{variable}={text!r}: a quotation mark has no partner") from None
    found = next((name for name in _USUAL if shutil.which(name)), None)
    if found is None:
        raise ValueError("no editor was found: set EDITOR, or put the text behind the command")
    return [found]
