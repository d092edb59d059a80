"""What went wrong, in one line for the user and in full for the log."""

from __future__ import annotations

from loguru import logger

# what a user, a file or the system can cause; everything else is a bug of ours
EXPECTED = (ValueError, OSError, MemoryError)


def explain(error: Exception, log_hint: str) -> str:
    """The line; a bug's says where its traceback is, which goes to the log either way."""
    if isinstance(error, EXPECTED):
        logger.opt(exception=error).debug("failed")
        return str(error) or type(error).__name__
    logger.opt(exception=error).error("a bug")
    return f"internal error: {type(error).__name__}: {error}; {log_hint}"


def log_hint(log_path: object) -> str:
    """Where the traceback of a bug stands; log_path None = nothing is logged."""
    return f"details in {log_path}" if log_path else "run it with -v to see the details"
