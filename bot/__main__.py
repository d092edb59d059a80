"""The entry point of `sparsechat`: finds the verb, sets up logging, turns errors into one line.

Exit codes: 0 done, 1 failed, 2 usage, 3 model, adapter or knowledge base not found, 4 no evidence
where it is required, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from bot import render, terminal, verbs
from bot.options import Parser
from bot.settings import nearest

DEFAULT_VERB = "chat"
LOG_BYTES = 2_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (None: the process's own) and return its exit code."""
    terminal.force_utf8()
    code = _run(list(sys.argv[1:] if argv is None else argv), owns_process=argv is None)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    if argv is None and _computes():
        _leave_at_once(code)
    return code


def _run(words: list[str], owns_process: bool) -> int:
    log_path: Path | None = None
    try:
        args, run = _parse(words)
        log_path = args.log_path = _start_logging(args.verbose)
        args.owns_process = owns_process
        return run(args)
    except SystemExit as leave:  # argparse: --help and usage errors
        return leave.code if isinstance(leave.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _forget_stdout()
        return 1
    except Exception as error:
        return _explain(error, log_path)


def _parse(words: list[str]) -> tuple[argparse.Namespace, Callable[[argparse.Namespace], int]]:
    """The verb's arguments and its `run`; SystemExit after --help, --version and usage errors."""
    before: list[str] = []
    while words and words[0] in ("-v", "-vv", "--verbose"):
        before.append(words.pop(0))
    if words[:1] == ["--version"]:
        from bot.version import version

        render.out(f"sparsechat {version()}")
        raise SystemExit(0)
    if words[:1] in (["-h"], ["--help"]):
        _overview()
        raise SystemExit(0)
    verb = DEFAULT_VERB if not words or words[0].startswith("-") else words.pop(0)
    if verb not in verbs.names():
        render.complain(_no_verb(verb))
        raise SystemExit(2)
    module, prog = verbs.load(verb), f"sparsechat {verb}"
    if words and (action := verbs.action(module, words[0])):
        module, prog = action, f"{prog} {words.pop(0)}"
    parser = Parser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log to stderr too; -vv: in detail"
    )
    return parser.parse_args(before + words), module.run


def _overview() -> None:
    render.out("usage: sparsechat [VERB] [-v] [OPTION …]\n")
    render.out("A private chat assistant for the terminal that needs nothing but a CPU.\n")
    names = verbs.names()
    width = max(map(len, names))
    for name in names:
        render.out(f"  {name:{width}}  {verbs.summary(name)}")
    render.out("\n  sparsechat VERB --help   the verb's options; without VERB: chat")
    render.out("  sparsechat --version     which build this is")
    render.out("  -v, -vv                  log to stderr too\n")
    render.out(
        "exit codes: 0 done, 1 failed, 2 usage, 3 model, adapter or knowledge base not found, 4 no "
        "evidence (ask --require-evidence), 130 interrupted"
    )


def _no_verb(word: str) -> str:
    shown = word if len(word) <= 60 else word[:59] + "…"
    guess = nearest(word, verbs.names())
    return f'there is no verb {shown!r}{guess}; to ask a question: sparsechat ask "…"'


def _start_logging(verbosity: int) -> Path | None:
    """A rotated file in the state folder (None where that cannot be), stderr only with -v."""
    from loguru import logger

    from data import files, paths

    logger.remove()
    if verbosity:
        level = "DEBUG" if verbosity > 1 else "INFO"
        logger.add(sys.stderr, level=level, colorize=False, diagnose=False)
    path = paths.state_dir() / "logs" / "sparsechat.log"
    try:
        files.private_folder(path.parent)
        logger.add(
            path,
            # texts of users are logged at DEBUG only: they reach the file when somebody wants them
            level="DEBUG" if verbosity > 1 else "INFO",
            rotation=LOG_BYTES,
            retention=3,
            encoding="utf-8",
            diagnose=False,  # would write the values of variables, texts of users among them
            opener=_open_private,
        )
    except OSError:
        return None
    return path


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _explain(error: Exception, log_path: Path | None) -> int:
    """One line on stderr; the exit code."""
    from bot.failures import explain, log_hint

    render.complain(explain(error, log_hint(log_path)))
    return 3 if _is_missing(error) else 1


def _is_missing(error: Exception) -> bool:
    """Whether a model, an adapter, a knowledge base or an encoder is not there."""
    if not isinstance(error, FileNotFoundError):
        return False
    from bot.adapters import AdapterNotFoundError
    from data.models import ModelNotFoundError

    if isinstance(error, ModelNotFoundError | AdapterNotFoundError):
        return True
    if "retrieval" not in sys.modules:
        return False
    from retrieval import KnowledgeBaseNotFoundError
    from retrieval.encoder import EncoderMissingError

    return isinstance(error, KnowledgeBaseNotFoundError | EncoderMissingError)


def _forget_stdout() -> None:
    """Whoever read it is gone; let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _computes() -> bool:
    """Whether there are kernels, or a thread that may be in one or be importing torch."""
    busy = {"engine", "knowledge"}
    return "numba" in sys.modules or any(t.name in busy for t in threading.enumerate())


def _leave_at_once(code: int) -> None:
    """End without taking Python down: a model may still be loading, and Python would stop that
    thread inside a kernel, which aborts the process with a message that means nothing to its user.
    And taking down compiled kernels alone takes Python 0.7 to 1.3 s.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
