"""Commands that keep conversations."""

from __future__ import annotations

from bot import render, sessions
from bot.commands import command
from bot.sessions import Session
from bot.settings import show
from bot.state import ShellState


@command(
    "save", usage="[NAME] [--force]", example="/save zurich", completer=lambda *_: sessions.names()
)
def save(state: ShellState, argument: str) -> None:
    """Save the conversation, its system prompt and what was set by hand.

    Without NAME: under the name it has, or the time. Another conversation of that name is only
    replaced with --force.
    """
    words = argument.split()
    force = "--force" in words
    given = [word for word in words if word != "--force"]
    if len(given) > 1:
        raise ValueError(f"a session's name is one word, got {argument!r}")
    if not state.chat.exchanges:
        raise ValueError("nothing was said yet, so there is nothing to save")
    name = given[0] if given else state.saved_as or sessions.new_name()
    if sessions.path_of(name).exists() and name != state.saved_as and not force:
        raise ValueError(f"another session is called {name!r}; /save {name} --force replaces it")
    path = sessions.save(name, _session(state))
    state.saved_as = name
    render.out(f"saved as {name} ({path})")
    state.keep_kv()


@command("load", usage="NAME", example="/load zurich", completer=lambda *_: sessions.names())
def load(state: ShellState, argument: str) -> None:
    """Go on with a saved conversation in place of this one.

    Its settings hold unless /set, a flag or a variable says otherwise.
    """
    if not argument:
        listed = ", ".join(sessions.names()) or "none yet"
        raise ValueError(f"/load needs a name; saved: {listed}")
    session = sessions.load(argument)
    state.chat.replace_all(session.exchanges, session.view)
    state.config.layers["session"] = session.settings
    state.apply_settings()
    state.saved_as = argument
    n_turns = len(session.exchanges)
    render.out(f"loaded {argument}: {n_turns} turn{'' if n_turns == 1 else 's'}")
    for name, value in session.settings.items():
        holds = state.config.origin(name) == "loaded session"
        by = "" if holds else f" (but {state.config.origin(name)} decides)"
        render.out(f"{name} = {show(value)}{by}")
    if line := _other_model(state, session):
        render.err(line)


def _session(state: ShellState) -> Session:
    loaded = state.loader.current
    model = {}
    if loaded is not None:
        model = {
            "name": loaded.name,
            "fingerprint": loaded.model.fingerprint,
            "weight_format": loaded.model.weight_format,
        }
    return Session(state.chat.exchanges, state.config.session_values(), model, state.chat.view)


def _other_model(state: ShellState, session: Session) -> str:
    """A warning when the conversation was held with another model than the one in use."""
    then = session.model
    if state.loader.loading is not None:
        now = {"name": state.loader.loading.name}
    elif state.loader.current is None:
        now = {"name": state.chat.settings.model}
    else:
        current = state.loader.current
        now = {"name": current.name, "fingerprint": current.model.fingerprint}
    key = "fingerprint" if "fingerprint" in now and "fingerprint" in then else "name"
    if key not in then or then[key] == now[key]:
        return ""
    return (
        f"warning: this conversation was held with {then.get('name', 'another model')}, "
        f"the model now is {now['name']}; its answers may differ in kind"
    )
