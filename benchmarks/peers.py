"""The programs that we are measured against, each in an environment of its own.

    python -m benchmarks.peers [NAME …] [--rebuild]

builds them ahead of time; a benchmark builds what it lacks (with --quick it only uses what is
there). They stand in the user's cache folder or in $SPARSECHAT_BENCH, never in the repository. An
environment is finished when its ready.json exists: an interrupted build is made again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import platformdirs

from data import locks

ROOT = Path(__file__).parents[1]
_CONSTRAINTS = ROOT / "constraints.txt"
_STEP = re.compile(r"\[(\d+)/(\d+)\]")  # Ninja's and Make's own count of what is compiled


class PeerError(Exception):
    """A peer that cannot be built or does not answer; the message is one line."""


@dataclass(frozen=True)
class Peer:
    """What to install, and how to see that it works."""

    name: str
    requirements: tuple[str, ...]
    takes: str  # how long a build takes, for people
    check: str  # Python that prints one line about a finished environment
    options: tuple[str, ...] = ()  # of pip install
    variables: Mapping[str, str] = field(default_factory=dict)


def _llama(name: str, cmake: str) -> Peer:
    return Peer(
        name,
        ("llama-cpp-python==0.3.36",),
        "about ten minutes",
        "import llama_cpp as c; print(c.__version__, c.llama_print_system_info().decode())",
        # a wheel in pip's cache may have been compiled with other flags
        ("--no-binary", "llama-cpp-python", "--no-cache-dir"),
        {"CMAKE_ARGS": cmake},
    )


PEERS = {
    peer.name: peer
    for peer in (
        _llama("llama", "-DGGML_NATIVE=ON"),
        # what llama.cpp does on a CPU without AVX-512
        _llama(
            "llama-avx2",
            "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON",
        ),
        Peer(
            "transformers",
            ("torch", "transformers", "gguf"),  # versions: constraints.txt
            "a few minutes",
            "import torch, transformers as t; print('torch', torch.__version__, t.__version__)",
        ),
        Peer(
            "training",
            (
                *("torch", "transformers", "peft", "gguf", "trl==1.16.0", "datasets==5.2.0"),
                *("dill==0.4.1", "multiprocess==0.70.19", "xxhash==4.1.0"),
            ),
            "a few minutes",
            "import torch, trl, peft, transformers as t; print('torch', torch.__version__, "
            "'transformers', t.__version__, 'peft', peft.__version__, 'trl', trl.__version__)",
        ),
    )
}


def bench_dir() -> Path:
    """Where peers and their model files are kept; not created here."""
    chosen = os.environ.get("SPARSECHAT_BENCH", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("sparsechat-bench", appauthor=False)


def find(name: str) -> Path | None:
    """The Python of a finished environment, or None."""
    peer = PEERS[name]
    if name == "transformers" and _serves(peer):
        return Path(sys.executable)
    try:
        ready = json.loads(_folder(name).joinpath("ready.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    python = _python(name)
    return python if ready.get("recipe") == _recipe(peer) and python.exists() else None


def about(name: str) -> str:
    """The finished environment's one line about itself; "" for our own environment."""
    try:
        ready = json.loads(_folder(name).joinpath("ready.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(ready.get("about", ""))


def ensure(name: str, *, rebuild: bool = False) -> Path:
    """The Python of the environment, built first when it is not there; PeerError when it cannot."""
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder.with_suffix(".lock"), _say):
        python = find(name)
        if python is None or (rebuild and python == _python(name)):
            _build(PEERS[name])
            python = _python(name)
    return python


def available(name: str, *, build: bool) -> Path | None:
    """Like ensure, but a peer that is not to be had is one line on stderr and None."""
    python = find(name)
    if python is None and not build:
        _say(f"{name} is not built, so it is left out; python -m benchmarks.peers {name}")
    elif python is None:
        try:
            python = ensure(name)
        except (PeerError, OSError) as error:
            _say(f"{name} is left out: {error}")
    return python


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _folder(name: str) -> Path:
    return bench_dir() / "peers" / name


def _python(name: str) -> Path:
    windows = sys.platform == "win32"
    return _folder(name) / "venv" / ("Scripts/python.exe" if windows else "bin/python")


def _recipe(peer: Peer) -> dict[str, object]:
    """What a finished environment was made from; another recipe makes it anew."""
    made = asdict(peer)
    pins = _pins()
    chosen = [r if "==" in r else f"{r}=={pins[r]}" for r in peer.requirements]
    return {
        "requirements": chosen,
        "options": list(made["options"]),
        "variables": dict(made["variables"]),
        "python": ".".join(map(str, sys.version_info[:2])),
    }


def _pins() -> dict[str, str]:
    lines = _CONSTRAINTS.read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def _serves(peer: Peer) -> bool:
    """Whether our own environment already has exactly what the peer asks for."""
    pins = _pins()
    try:
        return all(metadata.version(r).split("+")[0] == pins[r] for r in peer.requirements)
    except metadata.PackageNotFoundError:
        return False


def _build(peer: Peer) -> None:
    folder, python = _folder(peer.name), _python(peer.name)
    log = folder / "build.log"
    _say(f"building {peer.name} into {folder} ({peer.takes}, once)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    recipe = _recipe(peer)
    with log.open("w", encoding="utf-8") as out:
        subprocess.run(
            [sys.executable, "-m", "venv", str(folder / "venv")],
            stdout=out, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
    pip = [str(python), "-m", "pip", "install", "-v", "--disable-pip-version-check"]
    pip += ["--constraint", str(_CONSTRAINTS), *peer.options]
    if "torch" in peer.requirements and (index := os.environ.get("TORCH_INDEX")):
        pip += ["--extra-index-url", index]
    code = _watch([*pip, *peer.requirements], log, {**os.environ, **peer.variables}, peer.name)
    if code:
        raise PeerError(f"pip ended with code {code}; the end of {log} says why")
    checked = subprocess.run(
        [str(python), "-c", peer.check], capture_output=True, text=True, check=False
    )
    if checked.returncode:
        last = (checked.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerError(f"it was built but does not run: {last}")
    seconds = time.perf_counter() - started
    ready = {"recipe": recipe, "about": checked.stdout.strip(), "build_s": round(seconds)}
    part = folder / "ready.json.part"
    part.write_text(json.dumps(ready, indent=1), "utf-8")
    part.replace(folder / "ready.json")
    _say(f"built {peer.name} in {seconds:.0f} s")


def _watch(command: list[str], log: Path, variables: dict[str, str], name: str) -> int:
    """Run pip, its output into the log, and show how far the compiler is."""
    shown, step = -1, 1 if sys.stderr.isatty() else 10
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    assert process.stdout is not None
    try:
        with process, log.open("a", encoding="utf-8") as out:
            for line in process.stdout:
                out.write(line)
                if found := _STEP.search(line):
                    done, total = map(int, found.groups())
                    percent = 100 * done // max(total, 1)
                    if percent // step > shown // step:
                        shown = percent
                        end = "\r" if step == 1 else "\n"
                        print(f"{name}: {done} of {total} files", file=sys.stderr, end=end)
    except BaseException:
        process.kill()
        raise
    return process.returncode


def main() -> int:
    """Build what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--rebuild", action="store_true", help="make them anew")
    args = parser.parse_args()
    names = args.names or ["llama", "transformers"]
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"no peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    failed = 0
    for name in names:
        try:
            python = ensure(name, rebuild=args.rebuild)
            print(f"{name:14}{about(name) or 'this environment'}\n{'':14}{python}")
        except (PeerError, OSError, subprocess.CalledProcessError) as error:
            failed += 1
            _say(f"{name} cannot be built: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
