"""Files of rows with bytes changed, cut out and put in: they are read, or refused in one line."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data.datasets import BadRow
from data.training_rows import open_rows

pytestmark = pytest.mark.usefixtures("home")

ROWS = [
    {"text": "<human>: Où?\n<bot>: Là.", "metadata": {"n": 1.5e3}},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"instruction": "a", "input": "", "output": "😀 \\ quoted"},
    {"prompt": "a", "context": None, "target": "b"},
    {"text": "plain"},
]
LINES = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(ROWS * 3))
PACK = zstandard.ZstdCompressor().compress
CONTENTS: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: LINES.encode(),
    "a.json": lambda: json.dumps(ROWS * 3, indent=1).encode(),
    "a.txt": lambda: b"One.\n\nTwo, three.\n<|endoftext|>\n\xc3\xa9\n",
    "a.jsonl.gz": lambda: gzip.compress(LINES.encode()),
    # a frame for each line, so that damage does not take all
    "a.jsonl.zst": lambda: b"".join(map(PACK, LINES.encode().splitlines(keepends=True))),
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        begin = chance.randrange(len(content) + 1)
        end = begin + chance.choice([0, 1, 2, 50])
        content = content[:begin] + chance.randbytes(chance.choice([0, 1, 3])) + content[end:]
    return content


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    chance, n_read, n_refused, n_bad = random.Random(0), 0, 0, 0
    for number in range(150):
        path = tmp_path / f"{number}{name}"
        path.write_bytes(damaged(CONTENTS[name](), chance))
        try:
            rows = open_rows(str(path))
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))
            n_refused += 1
            continue
        found = list(rows.epoch(0))
        assert len(found) == rows.n_rows
        n_read += 1
        for row in found:
            assert row.origin.startswith(f"{path}:")
            if isinstance(row, BadRow):
                assert row.reason and "\n" not in row.reason
                n_bad += 1
    assert n_read > 20
    assert n_bad + n_refused > 0
