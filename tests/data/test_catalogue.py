from __future__ import annotations

import re

import pytest

from data import catalogue
from data.catalogue import HubSource, WheelSource


def test_the_default_model_is_first_whole_and_comes_from_a_package_first() -> None:
    model = catalogue.models()[0]
    assert model.name == catalogue.default_name() == "smollm2-135m"
    assert model.size_bytes == 98_362_432
    assert model.licence == "Apache-2.0"
    assert [type(source) for source in model.sources] == [WheelSource, HubSource]


@pytest.mark.parametrize("model", catalogue.models(), ids=lambda model: model.name)
def test_every_entry_is_complete_enough_to_be_pulled(model: catalogue.RegisteredModel) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", model.name)
    assert model.title and model.licence and model.sources
    for digest in [model.sha256, *(getattr(source, "sha256", None) for source in model.sources)]:
        assert digest is None or re.fullmatch(r"[0-9a-f]{64}", digest)
    for source in model.sources:
        if isinstance(source, WheelSource) and model.files:
            assert model.size_bytes == sum(file.size_bytes for file in model.files)
            assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in model.files)
        elif isinstance(source, WheelSource):
            assert model.file and model.size_bytes and model.sha256
            assert source.member.endswith("/" + model.file)
        else:
            assert catalogue.hub_model(source.repository)
            assert source.file == model.file


def test_names_are_found_whatever_their_case() -> None:
    assert catalogue.find("SmolLM2-135M") is catalogue.find("smollm2-135m") is not None
    assert catalogue.find("smollm2") is None


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("org/name", HubSource("org/name")),
        ("Org-1/na_me.v2", HubSource("Org-1/na_me.v2")),
        ("org/name@v1.0", HubSource("org/name", "v1.0")),
        ("org/name@refs/pr/7", HubSource("org/name", "refs/pr/7")),
        ("org/name/file.gguf", HubSource("org/name", None, "file.gguf")),
        ("org/name/q4/file.gguf@main", HubSource("org/name", "main", "q4/file.gguf")),
    ],
)
def test_hub_names_are_taken_apart(name: str, source: HubSource) -> None:
    model = catalogue.hub_model(name)
    assert model is not None
    assert (model.name, model.sources, model.file) == (name, (source,), source.file)


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "/org/name",
        "./org/name",
        "../name",
        "org/..",
        "org/name@../../x",
        "org/name@a//b",
        "org/name/../x.gguf",
        "org/name/file.bin",
        "org/name/",
        "org\\name",
        "org/name@",
        "org/na me",
        "~/name",
        "org/name\n",
        "",
    ],
)
def test_other_names_are_no_hub_names(name: str) -> None:
    assert catalogue.hub_model(name) is None


def test_an_unknown_kind_of_source_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown source kind 'ftp'; one of \['hub', 'wheel'\]"):
        catalogue._source({"kind": "ftp"})
