"""Source code: the file's own lines, in sections by definitions that follow a blank line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.documents import Document, Section

from . import Limits, Source
from ._bytes import text_of

SUFFIXES = {
    ".py": "text/x-python", ".pyi": "text/x-python", ".pyx": "text/x-cython",
    ".c": "text/x-c", ".h": "text/x-c", ".cc": "text/x-c++", ".cpp": "text/x-c++",
    ".cxx": "text/x-c++", ".hh": "text/x-c++", ".hpp": "text/x-c++", ".cu": "text/x-cuda",
    ".m": "text/x-objective-c", ".rs": "text/x-rust", ".go": "text/x-go", ".zig": "text/x-zig",
    ".java": "text/x-java", ".kt": "text/x-kotlin", ".kts": "text/x-kotlin",
    ".scala": "text/x-scala", ".swift": "text/x-swift", ".cs": "text/x-csharp",
    ".fs": "text/x-fsharp", ".vb": "text/x-vb", ".dart": "text/x-dart",
    ".js": "text/javascript", ".mjs": "text/javascript", ".cjs": "text/javascript",
    ".jsx": "text/javascript", ".ts": "text/typescript", ".tsx": "text/typescript",
    ".vue": "text/x-vue", ".svelte": "text/x-svelte", ".css": "text/css", ".scss": "text/x-scss",
    ".less": "text/x-less", ".php": "text/x-php", ".rb": "text/x-ruby", ".pl": "text/x-perl",
    ".pm": "text/x-perl", ".lua": "text/x-lua", ".r": "text/x-r", ".jl": "text/x-julia",
    ".hs": "text/x-haskell", ".ml": "text/x-ocaml", ".mli": "text/x-ocaml",
    ".ex": "text/x-elixir", ".exs": "text/x-elixir", ".erl": "text/x-erlang",
    ".clj": "text/x-clojure", ".el": "text/x-lisp", ".lisp": "text/x-lisp", ".scm": "text/x-scheme",
    ".f90": "text/x-fortran", ".f": "text/x-fortran", ".pas": "text/x-pascal",
    ".asm": "text/x-asm", ".s": "text/x-asm", ".v": "text/x-verilog", ".vhd": "text/x-vhdl",
    ".sh": "text/x-shell", ".bash": "text/x-shell", ".zsh": "text/x-shell",
    ".fish": "text/x-shell", ".ps1": "text/x-powershell", ".bat": "text/x-batch",
    ".cmd": "text/x-batch", ".sql": "text/x-sql", ".graphql": "text/x-graphql",
    ".proto": "text/x-protobuf", ".tf": "text/x-terraform", ".nix": "text/x-nix",
    ".cmake": "text/x-cmake", ".gradle": "text/x-gradle", ".mk": "text/x-makefile",
    ".toml": "text/x-toml", ".yaml": "text/x-yaml", ".yml": "text/x-yaml", ".ini": "text/x-ini",
    ".cfg": "text/x-ini", ".conf": "text/x-ini", ".xml": "text/xml", ".xsl": "text/xml",
    "makefile": "text/x-makefile", "dockerfile": "text/x-dockerfile", "gnumakefile":
    "text/x-makefile", "cmakelists.txt": "text/x-cmake", "rakefile": "text/x-ruby",
    "gemfile": "text/x-ruby", "jenkinsfile": "text/x-groovy", "justfile": "text/x-makefile",
}  # fmt: skip
ISOLATED = False

# blocks without a definition are taken together up to so many characters
_SMALL = 800
# the name that a line at the left margin defines, in the words of most languages
_DEFINITION = re.compile(
    r"(?:(?:export|default|pub(?:\([a-z]{1,9}\))?|public|private|protected|internal|static|final"
    r"|abstract|async|unsafe|extern|inline|constexpr|virtual|override|sealed|open|data|local"
    r"|partial|const)[ \t]++)*+"
    r"(?:def|class|function|func|fn|fun|interface|struct|enum|trait|impl|module|namespace|object"
    r"|type|record|protocol|extension|macro_rules!|defmodule|defp?|defun|sub|proc|mod|message"
    r"|service|package|create[ \t]+(?:table|view|function|procedure))\b"
    r"[ \t]*+(?:<[^<>\n]{1,80}>[ \t]*+)?(?:\([^()\n]{1,80}\)[ \t]*+)?([\w$.:-]{1,100})",
    re.IGNORECASE,
)
# "int main(int argc, …", "static void *run(…", "name() {" and "const name = (…) =>"
_FUNCTION = re.compile(
    r"(?:[A-Za-z_][\w:<>,*&]*[ \t]+[*&]*){1,5}([A-Za-z_][\w:~]*)[ \t]?\("
    r"|([A-Za-z_][\w-]*)[ \t]?\(\)[ \t]*\{?$"
    r"|(?:export[ \t]+)?(?:const|let|var)[ \t]+([\w$]+)[ \t]*=[ \t]*(?:async[ \t]*)?(?:\(|function)"
)
_STATEMENTS = frozenset("if for while switch return else elif with assert raise print new".split())
_LONGEST_LINE = 400


def parse(content: bytes, source: Source, limits: Limits) -> Iterator[Document]:
    """One document, titled by the file's name; its chunks are made of lines."""
    text = text_of(content, source, limits)
    if not text.strip():
        raise source.error("there is no text in it")
    metadata = {"mime": source.mime, "lines": "yes", "unit": "lines"}
    yield Document(source.uri, source.name, text, tuple(_sections(text)), metadata)


def _sections(text: str) -> Iterator[Section]:
    """Blocks that begin at the left margin after a blank line; what defines nothing is joined."""
    start, name = 0, ""
    for begin, found in _blocks(text):
        if begin == 0:
            name = found
            continue
        if found or name or begin - start > _SMALL:
            yield Section(start, begin, (name,) if name else ())
            start, name = begin, found
    yield Section(start, len(text), (name,) if name else ())


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """(start of the block, the name that it defines or "")."""
    start = position = 0
    name, is_blank, is_first = "", True, True
    for line in text.split("\n"):
        at_margin = bool(line) and not line[0].isspace() and line[0] not in ")]}"
        if at_margin and is_blank and not line.startswith("end"):
            if not is_first:
                yield start, name
            start, name, is_first = position, "", False
        if at_margin and not name:
            name = _defined(line)
        is_blank = not line.strip()
        position += len(line) + 1
    yield start, name


def _defined(line: str) -> str:
    line = line[:_LONGEST_LINE]
    if match := _DEFINITION.match(line):
        return match[1].rstrip(":.")
    match = _FUNCTION.match(line)
    if match is None or line.split("(")[0].split()[0] in _STATEMENTS:
        return ""
    return next(group for group in match.groups() if group)
