"""Where sentences end, by rules: abbreviations, initials, decimals, quotes, ellipses, CJK stops.

One pass of a regular expression whose every branch eats what it looks at (possessive, no
lookahead), so the time is linear in the text, whatever the text.
"""

from __future__ import annotations

import re

Span = tuple[int, int]

_CLOSERS = "\"'”’»›)\\]}」』”）】》〉〕"
_OPENERS = "\"'“‘«‹([{「『（【《〈„¿¡*_"
# a footnote's number may stand between the full stop and the space: "in 1905.[12] Then"
_MARK = re.compile(
    rf"(?P<stop>[.!?…‽؟۔։።।॥]++[{_CLOSERS}]*+(?:\[\w{{1,4}}\])*+)"
    rf"|(?P<wide>[。！？．｡]++[{_CLOSERS}]*+)"
    r"|(?P<line>\n\s*+)"
)
_SPACE = re.compile(r"\s*+")
_VISIBLE = re.compile(r"\S")
_WORD = re.compile(r"[^\W\d_]++")
# what begins a line that stands for itself: a list item, a heading, a table's row, a code fence
_ITEM = re.compile(r"(?:[-*+•‣◦–]|\(?(?:\d{1,3}|[A-Za-z])[.)])[ \t]|#{1,6}[ \t]|\||```|~~~")
_OWN_LINE = re.compile(r"#{1,6}[ \t]|```|~~~|[-=_*~+|:# \t]++\Z")
_LONGEST_ABBREVIATION = 16

_NEVER_LAST = frozenset(
    "mr mrs ms mx dr prof rev hon gen col lt capt maj sgt cmdr adm gov sen rep pres mme mlle hr fr "
    "sr sra srta dña e.g i.e eg ie vs viz cf approx resp incl excl esp z.b d.h bzw vgl sog "
    "gem ggf evtl bspw".split()
)
_MAY_BE_LAST = frozenset(
    "inc ltd co corp bros jr esq etc al est dept univ assn ave blvd rd st mt ft jan feb mar apr "
    "jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun ph.d vol vols ed eds trans rev "
    "ca c usw u.a env av".split()
)
_BEFORE_NUMBERS = frozenset(
    "no nos nr núm fig figs vol vols p pp ch chap sec art eq op ver".split()
)
# a sentence that begins with one of these is new even after an abbreviation ("in the U.S. The …")
_BEGINNERS = frozenset(
    "The A An He She It They We You I This That These Those There Here In On At For From By With "
    "But And Or So However His Her Its Their Our My As After Before When While Where If Although "
    "Since During Because Then Thus Also Today Later Some Many Most Other Another Each All Both "
    "One Not No Yes What Who Why How Der Die Das Es Er Sie El Los Las Le Les Il Elle En".split()
)


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The sentences of text[start:end] as (start, end) into `text`, without white space around.

    Together they hold every character that is no white space. A blank line, a list item, a
    heading's line and a table's row end a sentence, too; a single line end does not.
    """
    end = len(text) if end is None else end
    found: list[Span] = []
    begin = _after_space(text, start, end)
    for mark in _MARK.finditer(text, begin, end):
        if mark.start() < begin:
            continue
        kind = mark.lastgroup
        if kind == "line":
            is_end = _line_ends(text, begin, mark)
            stop = mark.start()
        else:
            stop = mark.end()
            is_end = (
                _stop_ends(text, begin, mark, end) if kind == "stop" else _wide_ends(text, mark)
            )
        if is_end and stop > begin:
            found.append((begin, begin + len(text[begin:stop].rstrip())))
            begin = _after_space(text, stop, end)
    if begin < end:
        found.append((begin, begin + len(text[begin:end].rstrip())))
    return found


def _after_space(text: str, start: int, end: int) -> int:
    match = _SPACE.match(text, start, end)
    return match.end() if match else start


def _line_ends(text: str, begin: int, mark: re.Match[str]) -> bool:
    """Is the end of this line the end of a sentence?"""
    if mark[0].count("\n") > 1 or _ITEM.match(text, mark.end()):
        return True
    line = max(begin, text.rfind("\n", begin, mark.start()) + 1)
    return _OWN_LINE.match(text, line, mark.start()) is not None


def _wide_ends(text: str, mark: re.Match[str]) -> bool:
    """A CJK full stop always ends a sentence, but for the point of a full-width decimal."""
    return not (mark[0] == "．" and text[mark.end() : mark.end() + 1].isdigit())


def _stop_ends(text: str, begin: int, mark: re.Match[str], end: int) -> bool:
    """Does ".", "!", "?", "…" or a run of them end the sentence that starts at `begin`?"""
    follower = _after_space(text, mark.end(), end)
    if follower == end:
        return True
    if follower == mark.end():  # 3.14, example.org, wait…what
        return False
    while follower < end and text[follower] in _OPENERS and follower - mark.end() < 8:
        follower += 1
    if text[follower : follower + 1].islower():
        return False
    return mark[0] != "." or not _is_abbreviation(text, begin, mark.start(), follower)


def _is_abbreviation(text: str, begin: int, dot: int, follower: int) -> bool:
    """Does the word before `dot` only look like the end of a sentence? What follows, and begins
    with no small letter at `follower`, decides where the word may stand at an end as well."""
    words = text[max(begin, dot - _LONGEST_ABBREVIATION) : dot].split()
    word = words[-1].lstrip(_OPENERS) if words else ""
    if word.isdigit():  # "1. First item"; but "in 1905. Then"
        return dot - len(word) == begin and len(word) <= 3
    name = word.casefold()
    if name in _NEVER_LAST:
        return True
    if name in _BEFORE_NUMBERS and text[follower].isdigit():
        return True
    parts = name.split(".")
    # initials (J. R. R. Tolkien), U.S., a.m., Ph.D
    is_letters = len(name) == 1 or (len(parts) > 1 and all(len(part) <= 2 for part in parts))
    if not (name in _MAY_BE_LAST or (is_letters and name.replace(".", "").isalpha())):
        return False
    following = _WORD.match(text, follower)
    if following is None:
        return text[follower].isdigit() or len(name) == 1
    begins_new = following[0] in _BEGINNERS and text[following.end() : following.end() + 1] != "."
    return not begins_new
