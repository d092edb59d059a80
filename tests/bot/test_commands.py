"""The table itself: names, dispatch, help."""

from __future__ import annotations

import pytest

from bot import commands
from tests.bot.conftest import Talk

NAMES = (
    "help ? quit exit bye reset new clear say raw_say raw_prompt raw hyperparameters show set "
    "system model retry undo continue history save load stats"
).split()


X39 = "x" * 39


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_command_is_there_with_help(name: str) -> None:
    entry = commands.find(name)
    assert entry.summary.endswith(".") and len(entry.summary) < 100
    assert entry.example.startswith("/")


def test_no_name_means_two_commands() -> None:
    names = [n for e in commands.table().values() for n in (e.name, *e.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("word", "name"),
    [("hyp", "hyperparameters"), ("HELP", "help"), ("raw-say", "raw_say"), ("qui", "quit"),
     ("cont", "continue"), ("sy", "system"), ("raw", "raw_prompt")],
)  # fmt: skip
def test_case_hyphens_and_unique_beginnings_are_understood(word: str, name: str) -> None:
    assert commands.find(word).name == name


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "s",
            "/s could be /hyperparameters, /save, /say, /set, /sources, /sparsity, /stats, /system",
        ),
        ("re", "/re could be /reset, /retry"),
        ("", "a command is missing after the slash; /help lists them"),
        ("histroy", "there is no /histroy; did you mean /history? (//histroy is sent as text)"),
        ("x" * 99, f"there is no /{X39}…; /help lists the commands, //{X39}… is sent as text"),
    ],
)  # fmt: skip
def test_ambiguous_and_unknown_names_list_the_candidates(word: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        commands.find(word)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("/say hi  there ", ("say", "hi  there")),
        ("  /help", ("help", "")),
        ("/say\nhi\nthere", ("say", "hi\nthere")),
        ("/say a\nb", ("say", "a\nb")),
        ("/", ("", "")),
        ("/ help", ("", "help")),
        ("//etc", None),
        ("text /help", None),
        ("", None),
    ],
)
def test_lines_are_split_into_command_and_argument(
    line: str, parts: tuple[str, str] | None
) -> None:
    assert commands.split(line) == parts


def test_help_lists_every_command_on_a_line_of_its_own(talk: Talk) -> None:
    session = talk("/help\r/?\r")
    for entry in commands.table().values():
        assert sum(line.startswith(f"/{entry.name} ") for line in session.lines) == 2


def test_help_explains_one_command(talk: Talk) -> None:
    session = talk("/help retry\r/help /bye\r/help nosuch\r")
    assert session.lines[1:6] == [
        "/retry [NAME=VALUE …]",
        "Ask the last question again in place of its answer, with a new seed unless one is given.",
        "",
        "Settings given here hold for this answer only.",
        "example: /retry temperature=0.9",
    ]
    assert session.lines[7:11] == ["/quit", "also: /exit, /bye", "Leave.", "example: /quit"]
    assert session.lines[-2].startswith("sparsechat: there is no /nosuch;")


@pytest.mark.parametrize("command", ["/quit", "/exit", "/bye"])
def test_quit_leaves_at_once_with_0(talk: Talk, command: str) -> None:
    session = talk(f"{command}\rHello\r", "never")
    assert (session.code, session.text) == (0, f">>> {command}\n")
