from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.documents import Document
from data.readers import Limits, read

Read = Callable[..., list[Document]]


@pytest.fixture
def read_as(tmp_path: Path) -> Read:
    """read_as(name, content): the documents of a file with this name and content."""

    def documents(name: str, content: bytes | str, limits: Limits | None = None) -> list[Document]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(read(path, limits))

    return documents
