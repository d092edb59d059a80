"""Look at training rows before a run: errors, lengths, what is learned, and what it will take.

Rows that cannot be read, that teach nothing, or whose answers would never end are errors (exit code
1). What is learned is shown in colour, in ⟦ ⟧ without colour. The options are those of a run: three
of its steps are made, and nothing is kept of them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bot import render
from bot.training.flags import add_training_flags, complete, given

if TYPE_CHECKING:
    from bot.training.checking import Counted
    from engine.training.rehearsal_result import Rehearsal
    from engine.training.settings import TrainSettings

BAR = 40
LONGEST_PIECE = 600  # characters of a piece in the preview
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA, and the options of a run."""
    parser.add_argument("data", metavar="DATA", nargs=1, help="rows: file, folder or mixture")
    parser.add_argument("--no-probe", action="store_true", help="leave out the three steps")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_training_flags(parser)
    parser.usage = "%(prog)s DATA [OPTION …]"
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """0; 1 when there are errors; 130 after Ctrl-C, when what was counted is shown."""
    from bot.training import environment, running

    try:
        settings = complete(given(args))
    except ValueError as error:
        args.usage_error(str(error))
    if not args.no_probe:
        running.check(running.Job(settings))
        if args.owns_process:
            environment.renew()
    counted, is_whole = _counted(settings)
    rehearsal = problem = None
    if is_whole and counted.n_good and not args.no_probe:
        try:
            rehearsal = _rehearsed(settings)
        except KeyboardInterrupt:
            is_whole = False
        except ValueError as error:  # memory is short
            problem = str(error)
    if args.json:
        _print_json(settings, counted, is_whole, rehearsal, problem)
    else:
        _show(counted, is_whole, rehearsal)
    if problem:
        render.complain(problem)
    if not is_whole:
        return INTERRUPTED
    return 1 if counted.n_errors or problem else 0


def _counted(settings: TrainSettings) -> tuple[Counted, bool]:
    """Every row of every file; False when Ctrl-C ended it before that."""
    from bot.kb.progress import Progress
    from bot.loading import find_model
    from bot.training.checking import Counted
    from data.training_rows import open_rows
    from engine.checkpoints import open_checkpoint
    from engine.tokenizer import load_tokenizer
    from engine.training.examples import longest_row

    found = find_model(settings.model)
    checkpoint = open_checkpoint(found.path)
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer is None:
        raise ValueError(f"{found.path} has no tokenizer, so no text can be learned from")
    max_seq_len = longest_row(settings, checkpoint.decoder_config())
    counted, progress = Counted(tokenizer, max_seq_len), Progress("check")
    try:
        rows = open_rows(settings.data, settings.kind, settings.seed, settings.loss)
        n_rows = sum(source.n_rows for source in rows.sources)
        for row in rows.each():
            counted.add(row)
            progress.report(counted.n_rows, n_rows, "reading")
    except KeyboardInterrupt:
        return counted, False
    finally:
        progress.close()
    return counted, True


def _rehearsed(settings: TrainSettings) -> Rehearsal:
    from engine.training.rehearsal import rehearse

    status = render.Status()
    status.show(f"check: loading {settings.model}, measuring this machine …")
    try:
        return rehearse(settings, lambda done, n: status.show(f"check: step {done + 1} of {n} …"))
    finally:
        status.clear()


def _show(counted: Counted, is_whole: bool, rehearsal: Rehearsal | None) -> None:
    for line in [*_facts(counted, is_whole), *_histogram(counted)]:
        render.out(line)
    if counted.n_errors:
        render.out(f"\nerrors: {render.counted(counted.n_errors, 'row')}")
        for origin, reason in counted.errors:
            render.out(f"  {origin}: {reason}")
        if counted.n_errors > len(counted.errors):
            render.out(f"  … and {counted.n_errors - len(counted.errors):,} more")
    if counted.previews:
        render.out("\nwhat is learned:")
    for origin, pieces in counted.previews:
        render.out(f"--- {origin}")
        render.marked([(_shortened(text), is_learned) for text, is_learned in pieces])
    if rehearsal is not None:
        render.out("")
        for line in _costs(rehearsal):
            render.out(line)


def _facts(counted: Counted, is_whole: bool) -> list[str]:
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in counted.kinds.most_common()) or "none good"
    some = "" if is_whole else ", of the first rows alone: it was interrupted"
    rows = {"rows": f"{counted.n_rows:,}: {kinds}{some}"}
    if not counted.n_good:
        return _table(rows)
    share = 100 * counted.n_trained / max(counted.n_tokens, 1)
    mean = counted.n_tokens / counted.n_good
    rows["tokens"] = f"{counted.n_tokens:,}, {mean:,.0f} a row; {share:.1f} % of them are learned"
    rows["duplicates"] = (
        render.counted(counted.n_duplicates, "row") if counted.n_duplicates else "none"
    )
    if counted.n_left_out:
        rows["left out"] = f"{render.counted(counted.n_left_out, 'row')}, rated bad"
    rows["cut"] = "none"
    if counted.n_cut:
        cut = f"{render.counted(counted.n_cut, 'row')} at {counted.max_seq_len:,} tokens"
        rows["cut"] = f"{cut}, {render.counted(counted.n_lost, 'token')} lost"
    if counted.n_chats:
        ends = ", ".join(repr(text) for text, _ in counted.ends.most_common(3)) or "none"
        rows["stop token"] = (
            f"{ends}: learned in {counted.n_ended:,} of {counted.n_chats:,} conversations"
        )
    return _table(rows)


def _histogram(counted: Counted) -> list[str]:
    """Rows by their length, a bar each."""
    from bot.training.checking import bins

    found = bins(counted.lengths)
    most = max((n for _, _, n in found), default=0)
    lines = ["", "rows by tokens:"] if found else []
    for low, high, n in found:
        bar = "#" * (-(-n * BAR // most))
        lines.append(f"  {f'{low:,}-{high:,}':>15} |{bar:{BAR}} {n:,}")
    return lines


def _costs(found: Rehearsal) -> list[str]:
    from bot.training.monitor import duration
    from data.files import megabytes

    like = "" if found.cosine is None else f" (gradient like float32's: cosine {found.cosine:.3f})"
    losses = ", ".join(f"{loss:.3f}" for loss in found.losses)
    return [
        *_table(
            {
                "trained": f"{found.n_trainable:,} of {found.n_weights:,} weights, base "
                f"{found.base}{like}",
                "speed": f"{found.tokens_per_s:,.0f} tok/s, {found.step_s:.1f} s a step "
                f"({render.counted(len(found.losses), 'step')} were made)",
                "time": f"{duration(found.seconds)} for {render.counted(found.n_steps, 'step')}, "
                "without evaluations",
                "memory": f"{megabytes(found.memory_bytes)} at most",
                "losses": losses,
            }
        ),
        *found.warnings,
    ]


def _table(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"{name:<{width}}  {value}" for name, value in rows.items()]


def _shortened(text: str) -> str:
    """Without the middle of a piece that is too long to be read here."""
    if len(text) <= LONGEST_PIECE:
        return text
    half = LONGEST_PIECE // 2
    return f"{text[:half]} […] {text[-half:]}"


def _print_json(
    settings: TrainSettings,
    counted: Counted,
    is_whole: bool,
    rehearsal: Rehearsal | None,
    problem: str | None,
) -> None:
    from bot.kb.output import json_out

    json_out(
        {
            "data": settings.data,
            "model": settings.model,
            "complete": is_whole,
            **counted.record(),
            "rehearsal": None if rehearsal is None else rehearsal._asdict(),
            "problem": problem,
        }
    )
