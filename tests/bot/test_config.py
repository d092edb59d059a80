from __future__ import annotations

from pathlib import Path

import pytest

from bot.config import LAYERS, Config, mistyped_variables, read_config


def test_the_nearest_wish_wins_and_every_value_knows_its_origin() -> None:
    config = Config()
    origins = []
    for number, layer in enumerate(reversed(LAYERS), start=1):
        config.layers[layer]["top_k"] = number
        assert config.settings().top_k == number
        origins.append(config.origin("top_k"))
    assert origins == [
        "the model",
        "config.toml",
        "loaded session",
        "SPARSECHAT_TOP_K",
        "--top-k",
        "/set",
    ]
    assert config.origin("top_p") == "built-in"


def test_overrides_hold_for_one_call_only() -> None:
    config = Config()
    config.set_by_hand({"temperature": 0.1})
    assert config.settings({"temperature": 0.9, "seed": None}).temperature == 0.9
    assert config.settings().temperature == 0.1


def test_what_is_unset_falls_back_past_a_loaded_session() -> None:
    config = Config()
    config.layers["file"]["top_k"] = 1
    config.layers["session"]["top_k"] = 2
    config.set_by_hand({"top_k": 3})
    config.set_by_hand({}, {"top_k"})
    assert (config.settings().top_k, config.origin("top_k")) == (1, "config.toml")


def test_a_session_saves_what_was_set_and_what_it_was_loaded_with() -> None:
    config = Config()
    config.layers["flag"]["top_p"] = 0.5
    config.layers["session"] |= {"top_k": 2, "seed": 1}
    config.set_by_hand({"top_k": 3})
    assert config.session_values() == {"top_k": 3, "seed": 1}


def test_config_toml_and_variables_are_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('top-k = 5\nstop = ["\\n", "x"]\nsystem = "Be brief."\nstream = false\n')
    monkeypatch.setenv("SPARSECHAT_STOP", r"\n\n")
    config = read_config({"temperature": 0.0})
    settings = config.settings()
    assert (settings.top_k, settings.system, settings.stream) == (5, "Be brief.", False)
    assert (settings.stop, config.origin("stop")) == (("\n\n",), "SPARSECHAT_STOP")
    assert (settings.temperature, config.origin("temperature")) == (0.0, "--temperature")


def test_a_missing_config_file_or_folder_is_no_error(home: Path) -> None:
    assert read_config({}).layers["file"] == {}


def test_a_folder_in_place_of_the_config_file_is_one_line(home: Path) -> None:
    (home / "config" / "config.toml").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"config\.toml cannot be read: Is a directory"):
        read_config({})


def test_only_near_misses_among_variables_are_told() -> None:
    environment = {"SPARSECHAT_HOME": "/x", "SPARSECHAT_TOPK": "1", "SPARSECHAT_ZZZZ": "1"}
    assert mistyped_variables(environment) == [
        "SPARSECHAT_TOPK is not a setting; did you mean SPARSECHAT_TOP_K?"
    ]
