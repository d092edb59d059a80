"""Caches on disk: the same bits come back, or nothing does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from numpy.testing import assert_array_equal

import engine
from engine import saved_cache
from engine.model import Model
from engine.saved_cache import SavedCaches
from engine.sparsity import kv
from engine.sparsity.levels import Sparsity
from tests.engine.decoders import small_config, small_model

IDS = np.random.default_rng(0).integers(0, 97, 150).tolist()
N_KEPT = 100
PLENTY = 10**9


@pytest.fixture
def store(tmp_path: Path) -> SavedCaches:
    return SavedCaches(tmp_path / "kv")


@pytest.fixture
def model() -> Model:
    """Its cache holds the first N_KEPT of IDS."""
    return filled(small_model())


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What was logged from INFO up."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="INFO", format="{message}")
    yield lines
    logger.remove(sink)


def filled(model: Model, n_tokens: int = N_KEPT) -> Model:
    model.decoder.extend(model.cache, IDS[:n_tokens])
    return model


def file_of(store: SavedCaches, name: str = "talk") -> Path:
    return store._folder / f"{name}.kv"


def sizes(store: SavedCaches) -> dict[str, int]:
    return {name: file_of(store, name).stat().st_size for name in store.names()}


def test_a_restored_conversation_goes_on_with_the_same_bits(
    store: SavedCaches, model: Model
) -> None:
    assert store.save("talk", model, N_KEPT, PLENTY)
    expected = model.decoder.extend(model.cache, IDS[N_KEPT:]).copy()
    again = small_model()
    assert store.restore("talk", again, IDS) == N_KEPT
    assert again.cache.token_ids == IDS[:N_KEPT]
    assert_array_equal(again.decoder.extend(again.cache, IDS[N_KEPT:]), expected)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_only_new_tokens_are_computed_after_a_restore(
    store: SavedCaches, model: Model, temperature: float
) -> None:
    params = engine.SamplingParams(temperature=temperature, seed=1, max_tokens=20)
    store.save("talk", model, N_KEPT, PLENTY)
    # not a model that reads all of IDS at once: long prompts are read with less precision
    expected = [step.token_id for step in engine.stream(model, IDS, params)]
    again = small_model()
    store.restore("talk", again, IDS)
    generation = engine.stream(again, IDS, params)
    assert [step.token_id for step in generation] == expected
    usage = generation.usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (len(IDS), N_KEPT)


def test_what_was_skipped_is_not_used_by_a_dense_model(store: SavedCaches, model: Model) -> None:
    model.cache.skipped_from(90)
    assert store.save("talk", model, N_KEPT, PLENTY)
    again = small_model()
    assert store.restore("talk", again, IDS) == 90
    assert_array_equal(
        again.decoder.extend(again.cache, IDS[90:], all_logits=True)[-1], again.logits(IDS)[-1]
    )
    again = small_model()
    again.sparsity = Sparsity("fast", kv=kv.FAST)
    assert store.restore("talk", again, IDS) == N_KEPT
    assert again.cache.n_dense == 90


def test_what_was_skipped_is_replaced_when_it_was_computed_again(
    store: SavedCaches, model: Model
) -> None:
    model.cache.skipped_from(10)
    assert store.keep("talk", model, IDS, PLENTY)
    again = small_model()
    assert store.restore("talk", again, IDS) == 0  # 10 are not worth it
    filled(again)
    assert store.keep("talk", again, IDS, PLENTY)
    assert store.restore("talk", small_model(), IDS) == N_KEPT


@pytest.mark.parametrize("n_tokens", [1, 15, 16, 17, 63, 64])
def test_what_is_exported_tells_nothing_of_later_tokens(model: Model, n_tokens: int) -> None:
    arrays = model.cache.export(n_tokens)
    alone = filled(small_model(), n_tokens).cache.export(n_tokens)
    assert arrays.keys() == alone.keys()
    for name, array in arrays.items():
        assert array.flags.c_contiguous
        assert_array_equal(array, alone[name])


def test_a_cache_takes_only_arrays_that_fit(model: Model) -> None:
    arrays = model.cache.export(N_KEPT)
    name = next(iter(arrays))
    for wrong in (
        arrays | {name: arrays[name][1:]},
        arrays | {name: arrays[name].astype(np.float64)},
        {key: array for key, array in arrays.items() if key != name},
        arrays | {"more": np.zeros(3)},
    ):
        with pytest.raises(ValueError, match="cache"):
            model.cache.restore(IDS[:N_KEPT], wrong)
    with pytest.raises(ValueError, match="cache"):
        model.cache.restore(IDS, arrays)  # slots may come in blocks, but these are many more


def test_a_restored_cache_grows_and_shrinks_like_any_other(
    store: SavedCaches, model: Model
) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    again = small_model()
    store.restore("talk", again, IDS)
    again.cache.truncate(37)
    again.cache.reserve(again.cache.capacity + 1)
    expected = filled(small_model(), 37)
    assert_array_equal(
        again.decoder.extend(again.cache, IDS[37:]),
        expected.decoder.extend(expected.cache, IDS[37:]),
    )


def test_other_tokens_bring_back_what_comes_before_them(store: SavedCaches, model: Model) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    other = [*IDS[:70], (IDS[70] + 1) % 97, *IDS[71:]]
    again = small_model()
    assert store.restore("talk", again, other) == 70
    assert again.cache.token_ids == IDS[:70]
    expected = small_model()
    assert_array_equal(
        again.decoder.extend(again.cache, other[70:]),
        expected.decoder.extend(expected.cache, other),
    )


@pytest.mark.parametrize("n_held", [N_KEPT - SavedCaches.MIN_TOKENS + 1, N_KEPT, N_KEPT + 1])
def test_a_cache_that_has_nearly_as_much_already_is_left_alone(
    store: SavedCaches, model: Model, n_held: int
) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    holder = filled(small_model(), n_held)
    before = holder.cache.export(n_held)
    assert store.restore("talk", holder, IDS) == 0
    assert store.restore("talk", holder, [(IDS[0] + 1) % 97, *IDS]) == 0
    assert store.restore("nothing", holder, IDS) == 0
    assert holder.cache.token_ids == IDS[:n_held]
    for name, array in holder.cache.export(n_held).items():
        assert_array_equal(array, before[name])


def test_a_cache_that_lacks_enough_is_replaced(store: SavedCaches, model: Model) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    holder = filled(small_model(), N_KEPT - store.MIN_TOKENS)
    assert store.restore("talk", holder, IDS) == N_KEPT


@pytest.mark.parametrize("what", ["fingerprint", "config", "format", "layout", "build", "version"])
def test_another_models_or_builds_file_is_not_used_and_not_removed(
    store: SavedCaches, model: Model, what: str, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    other = {
        "fingerprint": lambda: small_model(fingerprint="1" * 64),
        "config": lambda: small_model(config=small_config(norm_eps=1e-6)),
        "format": lambda: small_model("q4"),
    }.get(what, small_model)()
    if what == "layout":
        monkeypatch.setattr(type(other.cache), "layout", "another")
    if what == "build":
        monkeypatch.setattr(saved_cache, "_build", lambda: "another")
    if what == "version":
        monkeypatch.setattr(saved_cache, "_VERSION", 0)
    log.clear()
    assert store.restore("talk", other, IDS) == 0
    assert log == ["talk.kv is of another model or build and not used\n"]
    assert other.cache.token_ids == [] and store.names() == ["talk"]
    assert store.save("talk", other, 0, PLENTY)


def damage_is_harmless(store: SavedCaches, content: bytes, log: list[str]) -> bool:
    """Whether the file was refused; if it was not, what came back must be what was kept."""
    file_of(store).write_bytes(content)
    log.clear()
    again = small_model()
    if store.restore("talk", again, IDS):
        expected = filled(small_model()).cache.export(N_KEPT)
        for name, array in again.cache.export(N_KEPT).items():
            assert_array_equal(array, expected[name])
        return False
    assert again.cache.token_ids == []
    assert len(log) <= 1, log
    return True


def test_a_truncated_file_is_refused_and_removed(
    store: SavedCaches, model: Model, log: list[str]
) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    whole = file_of(store).read_bytes()
    for n in [*range(0, 1000, 100), *np.linspace(1000, len(whole) - 65, 40).astype(int)]:
        assert damage_is_harmless(store, whole[:n], log)
        assert len(log) == 1 and log[0].endswith(" is removed\n")
        assert store.names() == []


def test_a_flipped_bit_is_refused_or_without_effect(
    store: SavedCaches, model: Model, log: list[str], rng: np.random.Generator
) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    whole = file_of(store).read_bytes()
    n_header = int.from_bytes(whole[:8], "little")
    n_json = len(whole[8 : 8 + n_header].rstrip(b" "))
    ids = 8 + n_header
    arrays = ids + 512  # the ids, and zeros up to a multiple of 64
    places = [*range(0, 8 + n_json, 7), *range(ids, arrays, 31)]
    for place in [*places, *rng.integers(arrays, len(whole) - 64, 50)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        refused = damage_is_harmless(store, bytes(damaged), log)
        assert refused or ids + 4 * N_KEPT <= place < arrays, place
        assert store.names() == [] or place < arrays, place


def test_a_file_of_something_else_is_refused(store: SavedCaches, log: list[str]) -> None:
    store._folder.mkdir()
    header = b'{"token_ids": {"offset": 0, "n_bytes": 0}, "sha256": {"offset": 0, "n_bytes": 0}}'
    for content in (b"", b"#!/bin/sh\n" * 99, b"\0" * 4096,
                    len(header).to_bytes(8, "little") + header):  # fmt: skip
        assert damage_is_harmless(store, content, log)


def test_the_least_recently_used_go_first_and_never_the_one_just_written(
    store: SavedCaches, model: Model
) -> None:
    for age, name in enumerate(["old", "older", "oldest"]):
        store.save(name, model, N_KEPT, PLENTY)
        os.utime(file_of(store, name), (1e9 - age, 1e9 - age))
    size = sizes(store)["old"]
    assert store.restore("oldest", small_model(), IDS) == N_KEPT  # used just now
    assert store.save("new", model, N_KEPT, 3 * size)
    assert store.names() == ["new", "old", "oldest"]
    assert store.save("newer", model, N_KEPT, 2 * size)
    assert len(store.names()) == 2 and "newer" in store.names()
    assert store.save("newest", model, N_KEPT, size)
    assert store.names() == ["newest"]


def test_a_file_may_be_replaced_by_one_that_fills_the_limit(
    store: SavedCaches, model: Model
) -> None:
    store.save("other", model, 20, PLENTY)
    store.save("talk", model, 80, PLENTY)
    used = sum(sizes(store).values())
    assert store.save("talk", model, 80, used)
    assert store.names() == ["other", "talk"]


def test_what_is_larger_than_the_limit_is_not_written_and_displaces_nothing(
    store: SavedCaches, model: Model
) -> None:
    store.save("small", model, 10, PLENTY)
    large = filled(small_model(), len(IDS))
    assert not store.save("talk", large, len(IDS), sizes(store)["small"])
    assert store.names() == ["small"]


def test_prune_removes_until_the_rest_fits(store: SavedCaches, model: Model) -> None:
    for name in ("a", "b"):
        store.save(name, model, N_KEPT, PLENTY)
    store.prune(sizes(store)["a"])
    assert store.names() == ["b"]
    store.prune(0)
    assert store.names() == []


def test_pieces_of_writers_that_were_killed_are_removed(store: SavedCaches, model: Model) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    abandoned, fresh = store._folder / ".talk.kv.abc", store._folder / ".talk.kv.def"
    for piece in (abandoned, fresh):
        piece.write_bytes(b"piece")
    os.utime(abandoned, (1e9, 1e9))
    assert store.names() == ["talk"]
    store.save("talk", model, N_KEPT, PLENTY)
    assert not abandoned.exists() and fresh.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are a thing of Unix")
def test_only_the_owner_can_read_what_was_said(store: SavedCaches, model: Model) -> None:
    store._folder.mkdir(mode=0o755)
    store.save("talk", model, N_KEPT, PLENTY)
    assert file_of(store).stat().st_mode & 0o777 == 0o600
    assert store._folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden"])
def test_a_name_cannot_leave_the_folder(store: SavedCaches, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a kept cache"):
        store.restore(name, small_model(), IDS)


def test_a_folder_that_cannot_be_written_is_one_line_in_the_log(
    read_only_folder: Path, model: Model, log: list[str]
) -> None:
    store = SavedCaches(read_only_folder / "kv")
    assert not store.save("talk", model, N_KEPT, PLENTY)
    assert len(log) == 1 and log[0].startswith("cannot keep ")
    assert store.names() == []
    log.clear()
    assert store.restore("talk", model, IDS) == 0
    store.remove("talk")
    store.prune(0)
    assert len(log) <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no sizes of files")
def test_a_write_that_finds_no_room_keeps_the_old_file_and_no_piece(
    store: SavedCaches, model: Model, log: list[str]
) -> None:
    import resource

    store.save("talk", model, 70, PLENTY)
    log.clear()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        assert not store.save("talk", model, N_KEPT, PLENTY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(log) == 1 and log[0].startswith("cannot keep ")
    assert os.listdir(store._folder) == ["talk.kv"]
    assert store.restore("talk", small_model(), IDS) == 70


def test_files_that_vanish_or_lead_nowhere_are_no_trouble(store: SavedCaches, model: Model) -> None:
    store.save("talk", model, N_KEPT, PLENTY)
    file_of(store, "gone").symlink_to(store._folder / "nowhere")
    assert store.restore("gone", small_model(), IDS) == 0
    assert store.save("other", model, N_KEPT, sizes_of(store, "talk"))
    store.remove("talk")
    store.remove("talk")
    assert "talk" not in store.names()


def sizes_of(store: SavedCaches, name: str) -> int:
    return file_of(store, name).stat().st_size


_OTHER_PROCESS = """
import sys
from pathlib import Path
from tests.engine.test_saved_cache import IDS, N_KEPT, SavedCaches, filled, small_model
model, store = filled(small_model()), SavedCaches(Path(sys.argv[1]))
limit = int(sys.argv[2])
for i in range(40):
    store.save(f"talk{i % 3}", model, N_KEPT - i % 2, limit)
    again = small_model()
    n = store.restore(f"talk{(i + 1) % 3}", again, IDS)
    assert n in (0, N_KEPT, N_KEPT - 1), n
    for name, array in again.cache.export(n).items():
        assert (array == model.cache.export(n)[name]).all(), (i, name)
