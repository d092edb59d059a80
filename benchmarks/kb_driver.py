"""What kb_faults runs in other processes: a writer to be killed, readers, a prober of damage.

python -m benchmarks.kb_driver write BASE LIBRARY SEED    until it is killed
python -m benchmarks.kb_driver read BASE NOTES            until standard input ends
python -m benchmarks.kb_driver                            requests, see benchmarks/process.py
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from benchmarks import process
from data.documents import Document
from retrieval import DamagedError, KnowledgeBase, database, ingest
from retrieval.generations import Generation
from retrieval.store import Store
from retrieval.texts import document_of

N_DOCUMENTS = 200  # made by the writer, beside as many files
WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me", "so") for b in ("nar", "tel", "vis")]
Versions = dict[str, int | None]  # URI -> the version of its text; None: it is not there


class Encoder:
    """Words hashed to places: an encoder that costs nothing."""

    encoder_id, dimension = "words-64", 64

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), 64) float32, rows of length 1."""
        out = np.full((len(texts), 64), 1e-3, np.float32)
        for row, text in zip(out, texts, strict=True):
            for word in re.findall(r"\w+", text):
                code = zlib.crc32(word.encode())
                row[code % 64] += 1 if code & 0x10000 else -1
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def text_of(uri: str, version: int) -> str:
    """Five paragraphs; the version decides about the third, and stands in it."""
    said = []
    for i in range(5):
        dice = random.Random(f"{uri} {i} {version if i == 2 else 0}")
        words = [dice.choice(WORDS) for _ in range(24)]
        said.append(f"Of {i}: {' '.join(words[:12])}. And {' '.join(words[12:])}. So it is.")
    said[2] = f"This is version {version}. {said[2]}"
    return "\n\n".join(said)


def version_in(text: str) -> int:
    """The version that `text_of` wrote."""
    found = re.search(r"This is version (\d+)\.", text)
    assert found, text
    return int(found[1])


def versions_in(base: KnowledgeBase) -> dict[str, int]:
    """What is in the base, every text read and compared with its chunks."""
    found = {}
    with base._reader.view() as (store, _):
        for uri in base.delete(["*"], dry_run=True):
            stored = document_of(store.db, uri)
            assert stored is not None
            chunks = store.chunks(store.allowed(uri))
            assert [stored.text[c.start : c.end] for c in chunks] == [c.text for c in chunks]
            found[uri] = version_in(stored.text)
    return found


# the writer


def write(base_folder: str, library: str, seed: str) -> None:
    """Change the base in every way there is, saying before and after each what it is about."""
    base, folder, dice = KnowledgeBase.open(Path(base_folder)), Path(library), random.Random(seed)
    # many small commits and checkpoints: a kill shall hit all of their steps
    ingest.BATCH_DOCUMENTS, database.CHECKPOINT_BYTES = 3, 100_000
    actions: list[Callable[[], None]] = [
        lambda: _add(base, dice),
        lambda: _sync(base, folder, dice),
        lambda: _delete(base, dice),
        lambda: _quietly(lambda: base.embed(Encoder())),
        lambda: _quietly(base.build),
        lambda: _quietly(base.compact),
    ]
    _say("ready", {})
    while True:
        dice.choices(actions, [4, 4, 2, 3, 3, 1])[0]()


def _say(what: str, versions: Versions) -> None:
    print(json.dumps([what, versions]), flush=True)


def _quietly(action: Callable[[], object]) -> None:
    action()
    _say("done", {})


def _add(base: KnowledgeBase, dice: random.Random) -> None:
    numbers = dice.sample(range(N_DOCUMENTS), dice.randint(1, 30))
    versions: Versions = {f"/made/{n}": dice.randrange(10**6) for n in numbers}
    _say("doing", versions)
    base.add_documents(Document(u, f"Made {u}", text_of(u, v or 0)) for u, v in versions.items())
    _say("done", versions)


def _sync(base: KnowledgeBase, folder: Path, dice: random.Random) -> None:
    names = [f"{n}.txt" for n in dice.sample(range(N_DOCUMENTS), dice.randint(1, 10))]
    versions: Versions = {
        (folder / name).as_posix(): dice.choice([None, *[dice.randrange(10**6)] * 4])
        for name in names
    }
    _say("doing", versions)
    for path, version in versions.items():
        if version is None:
            Path(path).unlink(missing_ok=True)
        else:
            write_file(Path(path), version)
    base.sync()
    _say("done", versions)


def write_file(path: Path, version: int) -> None:
    """A file of the library, whole or not at all."""
    draft = path.with_suffix(".draft-")
    draft.write_text(text_of(path.as_posix(), version), "utf-8")
    os.replace(draft, path)


