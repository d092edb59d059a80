from __future__ import annotations

import subprocess
import sys

import pytest

import retrieval


@pytest.mark.parametrize("name", retrieval.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(retrieval, name).__name__ == name


def test_a_name_that_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = retrieval.nothing


def test_opening_a_base_imports_nothing_heavy(tmp_path: object) -> None:
    heavy = {"numba", "torch", "faiss", "sentence_transformers", "transformers", "pypdf", "docx"}
    code = f"""if True:
        import sys
        from pathlib import Path
        from retrieval import KnowledgeBase
        base = KnowledgeBase.create(Path({str(tmp_path)!r}) / "base")
        base.show()
        base.close()
        print(*{heavy} & set(sys.modules))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
