"""llama2.c in NumPy, written from the description of its formats and of run.c: the slow, obvious
reference for files of ours, and a writer of such files that shares nothing with the engine's."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

UNKNOWN, BOS, EOS = 0, 1, 2
# what a tiny vocabulary joins, best first
WORDS = (
    *("th", "in", "he", " t", " a", "on", "er", " th", " the", "ll", "o,", " w", "or", " wor"),
    *("ld", "\n\n", "é!", "12", " world", "re", " s", "at", "en", "Un", "ce"),
)
CHARACTERS = " \n!,.'?0123abcdefghijklmnopqrstuvwxyzUOHé"


def vocabulary() -> list[tuple[str, float]]:
    """Pieces as tokenizer.py spells them, with scores."""
    special = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0)]
    pieces = special + [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
    pieces += [(word, -float(i)) for i, word in enumerate(WORDS)]
    return pieces + [(char, -float(len(WORDS) + i)) for i, char in enumerate(CHARACTERS)]


def write_tokenizer(path: Path, pieces: list[tuple[str, float]]) -> Path:
    longest = max(len(piece.encode()) for piece, _ in pieces)
    data = struct.pack("<I", longest)
    for piece, score in pieces:
        data += struct.pack("<fI", score, len(piece.encode())) + piece.encode()
    path.write_bytes(data)
    return path


class Sizes(NamedTuple):
    """The seven numbers, in the file's order, own_head behind."""

    dim: int = 64
    hidden_dim: int = 96
    n_layers: int = 2
    n_heads: int = 4
    n_kv_heads: int = 2
    vocab_size: int = len(vocabulary())
    seq_len: int = 64
    own_head: bool = False

    @property
    def kv_dim(self) -> int:
        return self.dim * self.n_kv_heads // self.n_heads


def random_weights(sizes: Sizes, seed: int = 0) -> dict[str, np.ndarray]:
    """By run.c's names; layers in the first axis."""
    rng = np.random.default_rng(seed)
    n, dim, hidden, kv = sizes.n_layers, sizes.dim, sizes.hidden_dim, sizes.kv_dim
    shapes = {
        "embedding": (sizes.vocab_size, dim), "rms_att": (n, dim), "wq": (n, dim, dim),
        "wk": (n, kv, dim), "wv": (n, kv, dim), "wo": (n, dim, dim), "rms_ffn": (n, dim),
        "w1": (n, hidden, dim), "w2": (n, dim, hidden), "w3": (n, hidden, dim),
        "rms_final": (dim,), "wcls": (sizes.vocab_size, dim),
    }  # fmt: skip
    found = {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape)
        found[name] = 1 + 0.2 * noise if name.startswith("rms") else noise * 0.2
    if not sizes.own_head:
        found["wcls"] = found["embedding"]
    return {name: value.astype(np.float32) for name, value in found.items()}


def write_model(
    path: Path, sizes: Sizes, weights: dict[str, np.ndarray], version: int = 0, group: int = 32
) -> Path:
    numbers = list(sizes[:7])
    w = weights
    if version == 0:
        numbers[5] *= -1 if sizes.own_head else 1
        half = sizes.dim // sizes.n_heads // 2
        tables = np.ones((2, sizes.seq_len, half), np.float32)
        names = ("embedding", "rms_att", "wq", "wk", "wv", "wo", "rms_ffn", "w1", "w2", "w3")
        parts = [*(w[name] for name in names), w["rms_final"], tables]
        parts += [w["wcls"]] if sizes.own_head else []
        data = struct.pack("<7i", *numbers) + b"".join(part.tobytes() for part in parts)
    else:
        data = struct.pack("<Ii7iB", 0x616B3432, version, *numbers, not sizes.own_head)
        data += struct.pack("<i", group) if version == 2 else b""
        data = data.ljust(256, b"\0")
        norms = [w["rms_att"], w["rms_ffn"], w["rms_final"]]
        data += b"".join(norm.tobytes() for norm in norms)
        matrices = [w["embedding"]]
        for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3"):
            matrices += list(w[name])
        matrices += [w["wcls"]] if sizes.own_head else []
        for matrix in matrices:
            data += matrix.tobytes() if version == 1 else _quantised(matrix, group)
    path.write_bytes(data)
    return path


def _quantised(matrix: np.ndarray, group: int) -> bytes:
    groups = matrix.reshape(-1, group)
    scales = (np.abs(groups).max(axis=1) / 127).astype(np.float32)
    q = np.rint(groups / scales[:, None]).astype(np.int8)
    return q.tobytes() + scales.tobytes()


