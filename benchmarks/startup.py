"""How long from the command to the prompt, and to the first token, ours and llama-cpp-python's?

Regime: bound by imports and by mapping files that the system has in memory. All runs use a home of
their own, so nobody's history or sessions are touched. The first start of all packs weights and
compiles kernels; the start after another build of the kernels compiles only; all others find both.
The peer is a one-liner that loads the same file and answers the same question with one token.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import options, peers, report
from benchmarks.machine import Background

PROMPT = ">>>"  # the space behind it may be a movement of the cursor
_ONE_LINER = """\
import sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_threads=int(sys.argv[2]), verbose=False)
question = [{"role": "user", "content": "hi"}]
answer = model.create_chat_completion(question, max_tokens=1, temperature=0)
print(answer["choices"][0]["message"]["content"], flush=True)
"""
_DEADLINE_S = 60.0


def first_byte(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Seconds from starting the command to the first byte on its standard output.

    ValueError when it fails or prints nothing; the message is the last line of its stderr.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            with process:
                byte = process.stdout.read(1)
                seconds = time.perf_counter() - started
                process.stdout.read()
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    if process.returncode or not byte:
        last = lines[-1] if lines else "it printed nothing"
        raise ValueError(f"{Path(command[0]).name} ended with {process.returncode}: {last}")
    return seconds


def sparsechat() -> list[str]:
    """The installed command, as a person types it, or the module."""
    for name in ("sparsechat", "sparsechat.exe"):
        script = Path(sys.executable).with_name(name)
        if script.exists():
            return [str(script)]
    return [sys.executable, "-m", "bot"]


def first_tokens(
    chosen: options.Options, home: Path, row: report.Row, case: str
) -> list[report.Row]:
    """Fills `row` with rounds; returns rows of the starts that had something to prepare."""
    ask = [*sparsechat(), "ask", "--model", str(chosen.model), "--max-tokens", "1", "hi"]
    own = {"SPARSECHAT_HOME": str(home)}
    prepared = []
    options.note("the first start of all: packs weights, compiles kernels")
    first = report.Row(case, row.threads, "first token, first start of all", "s")
    first.less_is_better = True
    _timed(first, ask, own)
    prepared.append(first)
    if not chosen.quick:
        options.note("a start that compiles kernels")
        compiled = report.Row(case, row.threads, "first token, compiling kernels", "s")
        compiled.less_is_better = True
        with tempfile.TemporaryDirectory() as empty:
            _timed(compiled, ask, own | {"NUMBA_CACHE_DIR": empty})
        prepared.append(compiled)
    python = peers.find(chosen.peer) if chosen.peer else None
    one_liner = [str(python), "-c", _ONE_LINER, str(chosen.model), str(row.threads)]
    for i in range(chosen.rounds + 1):  # the first brings both sides' files into memory
        options.note(f"first token: round {i} of {chosen.rounds}")
        with Background() as background:
            ours, theirs = first_byte(ask, own), None
            if python:
                try:
                    theirs = first_byte(one_liner, {})
                except ValueError as error:
                    options.note(f"llama-cpp-python is left out: {error}")
                    python = None
        if i:
            row.add(ours, theirs, background.load)
    return prepared


def _timed(row: report.Row, command: Sequence[str], variables: Mapping[str, str]) -> None:
    with Background() as background:
        seconds = first_byte(command, variables)
    row.add(seconds, None, background.load)


def prompts(
    chosen: options.Options, home: Path, row: report.Row, idle: report.Row
) -> list[report.Row]:
    """Fills `row` with the time to the prompt and `idle` with the CPU use there."""
    try:
        from benchmarks.terminal import Terminal
    except ImportError:
        options.note("no pseudo-terminals on this system: the prompt is not measured")
        return []
    command = [*sparsechat(), "--model", str(chosen.model)]
    variables = {"SPARSECHAT_HOME": str(home)}
    for i in range(chosen.rounds + 1):
        options.note(f"prompt: round {i} of {chosen.rounds}")
        with Background() as background, Terminal(command, variables) as terminal:
            seconds = terminal.wait_for(PROMPT, _DEADLINE_S)
            if seconds is None:
                screen = terminal.shown.decode("utf-8", "replace").strip()[-200:]
                options.note(f"the prompt did not come; the screen ends with {screen!r}")
                return []
            if i == chosen.rounds:
                percent = terminal.idle_percent(settle_s=5.0, watch_s=2.0 if chosen.quick else 10.0)
                idle.add(percent)
            terminal.press("/quit\r")
            with suppress(subprocess.TimeoutExpired):
                terminal.process.wait(10)
        if i:
            row.add(seconds, None, background.load)
    return [row, idle]


def measure(chosen: options.Options) -> list[report.Row]:
    """All rows."""
    case, threads = next(iter(chosen.files())), chosen.threads[-1]
    name = "llama-cpp-python" if chosen.peer else None
    token = report.Row(case, threads, "first token", "s", name, less_is_better=True)
    prompt = report.Row(case, threads, "prompt", "s", less_is_better=True)
    idle = report.Row(case, threads, "CPU at the prompt", "% of a core", less_is_better=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepared = first_tokens(chosen, home, token, case)
        shell = prompts(chosen, home, prompt, idle)
    return [*shell, token, *prepared]


def main() -> None:
    """Measure, print, and with --save keep."""
    chosen = options.parse_plain(
        "startup", (__doc__ or "").splitlines()[0], rounds=5, formats=False
    )
    try:
        rows = measure(chosen)
    except ValueError as error:
        sys.exit(str(error))
    report.publish(chosen.name, chosen.about(), rows, save=chosen.save)


if __name__ == "__main__":
    main()
