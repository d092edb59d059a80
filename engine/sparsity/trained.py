"""Thresholds that a model was trained for: a small file beside its weights.

`sparsity.json` in a model's directory, `NAME.sparsity.json` beside NAME.gguf. Whoever knows nothing
of it reads the model as any other, densely.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.checkpoints._json import read_object
from engine.kernels.sparse import BY_INPUTS, BY_ROWS, DENSE
from engine.kernels.tables import DOWN_SITE, UP_SITE
from engine.packed import replacing
from engine.sparsity.thresholds import Thresholds, dense, site_cost

if TYPE_CHECKING:
    from engine.decoder import Decoder

NAME = "sparsity.json"
_VERSION = 2
_NEAR = 0.005  # of a share that is asked for, to the one that was trained


class Trained(NamedTuple):
    """values  float32 (n_layers, 2), of |activation(gate)| and |product|; below 0 = no threshold
    share   of the neurons that they leave out; rows: that the gate's leave out alone
    importance  of neurons, see engine.sparse_formats.Sparse
    """

    values: NDArray[np.float32]
    share: float
    rows: float
    importance: NDArray[np.float32] | None = None

    def is_for(self, share: float) -> bool:
        """Whether the model was trained to leave this share out."""
        return abs(share - self.share) <= _NEAR

    def thresholds(self, decoder: Decoder) -> Thresholds:
        """For the engine: of the feed-forwards alone, with lines for the report."""
        found, paths = dense(len(self.values)), self.paths()
        found.values[:, [UP_SITE, DOWN_SITE]] = self.values
        sites = {BY_ROWS: (UP_SITE, DOWN_SITE), BY_INPUTS: (DOWN_SITE,), DENSE: ()}
        left_out = {UP_SITE: self.rows, DOWN_SITE: self.share}
        lines = [
            site_cost(decoder, layer, site, 1 - left_out[site])
            for layer, path in enumerate(paths.tolist())
            for site in sites[path]
        ]
        return replace(
            found, paths=paths, sites=tuple(lines), kl=np.nan, importance=self.importance
        )

    def paths(self) -> NDArray[np.int64]:
        """How each layer's feed-forward goes, (n_layers,): see engine/kernels/sparse.py."""
        by_rows, by_inputs = self.values[:, 0] >= 0, self.values[:, 1] >= 0
        return np.where(by_rows, BY_ROWS, np.where(by_inputs, BY_INPUTS, DENSE)).astype(np.int64)


def file_of(checkpoint: Path) -> Path:
    """Where the thresholds of a GGUF file or a directory are."""
    if checkpoint.is_dir():
        return checkpoint / NAME
    return checkpoint.with_name(f"{checkpoint.stem}.{NAME}")


def write_trained(checkpoint: Path, trained: Trained, fingerprint: str) -> Path:
    """fingerprint: SHA-256 of the checkpoint, which the thresholds are of."""
    path = file_of(checkpoint)
    importance = trained.importance
    value = {
        "version": _VERSION,
        "fingerprint": fingerprint,
        "share": trained.share,
        "rows": trained.rows,
        "thresholds": trained.values.tolist(),
        "importance": None if importance is None else importance.tolist(),
    }
    with replacing(path) as file:
        file.write(json.dumps(value).encode() + b"\n")
    return path


def read_trained(checkpoint: Path, shape: tuple[int, int], fingerprint: str) -> Trained | None:
    """None where there is no such file. ValueError, one line, for one of another model.

    shape   (n_layers, intermediate_size)
    """
    path = file_of(checkpoint)
    if not path.is_file():
        return None
    found = read_object(path)
    if found.get("version") != _VERSION:
        raise ValueError(f"{path}: version {found.get('version')!r}, this build reads {_VERSION}")
    if found.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{path} is of another model ({str(found.get('fingerprint'))[:12]}, this one is "
            f"{fingerprint[:12]}); take it away, or put the model back that it came with"
        )
    values = _numbers(found.get("thresholds"))
    if values.shape != (shape[0], 2) or not np.isfinite(values).all():
        raise ValueError(f"{path}: thresholds must be {shape[0]} pairs of finite numbers")
    importance = None
    if found.get("importance") is not None:
        importance = _numbers(found["importance"])
        if importance.shape != shape or not (np.isfinite(importance) & (importance > 0)).all():
            raise ValueError(
                f"{path}: importance must be {shape[0]} lists of {shape[1]} numbers above 0"
            )
    return Trained(values, _share(path, found, "share"), _share(path, found, "rows"), importance)


def _numbers(value: Any) -> NDArray[np.float32]:
    """Of no size where the value is not made of numbers in equal lists."""
    try:
        return np.array(value, np.float32)
    except (TypeError, ValueError):
        return np.zeros(0, np.float32)


def _share(path: Path, found: dict[str, Any], name: str) -> float:
    share = found.get(name)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"{path}: {name} must be in [0, 1], got {json.dumps(share)[:40]}")
    return float(share)
