"""The flags that the benchmarks share, and what they are turned into."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import bandwidth, gguf_files, machine, peers

DEFAULT = "smollm2-135m"
# what stands behind a result's name, so that results of other questions are not overwritten
_VARIANTS = {"llama": "", "llama-avx2": "-avx2", "transformers": "-transformers", "none": "-alone"}


@dataclass(frozen=True)
class Options:
    """What to measure and how often."""

    name: str  # of the benchmark; with what is not the default, the name of its result
    label: str  # the model's name, short
    model: Path
    formats: tuple[str, ...]  # "stored" and gguf_files.KINDS
    peer: str | None  # an environment of benchmarks/peers.py that is there; None for ours alone
    quick: bool
    save: bool
    threads: tuple[int, ...]
    rounds: int  # of one period; both sides are measured once in each
    periods: int = 1  # each with new processes, one after all cases of the other
    tokens: int | None = None  # of a prompt or an answer, where the default is not wanted
    avx2: bool = False
    kv_cache: str | None = None  # the format of our cache; None: what a user gets

    def files(self) -> dict[str, Path]:
        """Case -> GGUF file; those in other formats are made when they are not there."""
        found = {}
        whose = "" if self.label == DEFAULT else f"{self.label}, "
        for name in self.formats:
            path = self.model if name == "stored" else gguf_files.requantised(self.model, name)
            found[f"{whose}{gguf_files.kind_of(path)} file"] = path
        return found

    def about(self, bandwidths: Sequence[bandwidth.Bandwidth] = ()) -> dict[str, Any]:
        """The machine, the peer and the run, for the JSON."""
        run = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self.label,
            "file": self.model.name,
            "quick": self.quick,
            "periods": self.periods,
            "rounds": self.rounds,
            "avx2_only": self.avx2,
            "kv_cache": self.kv_cache,
        }
        about = machine.describe(bandwidths, self.variables()) | {"run": run}
        if self.peer:
            about["peer"] = peers.about(self.peer)
        return about

    def variables(self) -> dict[str, str]:
        """Environment variables of our processes.

        Packed weights and kernels of a benchmark do not belong into the user's folders.
        """
        home = peers.bench_dir() / "home"
        if not self.avx2:
            return {"SPARSECHAT_HOME": str(home)}
        return {
            "SPARSECHAT_HOME": str(home.with_name("home-avx2")),
            "NUMBA_CPU_NAME": "haswell",
            # the name alone would keep this machine's features; with none, the name's own count
            "NUMBA_CPU_FEATURES": "",
        }


def parse(name: str, doc: str, rounds: int, formats: Sequence[str] = ()) -> Options:
    """The command line of a benchmark of speed; builds the peer when it is not there.

    formats   those that are measured unless told; () = all. Ends the process on a usage error.
    """
    parser = parser_of(name, doc)
    _add_formats(parser)
    parser.add_argument("--tokens", type=_positive, metavar="N", help="of a prompt or an answer")
    parser.add_argument("--threads", nargs="+", type=_positive, metavar="N", help="1 and 2")
    parser.add_argument("--rounds", type=_positive, metavar="N", help=f"a period ({rounds})")
    parser.add_argument("--periods", type=_positive, metavar="N", help="apart in time (2)")
    parser.add_argument("--peer", choices=("llama", "transformers", "none"), default="llama")
    parser.add_argument("--avx2", action="store_true", help="both sides without AVX-512")
    parser.add_argument("--kv-cache", metavar="F", help="format of our cache: f32, f16, q8")
    args = parser.parse_args()
    if args.avx2 and platform.machine().casefold() not in ("x86_64", "amd64"):
        parser.error("--avx2 is for x86-64 processors")
    if args.avx2 and args.peer == "transformers":
        parser.error("--avx2 knows no transformers without AVX-512; --peer llama")
    label, model = _model(parser, args.model)
    peer = "llama-avx2" if args.avx2 and args.peer == "llama" else args.peer
    return Options(
        name=_result(name, label)
        + _VARIANTS[peer]
        + (f"-{args.kv_cache}" if args.kv_cache else ""),
        label=label,
        model=model,
        formats=_formats(args, formats),
        peer=_peer(peer, args.quick),
        quick=args.quick,
        save=args.save,
        threads=tuple(args.threads or sorted({1, min(2, machine.cores())})),
        rounds=args.rounds or (min(2, rounds) if args.quick else rounds),
        periods=args.periods or (1 if args.quick else 2),
        tokens=args.tokens,
        avx2=args.avx2,
        kv_cache=args.kv_cache,
    )


def parse_alone(
    parser: argparse.ArgumentParser, name: str, rounds: int
) -> tuple[Options, argparse.Namespace]:
    """The command line of a benchmark of ours alone, on 1 and on all cores.

    parser   from `parser_of`, with flags of the benchmark's own
    """
    parser.add_argument("--threads", nargs="+", type=_positive, metavar="N", help="1 and all")
    args = parser.parse_args()
    label, model = _model(parser, args.model)
    found = Options(
        name=_result(name, label),
        label=label,
        model=model,
        formats=("stored",),
        peer=None,
        quick=args.quick,
        save=args.save,
        threads=tuple(args.threads or sorted({1, machine.cores()})),
        rounds=min(2, rounds) if args.quick else rounds,
    )
    return found, args


def parse_plain(name: str, doc: str, *, rounds: int = 1, formats: bool = True) -> Options:
    """The command line of a benchmark that has one way to run: all cores, llama.cpp beside us."""
    parser = parser_of(name, doc)
    if formats:
        _add_formats(parser)
    else:
        parser.set_defaults(formats=["stored"])
    args = parser.parse_args()
    label, model = _model(parser, args.model)
    return Options(
        name=_result(name, label),
        label=label,
        model=model,
        # each format has a reference of its own, which takes a while to build
        formats=("stored",) if args.quick and not args.formats else _formats(args),
        peer=_peer("llama", args.quick),
        quick=args.quick,
        save=args.save,
        threads=(machine.cores(),),
        rounds=min(2, rounds) if args.quick else rounds,
    )


def parser_of(name: str, doc: str) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("--quick", action="store_true", help="under a minute, not for quoting")
    parser.add_argument("--save", action="store_true", help="keep the result under results/")
    parser.add_argument(
        "--model", default=DEFAULT, metavar="NAME",
        help=f"a model's name or GGUF file, or random weights of {', '.join(gguf_files.SHAPES)}",
    )  # fmt: skip
    return parser


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--formats", nargs="+", metavar="F", choices=("stored", *gguf_files.KINDS),
        help="the file as it is (stored) and made from it (Q4_0, Q8_0); all three unless told",
    )  # fmt: skip


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _formats(args: argparse.Namespace, usual: Sequence[str] = ()) -> tuple[str, ...]:
    if args.formats:
        return tuple(args.formats)
    if args.model in gguf_files.SHAPES:
        return ("stored",)
    if usual:
        return tuple(usual)
    return ("stored", "Q4_0") if args.quick else ("stored", *gguf_files.KINDS)


def _peer(name: str, quick: bool) -> str | None:
    return name if name != "none" and peers.available(name, build=not quick) else None


def _result(name: str, label: str) -> str:
    return name if label == DEFAULT else f"{name}-{label}"


def _model(parser: argparse.ArgumentParser, name: str) -> tuple[str, Path]:
    """Its short name, also good for a file's, and its GGUF file."""
    if name in gguf_files.SHAPES:
        note(f"making random weights of {name} if they are not there")
        return name, gguf_files.of_shape(name)
    from data.models import resolve

    try:
        path = resolve(name).path
    except (FileNotFoundError, ValueError) as error:
        parser.exit(3, f"{error}\n")
    if not path.is_file():
        parser.exit(3, f"{name} is a folder; llama.cpp beside us reads GGUF files only\n")
    return name if name == DEFAULT else path.stem, path


def note(line: str) -> None:
    """A line about progress, for people."""
    print(line, file=sys.stderr, flush=True)
