"""Commands about the model and its work."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from bot import adapters, render
from bot.answering import drafts
from bot.answering import stats as turn_stats
from bot.commands import command
from bot.loading import Interrupted, LoadedModel, find_model
from bot.sparsity import cost_in_use, level_line
from bot.state import ShellState


def model_names() -> Iterable[str]:
    """What can be loaded without a download, for completion."""
    from data import models

    installed = [found.name for found in models.installed()]
    return installed + [found.name for found in models.trained()]


@command(
    "model",
    usage="[NAME]",
    example="/model smollm2-135m",
    completer=lambda state, argument: model_names(),
)
def model(state: ShellState, argument: str) -> None:
    """Show the model in use, or load another; the conversation stays.

    NAME is a registered name, a GGUF file, a model folder or org/name in the local hub cache. The
    model in use is kept until the new one is ready.
    """
    if not argument:
        _describe(state.need_model())
        return
    found = find_model(argument)
    before = state.loader.current
    state.loader.start(found, state.config.settings({"model": argument}))
    try:
        loaded = state.need_model()
    except Interrupted:
        state.loader.loading = None
        stays = f"{before.name} stays" if before else "no model is loaded"
        raise Interrupted(f"stopped; {stays}") from None
    state.config.set_by_hand({"model": argument})
    state.apply_settings()
    _describe(loaded)
    if state.chat.exchanges and before is not None:
        render.note("the next answer reads the whole conversation again")


@command("stats", usage="[on|off]", example="/stats off")
def stats(state: ShellState, argument: str) -> None:
    """Show what the last answer and all of them took; on or off: the line after each answer."""
    if argument.lower() in ("on", "off"):
        state.shows_stats = argument.lower() == "on"
        render.out(f"stats after each answer: {argument.lower()}")
        return
    if argument:
        raise ValueError(f"/stats takes on, off or nothing, got {argument!r}")
    if not state.usages:
        render.out("no answer was given yet")
        return
    usages = state.usages
    render.out(f"last answer: {turn_stats(usages[-1])}")
    cached = sum(usage.cached_tokens for usage in usages)
    read = sum(usage.prompt_tokens for usage in usages)
    new_tokens = sum(usage.new_tokens for usage in usages)
    render.out(
        f"all: {render.counted(len(usages), 'answer')}, {new_tokens:,} tokens"
        f"{drafts(usages)} in "
        f"{sum(usage.decode_s for usage in usages):.1f} s; prompts {read:,} tokens, {cached:,} of "
        f"them cached, read in {sum(usage.prefill_s for usage in usages):.1f} s"
    )
    if state.chat.model is not None:
        found = state.chat.model
        render.out(f"threads: {found.threads}, instructions: {found.instructions}")
        render.out(f"sparsity: {level_line(found.sparsity.level, cost_in_use(found))}")
        if found.adapter is not None:
            render.out(f"adapter: {adapters.line_of(found.adapter)}")
        now, most = found.kv_bytes(), found.kv_bytes(found.max_seq_len)
        render.out(
            f"keys and values ({found.kv_cache}): {now / 2**20:,.1f} MiB, up to "
            f"{most / 2**20:,.1f} MiB at {found.max_seq_len:,} tokens"
        )
    if peak := _peak_memory():
        render.out(f"memory: {peak / 2**20:,.0f} MiB at most")


def _describe(loaded: LoadedModel) -> None:
    found = loaded.model
    render.out(f"{loaded.name}: {found.path}")
    render.out(
        f"{found.config.architecture}, {found.n_weights:,} weights as {found.weight_format} "
        f"({found.n_bytes / 1e6:,.1f} MB), context {found.max_seq_len:,} tokens, "
        f"fingerprint {found.fingerprint[:12]}"
    )
    if found.adapter is not None:
        render.out(f"adapter {adapters.line_of(found.adapter)}")


def _peak_memory() -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
