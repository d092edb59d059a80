"""Model files damaged by chance, truncated and with single bits flipped, and models of wrong parts.

Whatever the bytes, opening a checkpoint and reading all of it either works or raises ValueError or
FileNotFoundError with one line; it neither hangs nor takes more memory than the file explains.
Files that lie on purpose are in tests/engine/checkpoints/test_gguf_file.py and test_safetensors.py.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from engine.checkpoints import open_checkpoint
from engine.weights import load_weights

N_DAMAGED = 200
REPOSITORY = Path(__file__).parents[2]

# reads everything that a checkpoint offers, in a child with little memory and little time
PROBE = """
import json, pathlib, resource, sys
import gguf.quants
from engine.checkpoints import open_checkpoint

def read_all(path):
    checkpoint = open_checkpoint(path)
    parts = [lambda: dict(checkpoint.config), lambda: dict(checkpoint.generation_config),
             lambda: dict(checkpoint.tokenizer_config), lambda: checkpoint.chat_template,
             lambda: dict(checkpoint.ggml_tokenizer or {}), checkpoint.decoder_config,
             checkpoint.fingerprint]
    parts += [lambda name=name: checkpoint.tensor(name).float32()
              for name in checkpoint.tensor_names()]
    faults = []
    for part in parts:
        try:
            part()
        except (ValueError, FileNotFoundError) as error:
            faults.append(str(error))
    return faults

pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (128 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
outcomes = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        faults = read_all(path)
    except (ValueError, FileNotFoundError) as error:
        faults = [str(error)]
    except BaseException as error:
        faults = [f"{type(error).__name__} escaped: {error}"]
    outcomes[str(path)] = faults
print(json.dumps(outcomes))
"""


def probe(folder: Path) -> dict[str, list[str]]:
    """The faults of every checkpoint in `folder`, by path."""
    command = [sys.executable, "-c", PROBE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes: dict[str, list[str]] = json.loads(done.stdout)
    for path, faults in outcomes.items():
        for fault in faults:
            assert fault.startswith(path), fault
            assert "\n" not in fault
            assert len(fault) < len(path) + 400
    return outcomes


def write_gguf(path: Path) -> bytes:
    """A sound file with many kinds of values and five kinds of tensors; it ends with a tensor."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(64)
    writer.add_block_count(1)
    writer.add_head_count([4, 4])
    writer.add_context_length(128)
    writer.add_rope_freq_base(1e4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<s>", "</s>", "é", "▁a"])
    writer.add_token_scores([0.0, 0.0, -1.0, -2.0])
    writer.add_token_types([3, 3, 1, 1])
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_array("tokenizer.ggml.nested", [[1, 2], [3]])
    writer.add_chat_template("{{ messages }}")
    kinds = [("token_embd", "Q8_0", 4, 272), ("blk.0.attn_q", "Q4_1", 2, 160)]
    kinds += [("blk.0.attn_k", "Q6_K", 2, 210), ("blk.0.attn_v", "BF16", 2, 512)]
    for name, kind, n_rows, n_bytes in kinds:
        rows = rng.integers(0, 256, (n_rows, n_bytes), dtype=np.uint8)
        writer.add_tensor(f"{name}.weight", rows, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("rope_freqs.weight", np.full(32, 1.5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def whole_safetensors() -> bytes:
    rng = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (2, 8), "model.layers.0.self_attn.q_proj": (8, 8)}
    tensors = {f"{name}.weight": rng.random(shape, np.float32) for name, shape in shapes.items()}
    return save(tensors | {"model.norm.weight": np.ones(8, dtype=np.float16)})


CONFIG = (
    b'{"model_type": "llama", "vocab_size": 2, "hidden_size": 8, "intermediate_size": 8, '
    b'"num_hidden_layers": 1, "num_attention_heads": 2, "rope_theta": 10000.0, '
    b'"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "tie_word_embeddings": true}'
)


def flipped(raw: bytes, n_header: int) -> Iterator[bytes]:
    """N_DAMAGED copies with one bit changed, three of four in the first n_header bytes."""
    rng = random.Random(1)
    for i in range(N_DAMAGED):
        at = rng.randrange(n_header) if i % 4 else rng.randrange(n_header, len(raw))
        damaged = bytearray(raw)
        damaged[at] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


def truncated(raw: bytes) -> Iterator[bytes]:
    """N_DAMAGED beginnings of different lengths, the empty one and all but one byte among them."""
    for i in range(N_DAMAGED):
        yield raw[: i * (len(raw) - 1) // (N_DAMAGED - 1)]


def write_directories(folder: Path, versions: Iterator[bytes], damaged: str) -> None:
    for i, raw in enumerate(versions):
        one = folder / f"{i:03}"
        one.mkdir()
        (one / "config.json").write_bytes(CONFIG)
        (one / "model.safetensors").write_bytes(whole_safetensors())
        (one / damaged).write_bytes(raw)


def test_the_undamaged_files_are_sound(tmp_path: Path) -> None:
    write_gguf(tmp_path / "whole.gguf")
    write_directories(tmp_path, iter([CONFIG]), "config.json")
    assert list(probe(tmp_path).values()) == [[], []]


def test_a_truncated_gguf_is_always_noticed(tmp_path: Path) -> None:
    for i, raw in enumerate(truncated(write_gguf(tmp_path / "000.gguf"))):
        (tmp_path / f"{i:03}.gguf").write_bytes(raw)
    outcomes = probe(tmp_path)
    assert len(outcomes) == N_DAMAGED
    assert all(outcomes.values())
    assert sum("download it again" in faults[0] for faults in outcomes.values()) >= N_DAMAGED - 5


def test_a_bit_flipped_gguf_is_read_or_refused(tmp_path: Path) -> None:
    raw = write_gguf(tmp_path / "000.gguf")
    for i, damaged in enumerate(flipped(raw, raw.index(b"rope_freqs") + 50)):
        (tmp_path / f"{i:03}.gguf").write_bytes(damaged)
    outcomes = probe(tmp_path)
    assert len(outcomes) == N_DAMAGED
    assert 20 < sum(map(bool, outcomes.values())) < N_DAMAGED - 20


def test_a_truncated_safetensors_file_is_always_noticed(tmp_path: Path) -> None:
    write_directories(tmp_path, truncated(whole_safetensors()), "model.safetensors")
    outcomes = probe(tmp_path)
    assert len(outcomes) == N_DAMAGED
    assert all(outcomes.values())


def test_a_truncated_config_is_always_noticed(tmp_path: Path) -> None:
    write_directories(tmp_path, truncated(CONFIG), "config.json")
    assert all(probe(tmp_path).values())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_bit_flipped_directory_is_read_or_refused(tmp_path: Path, name: str) -> None:
    raw, n_header = CONFIG, len(CONFIG) - 1
    if name == "model.safetensors":
        raw = whole_safetensors()
        n_header = 8 + int.from_bytes(raw[:8], "little")
    write_directories(tmp_path, flipped(raw, n_header), name)
    outcomes = probe(tmp_path)
    assert len(outcomes) == N_DAMAGED
    assert 20 < sum(map(bool, outcomes.values())) < N_DAMAGED - 5


def write_model(folder: Path, **changes: np.ndarray) -> Path:
    """The directory that CONFIG describes, whole but for `changes` (`__` stands for a dot)."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (2, 8),
        "norm": (8,),
        "layers.0.input_layernorm": (8,),
        "layers.0.post_attention_layernorm": (8,),
    }
    parts = [f"self_attn.{part}_proj" for part in "qkvo"]
    parts += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    shapes |= {f"layers.0.{part}": (8, 8) for part in parts}
    tensors = {f"model.{n}.weight": np.ones(shape, np.float32) for n, shape in shapes.items()}
    tensors |= {f"model.{n.replace('__', '.')}.weight": array for n, array in changes.items()}
    (folder / "config.json").write_bytes(CONFIG)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_whole_model_without_tokenizer_is_read_against_its_config(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_model(tmp_path))
    load_weights(checkpoint, checkpoint.decoder_config(), "f32", None)
    assert checkpoint.tokenizer_json is None
    assert checkpoint.tokenizer_config == {}


NAN = np.full((8, 8), np.nan, np.float32)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("embed_tokens", np.ones((3, 8), np.float32), "(3, 8), its config asks for (2, 8)"),
        ("norm", np.ones((8, 1), np.float32), "(8, 1), its config asks for (8,)"),
        ("layers__0__mlp__up_proj", np.ones((8, 9), np.float32), "(8, 9), its config asks for"),
        ("layers__0__self_attn__o_proj", NAN, "NaN"),
        ("layers__0__input_layernorm", NAN[0], "NaN"),
        ("layers__0__mlp__gate_proj", np.full((8, 8), np.inf, np.float16), "infinite"),
    ],
)
def test_wrong_parts_are_refused_by_name(
    tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    checkpoint = open_checkpoint(write_model(tmp_path, **{name: array}))
    with pytest.raises(ValueError) as error:
        load_weights(checkpoint, checkpoint.decoder_config(), "f32", None)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
