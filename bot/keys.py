"""Keys that differ from prompt_toolkit's own: what sends a message and what begins a new line."""

from __future__ import annotations

from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


def key_bindings() -> KeyBindings:
    """Enter sends; Alt-Enter and Ctrl-J begin a new line (a paste does neither)."""
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # not in the search field of Ctrl-R

    @bindings.add("enter", filter=typing)
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=typing)
    @bindings.add("c-j", filter=typing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("c-@")
    def _ignore(event: KeyPressEvent) -> None:
        """Ctrl-Space, or a NUL from somewhere: a selection would begin, in which typing is dead."""

    return bindings
