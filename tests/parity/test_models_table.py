"""docs/models.md says what was found out by trying; `make docs` writes it anew."""

from __future__ import annotations

import pytest

from tests import models_table

pytestmark = pytest.mark.parity


def test_docs_models_md_is_what_trying_gives() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the products are small
    try:
        found = models_table.document()
    finally:
        torch.set_num_threads(before)
    assert models_table.FILE.read_text(encoding="utf-8") == found, "make docs writes it anew"
