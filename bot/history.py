"""What was typed, kept in a file that only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path

from prompt_toolkit.history import FileHistory

MAX_ENTRIES = 2_000
MAX_ENTRY_CHARS = 16_384  # a longer one (a pasted file) is remembered until the shell ends


class DiskHistory(FileHistory):
    """Entries in `path`, mode 0600, the newest MAX_ENTRIES of them.

    OSError on construction when the file cannot be kept; a write that fails later loses the entry
    on disk and nothing else.
    """

    def __init__(self, path: Path) -> None:
        from data import files

        files.private_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.close(descriptor)
        if os.name == "posix":
            os.chmod(path, 0o600)  # a file from elsewhere may be open to all
        super().__init__(str(path))
        self._trim()

    def store_string(self, string: str) -> None:
        """Append one entry."""
        if len(string) <= MAX_ENTRY_CHARS:
            try:
                super().store_string(string)
            except OSError:
                return

    def _trim(self) -> None:
        """Rewrite the file once it holds twice as many entries as are kept."""
        entries = list(self.load_history_strings())  # newest first
        if len(entries) <= 2 * MAX_ENTRIES:
            return
        path = Path(os.fsdecode(self.filename))
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        kept = FileHistory(str(temporary))
        for entry in reversed(entries[:MAX_ENTRIES]):
            kept.store_string(entry)
        os.replace(temporary, path)