"""


def test_processes_that_write_and_read_the_same_files_never_see_half_of_one(
    store: SavedCaches, model: Model
) -> None:
    store.save("talk0", model, N_KEPT, PLENTY)
    limit = int(2.5 * sizes(store)["talk0"])  # so that they remove each other's files too
    command = [sys.executable, "-c", _OTHER_PROCESS, str(store._folder), str(limit)]
    root = Path(__file__).parents[2]
    runs = [
        subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err[-2000:]
        assert "damaged" not in err and "checksum" not in err


def test_keep_writes_only_what_spares_enough(store: SavedCaches, model: Model) -> None:
    few = store.MIN_TOKENS - 1
    assert not store.keep("talk", filled(small_model(), few), IDS, PLENTY)
    assert store.names() == []
    assert store.keep("talk", filled(small_model(), few + 1), IDS, PLENTY)
    assert not store.keep("talk", model, IDS, PLENTY)
    assert store.restore("talk", small_model(), IDS) == few + 1
    assert store.keep("talk", filled(small_model(), len(IDS)), IDS, PLENTY)
    assert store.restore("talk", small_model(), IDS) == len(IDS)


def test_keep_writes_only_what_belongs_to_the_conversation(
    store: SavedCaches, model: Model
) -> None:
    conversation = [*IDS[:80], (IDS[80] + 1) % 97]
    assert store.keep("talk", model, conversation, PLENTY)
    again = small_model()
    store.restore("talk", again, IDS)
    assert again.cache.token_ids == IDS[:80]


def test_what_was_taken_back_does_not_stay_on_the_disk(store: SavedCaches, model: Model) -> None:
    store.keep("talk", model, IDS, PLENTY)
    assert not store.keep("talk", model, IDS[: N_KEPT - 5], PLENTY)
    assert store.names() == []
    assert store.keep("talk", model, IDS[: N_KEPT - 5], PLENTY)
    store.keep("talk", model, [(IDS[0] + 1) % 97], PLENTY)
    assert store.names() == []


def test_keep_replaces_what_another_model_kept(store: SavedCaches, model: Model) -> None:
    other = filled(small_model(fingerprint="1" * 64))
    store.keep("talk", other, IDS, PLENTY)
    assert store.keep("talk", model, IDS, PLENTY)
    assert store.restore("talk", small_model(), IDS) == N_KEPT
    assert store.restore("talk", small_model(fingerprint="1" * 64), IDS) == 0
    store.keep("talk", other, IDS[:10], PLENTY)  # too few to be kept in its place
    assert store.names() == []
