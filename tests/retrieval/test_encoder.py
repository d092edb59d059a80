from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from data import catalogue, hub_cache
from retrieval import encoder as encoders
from retrieval.encoder import (
    EncoderInBackground,
    EncoderMissingError,
    describe,
    find_encoder,
    load_encoder,
)
from tests.retrieval.encoders import BlockingEncoder, HashingEncoder


def folder_of(path: Path, weights: bytes = b"weights", **config: object) -> Path:
    """A folder that looks like an encoder's."""
    (path / "1_Pooling").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(weights)
    for name, value in {
        "modules.json": [],
        "config.json": {"_name_or_path": "org/Small-L6", "model_type": "bert"},
        "1_Pooling/config.json": {
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False,
        },
        "sentence_bert_config.json": {"max_seq_length": 256},
        "config_sentence_transformers.json": config,
    }.items():
        (path / name).write_text(json.dumps(value), "utf-8")
    return path


def test_importing_and_looking_for_an_encoder_is_light() -> None:
    code = """
import sys
import retrieval.encoder as e, retrieval.search, retrieval.fusion, retrieval.passages
import retrieval.backends, retrieval.rerank
try: e.find_encoder("no/such")
except FileNotFoundError: pass
print(*{"torch", "faiss", "sentence_transformers", "transformers", "scipy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_default_is_in_the_catalogue_as_an_encoder() -> None:
    known = catalogue.find(encoders.DEFAULT_ENCODER)
    assert known is not None and known.kind == "encoder"
    assert {"modules.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in known.files}
    assert [model.name for model in catalogue.models() if model.kind != "chat"] == ["minilm"]


def test_an_encoder_that_is_not_there_names_the_command_and_the_size(home: Path) -> None:
    with pytest.raises(EncoderMissingError) as error:
        find_encoder()
    said = str(error.value)
    assert "only words are searched" in said and "`sparsechat models pull minilm`" in said
    assert "91.6 MB" in said and "\n" not in said


def test_an_unknown_name_is_one_line(home: Path) -> None:
    with pytest.raises(EncoderMissingError, match="no model 'minilmm'"):
        find_encoder("minilmm")


def test_a_folder_is_found_by_its_path(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "encoder")
    assert find_encoder(folder) == find_encoder(str(folder)) == folder


def test_the_hub_cache_is_looked_into(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_cache, "cache_folder", lambda: tmp_path)
    name = "models--sentence-transformers--all-MiniLM-L6-v2"
    snapshot = folder_of(tmp_path / name / "snapshots" / "abcdef0")
    assert find_encoder("minilm") == snapshot
    assert find_encoder("sentence-transformers/all-MiniLM-L6-v2") == snapshot


def test_a_chat_model_is_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is no encoder: modules\.json and model\.safetensors"):
        find_encoder(tmp_path)


def test_without_sentence_transformers_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "encoder")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderMissingError, match=r"pip install 'sparsechat\[retrieval\]'"):
        load_encoder(folder)


def test_the_id_has_name_weights_pooling_and_length(tmp_path: Path) -> None:
    one = describe(folder_of(tmp_path / "one"))
    assert one.startswith("Small-L6-") and one.endswith("-mean-256")
    assert describe(folder_of(tmp_path / "elsewhere")) == one


def test_the_id_changes_with_whatever_changes_vectors(tmp_path: Path) -> None:
    ids = {describe(folder_of(tmp_path / "same"))}
    ids.add(describe(folder_of(tmp_path / "weights", weights=b"others")))
    ids.add(describe(folder_of(tmp_path / "prompts", prompts={"query": "query: "})))
    pooled = folder_of(tmp_path / "pooled")
    (pooled / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    ids.add(describe(pooled))
    longer = folder_of(tmp_path / "longer")
    (longer / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
    ids.add(describe(longer))
    layered = folder_of(tmp_path / "layered")
    (layered / "2_Dense").mkdir()
    (layered / "2_Dense" / "model.safetensors").write_bytes(b"projection")
    ids.add(describe(layered))
    assert len(ids) == 6


def test_a_damaged_config_is_one_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "encoder")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        describe(folder)


def test_the_background_gives_the_encoder_when_it_is_there() -> None:
    release, told = threading.Event(), []

    def load(name: str | Path) -> HashingEncoder:
        assert release.wait(60)
        return HashingEncoder(name=str(name))

    pending = EncoderInBackground("any", load, told.append)
    assert (pending.now(), pending.is_finished, pending.error) == (None, False, None)
    assert pending.wait(timeout_s=0.01) is None
    release.set()
    found = pending.wait()
    assert found is not None and found.encoder_id == "any-64"
    assert pending.now() is found and pending.is_finished
    assert told == [found]


def test_what_loading_raised_is_kept_for_whoever_asks() -> None:
    def load(name: str | Path) -> HashingEncoder:
        raise EncoderMissingError("not here")

    pending = EncoderInBackground("any", load)
    with pytest.raises(EncoderMissingError, match="not here"):
        pending.wait()
    assert pending.now() is None and pending.is_finished
    assert isinstance(pending.error, EncoderMissingError)


def test_the_fake_encoders_do_what_an_encoder_does() -> None:
    encoder = HashingEncoder(32)
    rows = encoder.encode(["one two", "two one", "", "three"])
    assert (rows.shape, rows.dtype) == ((4, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[1])
    waiting = BlockingEncoder()
    thread = threading.Thread(target=waiting.encode, args=(["x"],))
    thread.start()
    assert waiting.waiting.wait(60)
    waiting.release.set()
    thread.join()


@pytest.mark.model
@pytest.mark.slow
def test_minilm_gives_the_vectors_of_sentence_transformers(minilm: Path) -> None:
    encoder = load_encoder(minilm)
    assert encoder.dimension == 384
    assert encoder.encoder_id == "MiniLM-L6-H384-uncased-53aa51172d14-mean-256"
    texts = ["A short one.", "", "word " * 400, "Zürich – 東京 🙂", "half \udc80 a character"]
    texts += [f"Sentence number {i} about {'many ' * (i % 40)} things." for i in range(150)]
    told: list[tuple[int, int]] = []
    rows = encoder.encode(texts, lambda done, total: told.append((done, total)))  # type: ignore[call-arg]
    assert (rows.shape, rows.dtype) == ((155, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    model = encoder._model  # type: ignore[attr-defined]
    texts[4] = "half ? a character"
    theirs = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert (rows * theirs).sum(axis=1).min() > 0.99999
    assert told[-1] == (155, 155) and len(told) > 3
    assert encoder.encode([]).shape == (0, 384)
    question = encoder.encode_query(["Where is Zurich?"])  # type: ignore[attr-defined]
    near = question @ encoder.encode(["Zurich lies in Switzerland.", "Bread is baked."]).T
    assert near[0, 0] > near[0, 1] + 0.3


@pytest.mark.model
@pytest.mark.slow
def test_threads_encode_at_once_and_torchs_threads_stay(minilm: Path) -> None:
    import torch

    encoder = load_encoder(minilm)
    before = torch.get_num_threads()
    texts = [f"Text {i} {'more ' * (i % 30)}" for i in range(60)]
    wanted = encoder.encode(texts)
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.encode(texts))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for rows in found:
        np.testing.assert_allclose(rows, wanted, atol=1e-5)
    assert torch.get_num_threads() == before


@pytest.mark.model
@pytest.mark.slow
def test_a_vector_has_the_same_bits_in_any_company(minilm: Path) -> None:
    encoder = load_encoder(minilm)
    texts = [f"Text {i} about {'many ' * (i % 50)} things." for i in range(120)]
    together = encoder.encode(texts)
    for some in (texts[::3], texts[7:20], texts[-1:]):
        alone = encoder.encode(some)
        wanted = together[[texts.index(text) for text in some]]
        # what is stored and indexed
        np.testing.assert_array_equal(alone.astype(np.float16), wanted.astype(np.float16))