def _delete(base: KnowledgeBase, dice: random.Random) -> None:
    versions: Versions = {f"/made/{n}": None for n in dice.sample(range(N_DOCUMENTS), 5)}
    _say("doing", versions)
    base.delete(list(versions))
    _say("done", versions)


# readers beside a writer


def read(base_folder: str, notes: str) -> None:
    """Search until standard input ends, and tell how often and what was wrong.

    notes  a file in which the writer's side keeps [commit, versions] of what is committed
    """
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    base, dice = KnowledgeBase.open(Path(base_folder), Encoder()), random.Random(os.getpid())
    n, wrong = 0, list[str]()
    while not ended.is_set() and not wrong:
        commit, versions = json.loads(Path(notes).read_text("utf-8"))
        try:
            base.search(" ".join(dice.choices(WORDS, k=4)))
            wrong += _stale(base, commit, dict(dice.sample(sorted(versions.items()), 3)), dice)
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
        n += 1
    print(json.dumps([n, wrong]), flush=True)


def _stale(
    base: KnowledgeBase, commit: int, versions: Versions, dice: random.Random
) -> Iterator[str]:
    query = Encoder().encode([dice.choice(WORDS)])
    with base._reader.view() as (store, generation):
        if store.state().commit < commit:
            yield f"commit {store.state().commit} after {commit}"
        for uri, version in versions.items():
            stored = document_of(store.db, uri)
            # versions only grow there, and None is not among them
            if stored is None or version_in(stored.text) < (version or 0):
                yield f"{uri} is older than version {version}"
        ids, _ = store.lexical(f'"{dice.choice(WORDS)}"', 10)
        if len(store.chunks(ids)) != len(ids):
            yield "a chunk that was found is not there"
        if generation is not None:
            gone = set(store.deleted().tolist())
            found = generation.search(query, 10, store.deleted())[0][0]
            found = found[found > 0]
            if gone & set(found.tolist()) or len(store.chunks(found)) != len(found):
                yield "the index found a chunk that is not there"


# damage


def answers(folder: str) -> dict[str, Any]:
    """What a base answers, by words and by vectors, and a hash of its texts; or why it refuses."""
    try:
        base = KnowledgeBase.open(Path(folder), Encoder())
        try:
            passages = base.search(" ".join(WORDS[:4]), k=10)
            with base._reader.view() as (store, generation):
                for p in passages:
                    stored = document_of(store.db, p.uri)
                    assert stored and stored.text[p.start : p.end] == p.text
                found = [store.lexical(f'"{word}"', 10) for word in WORDS]
                found += [_nearest(store, generation, q) for q in Encoder().encode(WORDS)]
            texts = json.dumps(sorted(versions_in(base).items()))
        finally:
            base.close()
    except (DamagedError, FileNotFoundError, ValueError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    lists = [[ids.tolist(), scores.tolist()] for ids, scores in found]
    return {"told": [hashlib.sha256(texts.encode()).hexdigest(), lists]}


def is_same(one: list[Any], other: list[Any]) -> bool:
    """Whether two `told` are equal: scores within rounding, ids where they are not equally good."""
    if one[0] != other[0]:
        return False
    for (ids, scores), (more_ids, more_scores) in zip(one[1], other[1], strict=True):
        if len(ids) != len(more_ids) or not np.allclose(scores, more_scores, atol=2e-3):
            return False
        clear = {i for i, s in zip(ids, scores, strict=True) if s > scores[-1] + 5e-3}
        if not clear <= set(more_ids):
            return False
    return True


def _nearest(
    store: Store, generation: Generation | None, query: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ten nearest chunks by the index and by what is newer than it."""
    ids, vectors = store.delta(generation.last_chunk_id if generation else 0)
    cosines = vectors @ query if len(ids) else np.empty(0, np.float32)
    if generation:
        found, scores = generation.search(query[None], 10, store.deleted())
        ids, cosines = np.concatenate([ids, found[0]]), np.concatenate([cosines, scores[0]])
    best = np.argsort(-cosines, kind="stable")[:10]
    return ids[best], cosines[best]


def check(folder: str, repair: bool = False) -> dict[str, Any]:
    """What verify finds."""
    base = KnowledgeBase(Path(folder))
    try:
        return {"problems": [f"{p.where}: {p.what}" for p in base.verify(repair)]}
    finally:
        base.close()


def main() -> None:
    """The role that the command line names."""
    logger.remove()
    roles: Mapping[str, Callable[..., None]] = {"write": write, "read": read}
    if len(sys.argv) > 1:
        roles[sys.argv[1]](*sys.argv[2:])
    else:
        process.serve({"answers": answers, "check": check})


if __name__ == "__main__":
    main()
