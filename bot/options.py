"""The command line's share of the settings: one flag per setting, checked while it is parsed."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable
from typing import NoReturn

from bot.settings import Settings, Value, parse, rules, show

CHAT_ONLY = ("saved_kv_mb", "history", "plain")


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line and takes no abbreviated flags."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        message = " ".join(message.splitlines())
        hint = self._nearest_flag(message)
        self.exit(2, f"{self.prog}: {message}{hint}; see {self.prog} --help\n")

    def _nearest_flag(self, message: str) -> str:
        prefix = "unrecognized arguments: "
        if not message.startswith(prefix):
            return ""
        word = message.removeprefix(prefix).split("=")[0].split()[0]
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        close = difflib.get_close_matches(word, flags, n=1)
        return f"; did you mean {close[0]}?" if close else ""


def add_setting_flags(parser: argparse.ArgumentParser, leave_out: Iterable[str] = ()) -> None:
    """One flag per setting; a flag that is not given leaves no attribute behind."""
    group = parser.add_argument_group("settings", "built-in values stand in parentheses")
    built_in = Settings()
    group.add_argument(
        "--retrieval",
        dest="kb",
        action="store_const",
        const="wikipedia",
        default=argparse.SUPPRESS,
        help="answer from Wikipedia: --kb wikipedia",
    )
    for name, rule in rules().items():
        if name in leave_out:
            continue
        flag = f"--{name.replace('_', '-')}"
        value = getattr(built_in, name)
        shown = f"{rule.help} ({show(value)})" if value not in (None, ()) else rule.help
        text = shown.replace("%", "%%")
        if rule.kind == "bool":
            group.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            group.add_argument(
                flag,
                type=setting_type(name),
                action="append" if rule.kind == "texts" else "store",
                default=argparse.SUPPRESS,
                metavar={"int": "N", "float": "X"}.get(rule.kind, "TEXT"),
                help=text,
            )


def given_settings(args: argparse.Namespace) -> dict[str, Value]:
    """The settings that flags gave, checked."""
    found = {name: getattr(args, name) for name in rules() if hasattr(args, name)}
    if "stop" in found:
        found["stop"] = tuple(text for texts in found["stop"] for text in texts)
    return found


def setting_type(name: str) -> Callable[[str], Value]:
    """What argparse calls to check a value of the setting `name`."""

    def check(text: str) -> Value:
        try:
            return parse(name, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check
