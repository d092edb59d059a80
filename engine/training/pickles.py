"""Tensors out of pickles, which other programs saved with torch.

Only torch's weights-only loader opens them: it builds tensors and plain containers, and refuses
whatever else a pickle asks for before that runs. Needs torch, as this folder alone does.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoints import RawTensor

AGAIN = "get the file again"
_ZIP = b"PK"
_GLOBAL = re.compile(r"(?:GLOBAL|global:?) `?([\w.]+\.\w+)")


def read_pickle(path: Path) -> dict[str, RawTensor]:
    """Tensors by name; mapped from the file, unless it is of torch's format before 1.6.

    Their kinds are F32, F16 and BF16, or another dtype's name in capitals, whose data is empty.
    ValueError (one line) for a file of anything else than tensors by name, FileNotFoundError.
    """
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: holds a {type(loaded).__name__} instead of tensors by name")
    found = {}
    for name, value in loaded.items():
        if not isinstance(name, str):
            raise ValueError(f"{path}: holds {str(name)[:40]!r}, which is no name of a tensor")
        found[name] = _tensor(name, value, path)
    return found


def _load(path: Path) -> Any:
    import torch

    with path.open("rb") as file:
        is_zip = file.read(2) == _ZIP
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged or hostile file ends in any of them
        raise ValueError(f"{path}: {_reason(str(error))}") from None


def _reason(text: str) -> str:
    if asked := _GLOBAL.search(text):
        return (
            f"its pickle asks for {asked[1][:80]}, which is no tensor, so it is not loaded and "
            "nothing of it ran; take weights that were saved as safetensors, or as a state_dict"
        )
    first = text.strip().partition("\n")[0].partition(". ")[0][:160]
    return (
        f"no file of tensors that torch's weights-only loader reads ({first or 'empty'}); {AGAIN}"
    )


def _tensor(name: str, value: Any, path: Path) -> RawTensor:
    import torch

    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    what = f"{path}: {name[:80]!r}"
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{what} is a {type(value).__name__}, not a tensor; {AGAIN}")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise ValueError(f"{what} is no plain tensor ({value.layout}, {value.device.type})")
    shape = tuple(value.shape)
    if value.dtype not in kinds:
        kind = str(value.dtype).removeprefix("torch.").upper()
        return RawTensor(name, shape, kind, np.empty(0, np.uint8), str(path))
    # strides of 0 make much of a few bytes
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise ValueError(
            f"{what} of shape {shape} claims more numbers than the file holds; {AGAIN}"
        )
    flat = value.detach().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return RawTensor(name, shape, kinds[value.dtype], data, str(path))
