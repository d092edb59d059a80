from __future__ import annotations

import pytest

from data.chunks import chunks_of
from data.readers.code import _defined
from tests.data.readers.conftest import Read

PYTHON = '''"""What it does."""

import os

LIMIT = 3


def first(a, b):
    """Adds."""

    return a + b


class Second(Base):
    x = 1

    async def method(self):
        pass


@decorated
def third():
    pass
'''


def test_sections_are_the_definitions_at_the_margin(read_as: Read) -> None:
    (document,) = read_as("tool.py", PYTHON)
    assert document.text == PYTHON
    assert document.title == "tool.py"
    assert document.metadata == {"mime": "text/x-python", "lines": "yes", "unit": "lines"}
    assert [section.headings for section in document.sections] == [
        (),
        ("first",),
        ("Second",),
        ("third",),
    ]
    assert PYTHON[document.sections[3].start :].startswith("@decorated")


def test_chunks_are_lines(read_as: Read) -> None:
    (document,) = read_as("tool.py", PYTHON)
    assert [chunk.text.split("\n")[0] for chunk in chunks_of(document)] == [
        '"""What it does."""',
        "def first(a, b):",
        "class Second(Base):",
        "@decorated",
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("def f(x):", "f"),
        ("async def f():", "f"),
        ("class A(B):", "A"),
        ("pub(crate) fn run<T>(x: T) {", "run"),
        ("impl<T> Trait for X {", "Trait"),
        ("func (s *Server) Serve() {", "Serve"),
        ("export default function main() {", "main"),
        ("export const f = async (x) => {", "f"),
        ("public static class Program {", "Program"),
        ("static void *run(int x)", "run"),
        ("int main(int argc, char **argv)", "main"),
        ("std::string Foo::bar(int x) {", "Foo::bar"),
        ("CREATE TABLE users (", "users"),
        ("deploy() {", "deploy"),
        ("namespace a::b {", "a::b"),
        ("if (x) {", ""),
        ("return f(x)", ""),
        ("print(x)", ""),
        ("x = 1", ""),
        ("# comment", ""),
        ("a " * 5000 + "(", ""),
    ],
)
def test_names_of_definitions(line: str, name: str) -> None:
    assert _defined(line) == name


def test_code_without_definitions_is_taken_together(read_as: Read) -> None:
    (document,) = read_as("a.toml", "\n\n".join(f"[part{n}]\nx = {n}" for n in range(50)))
    assert 1 < len(document.sections) < 5
    assert document.sections[-1].end == len(document.text)


def test_one_long_line_is_read(read_as: Read) -> None:
    (document,) = read_as("a.min.js", "function(a){return a(a)};" * 20_000)
    assert len(chunks_of(document)) > 500
