"""Commands about knowledge bases and what answers were drawn from."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

from bot import citations, render, terminal
from bot.commands import command
from bot.evidence import Evidence, Source, evidence_of, near_best
from bot.knowledge import DEFAULT_BASE, OFF, base_names, open_base, opened
from bot.settings import nearest, parse
from bot.state import ShellState

_ACTIONS = ("on", "off", "use", "list", "show", "add", "sync", "search")


@command(
    "kb",
    usage="[on|off|NAME|list|show|add PATH …|sync|search TEXT]",
    example="/kb docs",
    completer=lambda state, argument: [*_ACTIONS, *base_names()],
)
def kb(state: ShellState, argument: str) -> None:
    """Show or choose the knowledge base that answers are grounded in, or work on it.

    on takes the last one, else wikipedia; off answers from the model alone. add puts files and
    folders into the base in use, sync looks at all of them again, search shows what a question
    would find. `/kb use NAME` takes a base that is called like one of these words.
    """
    word, _, rest = argument.partition(" ")
    rest = rest.strip()
    if not word:
        _say_which(state)
    elif word in _RUNS:
        _RUNS[word](state, rest)
    elif rest:
        raise ValueError(f"there is no /kb {word}{nearest(word, _ACTIONS)}; /help kb lists them")
    else:
        _use(state, word)


@command("sources", usage="[N]", example="/sources 2")
def sources(state: ShellState, argument: str) -> None:
    """Show the passages that the last answer was given, or those of turn N, with their text."""
    evidence = _evidence_of(state, argument)
    for source, line in zip(evidence.sources, citations.lines(evidence.sources), strict=True):
        render.out(line)
        render.out(_indented(source.text))
    render.note(citations.shown(evidence))


@command("open", usage="N", example="/open 1")
def open_(state: ShellState, argument: str) -> None:
    """Show passage N of the last answer, and open its file at the line, or its address."""
    evidence = _evidence_of(state, "")
    source = _numbered(evidence, argument)
    render.out(citations.lines([source])[0])
    render.out(_indented(source.text))
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)):
        return
    from bot.opener import open_place

    if line := open_place(source):
        render.note(line)


@command("why")
def why(state: ShellState, argument: str) -> None:
    """Show how the last search went: query, both legs, fusion, threshold, times, what fell out."""
    found = state.knowledge.last
    if found is None:
        raise ValueError("nothing was searched since this shell began; ask with a base in use")
    render.out(f"query      {found.query}")
    render.out(f"mode       {found.mode}{f' ({found.why})' if found.why else ''}")
    render.out(f"threshold  {found.threshold:.2f}")
    times = (f"{name} {1000 * seconds:.1f} ms" for name, seconds in found.timings.items())
    render.out(f"times      {', '.join(times)}")
    render.out("     score  dense (rank)   words (rank)   passage")
    given = near_best(evidence_of("", found)).sources
    behind = [*found.passages[len(given) :], *found.candidates]
    for source, passage in zip(given, found.passages, strict=False):
        render.out(f"[{source.number}]{_legs(passage)}")
    for passage in behind:
        render.out(f"  -{_legs(passage)}")
    if behind:
        render.note("- = below the threshold, far behind the best, or more than /k asks for")


@command("k", usage="[N]", example="/k 5")
def k(state: ShellState, argument: str) -> None:
    """Show or set how many passages an answer may draw on."""
    if argument:
        state.config.set_by_hand({"k": parse("k", argument)})
        state.apply_settings()
    render.out(f"k = {state.chat.settings.k} ({state.config.origin('k')})")


def _say_which(state: ShellState) -> None:
    name = state.knowledge.name
    if name is None:
        known = ", ".join(base_names()) or "none yet: `sparsechat kb create NAME PATH…` makes one"
        render.out(f"no knowledge base is in use; there are: {known}")
        return
    with opened(name) as base:
        info = base.show()
    render.out(
        f"{name}: {render.counted(info.n_documents, 'document')}, "
        f"{render.counted(info.n_chunks, 'passage')}, "
        f"{info.n_embedded:,} with vectors ({state.config.origin('kb')})"
    )
    if line := state.knowledge.why:
        render.out(line)


def _use(state: ShellState, name: str) -> None:
    if not name:
        raise ValueError("/kb use needs the name of a knowledge base")
    open_base(name).close()  # its errors, before anything changes
    state.config.set_by_hand({"kb": name})
    state.apply_settings()
    state.knowledge.begin()
    _say_which(state)


def _on(state: ShellState, rest: str) -> None:
    _use(state, state.knowledge.name or state.knowledge.before or DEFAULT_BASE)


def _off(state: ShellState, rest: str) -> None:
    state.config.set_by_hand({"kb": OFF})
    state.apply_settings()
    render.out("answers come from the model alone")


def _list(state: ShellState, rest: str) -> None:
    from bot.kb.looking import base_rows, show_rows

    rows = base_rows()
    show_rows(rows, state.knowledge.name)
    if not rows:
        render.out("none yet: `sparsechat kb create NAME PATH…` makes one")


def _show(state: ShellState, rest: str) -> None:
    from bot.kb.looking import show_info

    with opened(rest or _in_use(state)) as base:
        show_info(base.show())


def _search(state: ShellState, rest: str) -> None:
    from bot.kb.looking import show_search

    if not rest:
        raise ValueError("/kb search needs a text behind it")
    name = _in_use(state)
    show_search(name, state.knowledge.search(rest, state.chat.settings))


def _add(state: ShellState, rest: str) -> None:
    from bot.kb.filling import words_of

    try:
        paths = shlex.split(rest, posix=sys.platform != "win32")
    except ValueError:
        raise ValueError(f"a quotation mark has no partner in {rest!r}") from None
    if not paths:
        raise ValueError("/kb add needs files or folders behind it")
    _write(state, words_of(paths))


def _sync(state: ShellState, rest: str) -> None:
    _write(state, None)


def _write(state: ShellState, given: object) -> None:
    """Add or sync; vectors are made behind the prompt."""
    from bot.kb.filling import Input, fill, say_report
    from bot.kb.work import working

    assert given is None or isinstance(given, Input)
    name = _in_use(state)
    with (
        state.knowledge.released(),
        opened(name) as base,
        working(name, state.interrupts) as work,
    ):
        say_report(work, fill(base, given, work))
    if work.is_cancelled:
        render.note("stopped; what was added is kept")


def _in_use(state: ShellState) -> str:
    if state.knowledge.name is None:
        raise ValueError("no knowledge base is in use; /kb NAME uses one, /kb list shows them")
    return state.knowledge.name


def _evidence_of(state: ShellState, argument: str) -> Evidence:
    exchanges = state.chat.exchanges
    if argument and not (argument.isascii() and argument.isdigit()):
        raise ValueError(f"a turn's number is expected, got {argument!r}; /history shows them")
    number = int(argument) if argument else len(exchanges)
    if not 0 < number <= len(exchanges):
        turns = render.counted(len(exchanges), "turn")
        raise ValueError(f"the conversation has {turns}; {number} is none of them")
    evidence = exchanges[number - 1].evidence
    if evidence is None:
        raise ValueError(f"turn {number} was answered without a knowledge base")
    if not evidence.sources:
        raise ValueError(f"nothing was found in {evidence.base} for turn {number}")
    return evidence


def _numbered(evidence: Evidence, argument: str) -> Source:
    last = len(evidence.sources)
    if not (argument.isascii() and argument.isdigit() and 0 < int(argument) <= last):
        raise ValueError(f"/open takes the number of a passage, 1 to {last}, got {argument!r}")
    return evidence.sources[int(argument) - 1]


def _legs(passage: object) -> str:
    """One row of /why."""
    from retrieval.passages import Passage

    assert isinstance(passage, Passage)
    dense = _leg(passage.dense, passage.dense_rank)
    lexical = _leg(passage.lexical, passage.lexical_rank)
    title = citations.short_title(passage.title)
    return f"   {passage.score:.2f}  {dense:<13}  {lexical:<13}  {title}"


def _leg(score: float | None, rank: int | None) -> str:
    if score is None:
        return "–"
    return f"{score:.2f} ({rank})" if rank is not None else f"{score:.2f}"


def _indented(text: str) -> str:
    return "\n".join(f"    {row}" for row in text.splitlines() if row.strip())


_RUNS: dict[str, Callable[[ShellState, str], None]] = {
    "on": _on,
    "off": _off,
    "use": _use,
    "list": _list,
    "show": _show,
    "add": _add,
    "sync": _sync,
    "search": _search,
}
