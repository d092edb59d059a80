"""Opens the place of a passage: a file in the editor or pager at its line, an address in a browser.

Nothing goes through a shell: programs are started with lists of words. A file's name is absolute,
so that it cannot pass for an option, and only addresses of the web are handed to a browser.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

from bot import terminal
from bot.citations import line_of, path_and_row
from bot.evidence import Source

# how editors take a line: before the file, behind it, or not at all (then the file alone opens)
_BEFORE = {"vi", "vim", "nvim", "nano", "emacs", "emacsclient", "micro", "joe", "kak", "ne", "mg"}
_BEHIND = {"subl", "hx", "helix", "zed", "mate"}
_GOTO = {"code", "codium", "cursor", "windsurf"}
_PAGERS = {"less", "more", "most"}


def open_place(source: Source) -> str:
    """Open it and wait until the program ends; a line that says why nothing was opened, or ""."""
    if source.url:
        return _open_address(source.url)
    path, _ = path_and_row(source.uri)
    if not os.path.isabs(path) or not Path(path).is_file():
        return f"{path} is not there any more; the passage above is what was stored"
    line = line_of(source)
    if line is None:
        return f"{path} is no plain text: open it with the program that you use for such files"
    command = command_for(path, line)
    if command is None:
        return "no editor was found: set EDITOR or PAGER"
    try:
        with terminal.lent():
            subprocess.run(command, check=False)
    except OSError as error:
        return f"{command[0]} could not be started: {error.strerror}; set EDITOR or PAGER"
    return ""


def command_for(path: str, line: int) -> list[str] | None:
    """The words that open `path` at `line` in the user's editor, else pager; None without either.

    ValueError when EDITOR or PAGER cannot be read as words.
    """
    for variable in ("VISUAL", "EDITOR", "PAGER"):
        if text := os.environ.get(variable, "").strip():
            return _at_line(_words(variable, text), path, line)
    found = next((name for name in ("less", "more", "vi", "notepad") if shutil.which(name)), None)
    return None if found is None else _at_line([found], path, line)


def _at_line(words: list[str], path: str, line: int) -> list[str]:
    program = Path(words[0]).stem.lower()
    if program in _BEFORE or program in _PAGERS:
        return [*words, f"+{line}", path]
    if program in _GOTO:
        return [*words, "--goto", f"{path}:{line}"]
    if program in _BEHIND:
        return [*words, f"{path}:{line}"]
    return [*words, path]


def _words(variable: str, text: str) -> list[str]:
    try:
        return shlex.split(text, posix=sys.platform != "win32")
    except ValueError:
        raise ValueError(f"{variable}={text!r}: a quotation mark has no partner") from None


def _open_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not url.isprintable():
        return f"{url!r} is no address of the web"
    try:
        with terminal.lent():
            opened = webbrowser.open(url)
    except webbrowser.Error:
        opened = False
    return "" if opened else "no browser was found: the address stands above"
