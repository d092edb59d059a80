"""/adapter, and the adapter among the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import commands, sessions
from tests.bot.conftest import Talk
from tests.fakes import FakeEngine, FakeModel, fake_cost, make_adapter

TINY = "rank 16, 4,321 weights, trained on tiny"


@pytest.fixture
def adapters(home: Path) -> Path:
    """The folder of adapters, which holds `polite` and `terse`."""
    folder = home / "data" / "adapters"
    for name in ("polite", "terse"):
        make_adapter(folder / name)
    return folder


def test_without_any_it_says_where_they_would_be(talk: Talk, home: Path) -> None:
    session = talk("/adapter\r")
    assert session.lines[:3] == [
        ">>> /adapter",
        "adapter = off (built-in)",
        f"{home / 'data' / 'adapters'} has none yet",
    ]


def test_an_adapter_is_put_on_and_taken_off_between_answers(talk: Talk, adapters: Path) -> None:
    keys = "Hello\r/adapter polite\rAnd?\r/adapter off\r"
    session = talk(keys, "Hi.", "So, please.")
    assert session.lines == [
        ">>> Hello",
        "Hi.",
        ">>> /adapter polite",
        f"adapter = polite: {TINY}",
        "[the next answer reads the whole conversation again]",
        ">>> And?",
        "So, please.",
        ">>> /adapter off",
        "adapter = off",
        "[the next answer reads the whole conversation again]",
        ">>> ^D",
    ]
    assert session.model.adapters == ["polite", None]
    assert session.state.chat.settings.adapter == "off"


def test_it_shows_which_is_in_use_and_which_others_there_are(talk: Talk, adapters: Path) -> None:
    make_adapter(adapters / "odd", peft_type="IA3")
    session = talk("/adapter terse\r/adapter\r")
    assert session.lines[3:7] == [
        f"adapter = terse (/set): {TINY}",
        f"  odd     {adapters / 'odd'}/adapter_config.json: peft_type is 'IA3'; only LORA is read",
        "  polite  rank 16     0.1 kB  for tiny",
        "  terse   rank 16     0.1 kB  for tiny",
    ]


def test_an_unknown_one_changes_nothing(talk: Talk, adapters: Path) -> None:
    session = talk("/adapter polite\r/adapter plite\r/adapter x/y\r/adapter zzz\r")
    assert session.lines[2:-1] == [
        ">>> /adapter plite",
        "sparsechat: there is no adapter 'plite'; did you mean 'polite'?",
        ">>> /adapter x/y",
        "sparsechat: x/y is no adapter: no adapter_config.json is there",
        ">>> /adapter zzz",
        "sparsechat: there is no adapter 'zzz'; there are polite, terse",
    ]
    assert session.state.chat.settings.adapter == "polite"
    assert session.model.adapter is not None


def test_one_of_another_model_is_refused_and_the_one_in_use_stays(
    talk: Talk, adapters: Path
) -> None:
    model = FakeModel(misfits={"terse"})
    session = talk("/adapter polite\r/adapter terse\r", model=model)
    assert session.lines[-2] == "sparsechat: the adapter terse was trained on another model"
    assert model.adapter is not None and model.adapter.name == "polite"
    assert session.state.chat.settings.adapter == "polite"


def test_a_folder_anywhere_will_do(talk: Talk, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "elsewhere" / "mine")
    session = talk(f"/adapter {folder}\r")
    assert session.lines[1] == f"adapter = mine: {TINY}"
    assert session.model.adapter is not None and session.model.adapter.path == folder


@pytest.mark.parametrize("how", ["flag", "variable", "file", "set"])
def test_flag_variable_file_and_set_choose_one(
    talk: Talk, adapters: Path, home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    keys = "Hello\r/adapter\r"
    if how == "flag":
        talk.flags["adapter"] = "polite"
    elif how == "variable":
        monkeypatch.setenv("SPARSECHAT_ADAPTER", "polite")
    elif how == "file":
        (home / "config").mkdir(parents=True)
        (home / "config" / "config.toml").write_text('adapter = "polite"\n')
    else:
        keys = f"/set adapter=polite\r{keys}"
    session = talk(keys, "Hi.")
    origins = {"flag": "--adapter", "variable": "SPARSECHAT_ADAPTER", "file": "config.toml"}
    assert f"adapter = polite ({origins.get(how, '/set')}): {TINY}" in session.lines
    assert session.model.adapters == ["polite"]


def test_set_of_an_unknown_one_changes_nothing(talk: Talk, adapters: Path) -> None:
    session = talk("/set temperature=0.1 adapter=zzz\r")
    assert session.lines[1] == "sparsechat: there is no adapter 'zzz'; there are polite, terse"
    assert session.state.chat.settings.temperature != 0.1


def test_a_new_model_gets_it_or_says_why_not_and_the_old_one_has_it_again(
    talk: Talk, adapters: Path
) -> None:
    other = FakeModel(misfits={"polite"})
    talk.engine = FakeEngine({"other": other})
    session = talk("/adapter polite\r/model other\r/adapter\r/model tiny\r/adapter\r")
    lines = session.lines
    refused = "the adapter polite was trained on another model"
    at = lines.index(">>> /model other")
    assert lines[at + 1] == f"[no adapter is in use: {refused}]"
    assert f"adapter = polite (/set), not in use: {refused}" in lines
    at = lines.index(">>> /model tiny")
    assert f"adapter polite: {TINY}" in lines[at:]
    assert f"adapter = polite (/set): {TINY}" in lines[at:]


def test_a_saved_session_brings_its_adapter_back(talk: Talk, adapters: Path) -> None:
    talk("/adapter polite\rHello\r/save one\r", "Hi.")
    assert sessions.load("one").settings["adapter"] == "polite"
    session = talk("/load one\rAnd?\r")
    assert "adapter = polite" in session.lines
    assert session.state.chat.model.adapter.name == "polite"


def test_a_session_whose_adapter_is_gone_goes_on_without(talk: Talk, adapters: Path) -> None:
    talk("/adapter polite\rHello\r/save one\r", "Hi.")
    (adapters / "polite" / "adapter_config.json").unlink()
    session = talk("Hi\r/load one\rAnd?\r")
    gone = "there is no adapter 'polite'; there are terse"
    assert f"[no adapter is in use: {gone}]" in session.lines
    assert session.lines[-2] == "Hi."
    assert session.state.chat.model.adapter is None


def test_what_excludes_an_adapter_goes_before_it_comes(talk: Talk, adapters: Path) -> None:
    model = FakeModel(costs={0.5: fake_cost(0.5)})
    session = talk("/set sparsity=0.5\r/set adapter=polite sparsity=off\r", model=model)
    assert session.model.levels[-1] == "off"
    assert session.model.adapters == ["polite"]


def test_stats_and_model_name_it(talk: Talk, adapters: Path) -> None:
    session = talk("/adapter polite\rHello\r/stats\r/model\r", "Hi.")
    assert f"adapter: polite: {TINY}" in session.lines
    assert f"adapter polite: {TINY}" in session.lines


def test_names_are_completed(talk: Talk, adapters: Path) -> None:
    state = talk("").state
    found = [candidate for candidate, *_ in commands.complete(state, "/adapter ")]
    assert found == ["polite", "terse", "off"]
