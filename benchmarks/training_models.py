"""The default model for the peers, and the processes of both sides of a training benchmark."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

from benchmarks import options, peers
from benchmarks.process import Worker

PEER = "training"
_DRIVER = "benchmarks.training_peers_driver"
LONG_S = 6 * 3600.0  # for a run of hundreds of steps


def peers_worker(stack: ExitStack, threads: int) -> Worker | None:
    """A process of the peers' own environment; None where that is not there."""
    python = peers.find(PEER)
    if python is None:
        return None
    # a loop on a thread of its own begins with what the environment says
    return stack.enter_context(Worker(python, _DRIVER, {"OMP_NUM_THREADS": str(threads)}))


def our_worker(stack: ExitStack, chosen: options.Options) -> Worker:
    """A process of ours, with runs and adapters beside the peers."""
    driver = "benchmarks.training_engine_driver"
    return stack.enter_context(Worker(sys.executable, driver, chosen.variables()))


def huggingface_folder(gguf: Path) -> Path | None:
    """The GGUF file's values in float32 as transformers loads them; made by the peers, once."""
    stamp = blake2b(f"{gguf.absolute()} {gguf.stat().st_size}".encode(), digest_size=6).hexdigest()
    folder = peers.bench_dir() / "models" / f"{gguf.stem}-{stamp}-f32"
    if (folder / "config.json").is_file() and list(folder.glob("*.safetensors")):
        return folder
    with ExitStack() as stack:
        worker = peers_worker(stack, 1)
        if worker is None:
            return None
        options.note(f"writing {gguf.name} in float32 for the peers, once")
        worker.ask("prepare", gguf=str(gguf), folder=str(folder))
    return folder


def settings(chosen: options.Options, name: str, rows: Path, **more: Any) -> dict[str, Any]:
    """Of a run of ours without evaluations and samples, which the peers do not make either."""
    return {
        "data": str(rows),
        "model": str(chosen.model),
        "name": f"bench-{name}",
        "val_share": 0.0,
        "samples": 0,
        "save_every": 1 << 20,
        "evaluate_every": 1 << 20,
        "epochs": 1000,
        "threads": chosen.threads[-1],
        **more,
    }
