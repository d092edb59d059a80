"""Commands that show and change settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from bot import adapters, render
from bot.commands import command
from bot.knowledge import OFF, open_base
from bot.settings import Value, parse, rules, setting_name, show
from bot.state import ShellState

_FELT = {
    "set": "by all answers; /set changes it",
    "load": "from the next /model on",
    "start": "only when sparsechat starts",
}
_SETTABLE = ("turn", "set", "load")


def setting_words(felt: tuple[str, ...]) -> Iterable[str]:
    """`name=` for completion."""
    fitting = [name for name, rule in rules().items() if rule.felt in felt and name != "model"]
    return [f"{name}=" for name in fitting]


def assignments(argument: str, felt: tuple[str, ...]) -> tuple[dict[str, Value], set[str]]:
    """`k=v k="v w" k=` → checked values and the names to unset; ValueError if any part is wrong.

    felt  which settings may be changed, by when a change of them is felt (Rule.felt).
    """
    changes: dict[str, Value] = {}
    unset: set[str] = set()
    for word in _words(argument):
        key, equals, text = word.partition("=")
        name = setting_name(key)
        if not equals:
            raise ValueError(f"{name} needs a value: {name}=…; values with blanks need quotes")
        if name == "model" or rules()[name].felt not in felt:
            raise ValueError(_not_here(name))
        if not text:
            unset.add(name)
        elif rules()[name].kind == "texts":
            earlier = changes.get(name, ())
            assert isinstance(earlier, tuple)
            added = parse(name, text)
            assert isinstance(added, tuple)
            changes[name] = earlier + added
        else:
            changes[name] = parse(name, text)
    return changes, unset


@command(
    "set",
    usage="NAME=VALUE …",
    example='/set temperature=0.2 stop="\\n\\n"',
    completer=lambda state, argument: setting_words(_SETTABLE),
)
def set_(state: ShellState, argument: str) -> None:
    """Change settings from the next answer on; all of them, or none when one is wrong.

    Names are those of the flags and of config.toml, with - or _. What is set here is your latest
    word and beats flags, variables and files until you leave. NAME= (nothing behind it) takes it
    back, so that flag, variable, file or model decide again. Values with blanks need quotes.
    """
    if not argument:
        raise ValueError("/set takes NAME=VALUE; /hyperparameters shows the names and values")
    changes, unset = assignments(argument, _SETTABLE)
    if isinstance(adapter := changes.get("adapter", OFF), str) and adapter != OFF:
        adapters.find(adapter)  # its errors, before anything changes
    base = changes.get("kb", OFF)
    if isinstance(base, str) and base != OFF:
        open_base(base).close()  # its errors, before anything changes
    state.config.set_by_hand(changes, unset)
    if "sparsity" in changes:
        state.tried_level = None  # a calibration that was stopped begins anew
    state.apply_settings()
    if "kb" in changes:
        state.knowledge.begin()
    for name in [*changes, *sorted(unset)]:
        _show_one(state, name)


@command("hyperparameters", "show")
def hyperparameters(state: ShellState, argument: str) -> None:
    """Show every setting, its value and who decided it.

    The nearest wish wins: /set, then a flag, a SPARSECHAT_* variable, a loaded session,
    config.toml, the model's own generation_config, and last what is built in.
    """
    settings = state.config.settings()
    width = max(map(len, rules()))
    for name in rules():
        value = _shown(name, getattr(settings, name))
        render.out(f"{name:{width}}  {_cut(value):<12}  {state.config.origin(name)}")
    if not settings.sample and settings.temperature:
        render.out("sample is off: temperature, top_k, top_p and min_p have no effect")


@command("system", usage="[TEXT]", example="/system Answer in one sentence.")
def system(state: ShellState, argument: str) -> None:
    """Show the system prompt, or set it from the next answer on.

    /system "" sends an empty one; /set system= goes back to the template's own.
    """
    if argument:
        text = "" if argument in ('""', "''") else argument
        state.config.set_by_hand({"system": text})
        state.apply_settings()
        if state.chat.exchanges:
            render.note("the next answer reads the whole conversation again")
        return
    value = state.config.settings().system
    origin = state.config.origin("system")
    render.out("not set: the template's own, if any" if value is None else f"{value!r} ({origin})")


def _words(argument: str) -> list[str]:
    """As a Unix shell splits, but a backslash is a letter: `stop=\\n` means what it says."""
    lexer = shlex.shlex(argument, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = lexer.escape = ""
    try:
        return list(lexer)
    except ValueError:
        raise ValueError(f"a quotation mark has no partner in {argument!r}") from None


def _not_here(name: str) -> str:
    if name == "model":
        return "/model NAME changes the model"
    return f"{name} is felt {_FELT[rules()[name].felt]}"


def _show_one(state: ShellState, name: str) -> None:
    value = _shown(name, getattr(state.chat.settings, name))
    when = rules()[name].felt
    later = f", felt {_FELT[when]}" if when in ("load", "start") else ""
    render.out(f"{name} = {_cut(value)} ({state.config.origin(name)}{later})")


def _shown(name: str, value: Value) -> str:
    """A value, and what it amounts to where that depends on the machine."""
    if name == "threads" and value is None:
        from engine.cores import default_threads

        return f"{show(value)}: {default_threads()}"
    return show(value)


def _cut(text: str) -> str:
    line = " ".join(text.split("\n"))
    return line if len(line) <= 60 else line[:59] + "…"