class Reader:
    """run.c (versions 0 and 1) and runq.c's weights (2), over a file."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        version, at, self.group = 0, 28, 0
        numbers = struct.unpack_from("<7i", data)
        shared = numbers[5] > 0
        if data[:4] == b"24ka":
            version, *numbers, flag, self.group = struct.unpack_from("<i7iBi", data, 4)
            shared, at = bool(flag), 256
        self.group = self.group if version == 2 else 0
        sizes = self.sizes = Sizes(*numbers[:5], abs(numbers[5]), numbers[6], not shared)
        self._data, self._at = data, at
        n, dim, hidden, kv = sizes.n_layers, sizes.dim, sizes.hidden_dim, sizes.kv_dim
        w: dict[str, Any] = {}
        if version:
            w["rms_att"] = self._floats(n, dim)
            w["rms_ffn"] = self._floats(n, dim)
            w["rms_final"] = self._floats(dim)
        w["embedding"] = self._matrix(sizes.vocab_size, dim)
        if not version:
            w["rms_att"] = self._floats(n, dim)
        for name, shape in (("wq", (dim, dim)), ("wk", (kv, dim)), ("wv", (kv, dim)),
                            ("wo", (dim, dim))):  # fmt: skip
            w[name] = [self._matrix(*shape) for _ in range(n)]
        if not version:
            w["rms_ffn"] = self._floats(n, dim)
        for name, shape in (("w1", (hidden, dim)), ("w2", (dim, hidden)), ("w3", (hidden, dim))):
            w[name] = [self._matrix(*shape) for _ in range(n)]
        if not version:
            w["rms_final"] = self._floats(dim)
            self._at += 4 * sizes.seq_len * (dim // sizes.n_heads)
        w["wcls"] = w["embedding"] if shared else self._matrix(sizes.vocab_size, dim)
        assert self._at == len(data), (self._at, len(data))
        self.weights = w

    def _floats(self, *shape: int) -> np.ndarray:
        n = int(np.prod(shape))
        found = np.frombuffer(self._data, "<f4", n, self._at).reshape(shape)
        self._at += 4 * n
        return found

    def _matrix(self, *shape: int) -> np.ndarray:
        if not self.group:
            return self._floats(*shape)
        n = int(np.prod(shape))
        q = np.frombuffer(self._data, np.int8, n, self._at).reshape(-1, self.group)
        self._at += n
        return (q * self._floats(n // self.group)[:, None]).reshape(shape)

    def logits(self, ids: list[int]) -> np.ndarray:
        """(T, vocab_size): one token at a time, as forward(token, pos) does."""
        p, w = self.sizes, self.weights
        head = p.dim // p.n_heads
        keys: list[list[np.ndarray]] = [[] for _ in range(p.n_layers)]
        values: list[list[np.ndarray]] = [[] for _ in range(p.n_layers)]
        rows = []
        for pos, token in enumerate(ids):
            x = w["embedding"][token].astype(np.float64)
            angles = pos / 10_000.0 ** (np.arange(0, head, 2) / head)
            for layer in range(p.n_layers):
                y = _norm(x, w["rms_att"][layer])
                q = _turned((w["wq"][layer] @ y).reshape(p.n_heads, head), angles)
                keys[layer].append(
                    _turned((w["wk"][layer] @ y).reshape(p.n_kv_heads, head), angles)
                )
                values[layer].append((w["wv"][layer] @ y).reshape(p.n_kv_heads, head))
                mixed = []
                for h in range(p.n_heads):
                    kv = h // (p.n_heads // p.n_kv_heads)
                    scores = np.array([k[kv] @ q[h] for k in keys[layer]]) / np.sqrt(head)
                    shares = np.exp(scores - scores.max())
                    shares /= shares.sum()
                    mixed.append(sum(s * v[kv] for s, v in zip(shares, values[layer], strict=True)))
                x = x + w["wo"][layer] @ np.concatenate(mixed)
                y = _norm(x, w["rms_ffn"][layer])
                gate = w["w1"][layer] @ y
                x = x + w["w2"][layer] @ (gate / (1 + np.exp(-gate)) * (w["w3"][layer] @ y))
            rows.append(w["wcls"] @ _norm(x, w["rms_final"]))
        return np.array(rows, np.float32)


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight * x / np.sqrt((x * x).mean() + 1e-5)


def _turned(heads: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Neighbours are pairs."""
    a, b = heads[:, 0::2], heads[:, 1::2]
    out = np.empty_like(heads)
    out[:, 0::2] = a * np.cos(angles) - b * np.sin(angles)
    out[:, 1::2] = a * np.sin(angles) + b * np.cos(angles)
    return out


class Vocabulary:
    """run.c's encode and decode, over a tokenizer.bin."""

    def __init__(self, path: Path, n_tokens: int) -> None:
        data, at = path.read_bytes(), 4
        self.pieces: list[bytes] = []
        self.scores: list[float] = []
        for _ in range(n_tokens):
            score, size = struct.unpack_from("<fI", data, at)
            self.pieces.append(data[at + 8 : at + 8 + size])
            self.scores.append(score)
            at += 8 + size
        assert at == len(data)
        assert struct.unpack_from("<I", data)[0] == max(map(len, self.pieces))
        self.ids = {piece: i for i, piece in reversed(list(enumerate(self.pieces)))}

    def encode(self, text: str) -> list[int]:
        """With BOS."""
        tokens = [self.ids[b" "]] if text else []
        for char in text:
            found = self.ids.get(char.encode())
            tokens += [byte + 3 for byte in char.encode()] if found is None else [found]
        while True:
            best: tuple[float, int, int] | None = None
            for i in range(len(tokens) - 1):
                joined = self.ids.get(self.pieces[tokens[i]] + self.pieces[tokens[i + 1]])
                if joined is not None and (best is None or self.scores[joined] > best[0]):
                    best = self.scores[joined], i, joined
            if best is None:
                return [BOS, *tokens]
            tokens[best[1] : best[1] + 2] = [best[2]]

    def decode(self, ids: list[int]) -> bytes:
        text, before = b"", BOS
        for token in ids:
            piece = self.pieces[token]
            piece = piece[1:] if before == BOS and piece.startswith(b" ") else piece
            is_byte = len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">")
            text += bytes([int(piece[3:5], 16)]) if is_byte else piece
            before = token
        return text
