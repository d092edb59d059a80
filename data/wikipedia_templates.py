"""Templates that stand for words of a sentence; all others (citations, boxes, notes) are left out.

"The lake is {{convert|5|km|mi}} long" would lose its point without its template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arguments:
    """What stands in a template: positional arguments in order, and the named ones."""

    positional: Sequence[str]
    named: Mapping[str, str]

    def at(self, index: int) -> str:
        """A positional argument, from 0; "" when there are fewer."""
        return self.positional[index] if index < len(self.positional) else ""


def stands_for_words(name: str) -> bool:
    """Whether `render` knows it: the arguments of others need not be looked at."""
    return _function(_plain_name(name)) is not None


def render(name: str, arguments: Arguments) -> str:
    """The words that the template `name` stands for; "" when it stands for none."""
    name = _plain_name(name)
    function = _function(name)
    return function(name, arguments) if function else ""


def _plain_name(name: str) -> str:
    return name.strip().replace("_", " ").casefold()


def _function(name: str) -> Callable[[str, Arguments], str] | None:
    if name.startswith("formatnum:"):
        return lambda name, arguments: name.partition(":")[2].strip()
    if re.fullmatch(r"lang-[a-z-]{2,12}", name):
        return _first
    return _RENDERED.get(name)


def _first(name: str, arguments: Arguments) -> str:
    return arguments.at(0)


def _second(name: str, arguments: Arguments) -> str:
    return arguments.at(1)


def _last(name: str, arguments: Arguments) -> str:
    return "".join(arguments.positional[-1:])


def _joined(name: str, arguments: Arguments) -> str:
    return "".join(arguments.positional)


def _listed(name: str, arguments: Arguments) -> str:
    return ", ".join(part for part in arguments.positional if part)


def _symbol(name: str, arguments: Arguments) -> str:
    return _SYMBOLS[name]


def _before(name: str, arguments: Arguments) -> str:
    return f"{_PREFIXES[name]}{arguments.at(0)}" if arguments.at(0) else ""


def _ship(name: str, arguments: Arguments) -> str:
    """{{HMS|Victory}} and {{ship|HMS|Victory}} → "HMS Victory"."""
    prefix = arguments.at(0) if name == "ship" else name.upper()
    return f"{prefix} {arguments.at(1 if name == 'ship' else 0)}".strip()


def _convert(name: str, arguments: Arguments) -> str:
    """{{convert|5|km|mi}} → "5 km", {{convert|5|to|10|km|mi}} → "5 to 10 km"."""
    number, unit = arguments.at(0), arguments.at(1)
    if unit in _BETWEEN and _NUMBER.fullmatch(arguments.at(2)):
        number, unit = f"{number}{_BETWEEN[unit]}{arguments.at(2)}", arguments.at(3)
    return f"{number} {_UNITS.get(unit, unit)}".strip()


def _as_of(name: str, arguments: Arguments) -> str:
    """{{as of|2015|3}} → "As of March 2015"."""
    year, month, day = (arguments.at(i) for i in range(3))
    words = "as of" if arguments.named.get("lc") in ("y", "yes") else "As of"
    is_number = month.isascii() and month.isdecimal() and 0 < int(month) <= len(_MONTHS)
    named = _MONTHS[int(month) - 1] if is_number else month
    return " ".join(part for part in (words, day, named, year) if part)


def _fraction(name: str, arguments: Arguments) -> str:
    """{{frac|1|2}} → "1⁄2", {{frac|3|1|2}} → "3 1⁄2"."""
    parts = [part for part in arguments.positional if part]
    if len(parts) == 3:
        return f"{parts[0]} {parts[1]}⁄{parts[2]}"
    return "⁄".join(["1", *parts] if len(parts) == 1 else parts)


def _value(name: str, arguments: Arguments) -> str:
    """{{val|1.5|e=6|u=km}} → "1.5×10^6 km"."""
    exponent, unit = (arguments.named.get(key, "") for key in ("e", "u"))
    number = arguments.at(0) + (f"×10^{exponent}" if exponent else "")
    return f"{number} {unit}".strip()


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


_NUMBER = re.compile(r"[-+−]?[\d.,/⁄]+")
_MONTHS = _split(
    "January, February, March, April, May, June, July, August, September, October, November, "
    "December"
)
# between the two numbers of a range
_BETWEEN = {"to": " to ", "-": "–", "–": "–", "and": " and ", "x": " × ", "by": " by ",
            "or": " or ", "&": " and ", "*": " × ", "to(-)": " to ", "+/-": " ± ",
            "±": " ± "}  # fmt: skip
_UNITS = {"sqmi": "sq mi", "mi2": "sq mi", "km2": "km²", "m2": "m²", "sqft": "sq ft",
          "ft2": "sq ft", "m3": "m³", "km3": "km³", "cuft": "cu ft", "C": "°C", "F": "°F",
          "in": "inches", "acre": "acres"}  # fmt: skip
_SYMBOLS = {
    "'": "'", "'s": "'s", "=": "=", "!": "|", "nbsp": " ", "thinsp": " ", "space": " ",
    "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "spaced en dash": " – ", "ndash": "–",
    "en dash": "–", "mdash": "—", "em dash": "—", "—": "—", "mdashb": "—", "spaced mdash": " — ",
    "·": " · ", "dot": " · ", "bullet": " · ", "•": " • ", "times": "×", "pm": "±", "pi": "π",
    "degree": "°", "prime": "′",
}  # fmt: skip
_PREFIXES = {
    "circa": "c. ", "c.": "c. ", "ca.": "c. ", "floruit": "fl. ", "fl.": "fl. ",
    "us$": "US$", "usd": "US$", "a$": "A$", "aud": "A$", "c$": "C$", "cad": "C$", "eur": "€",
    "euro": "€", "gbp": "£", "£": "£", "inr": "₹", "¥": "¥", "jpy": "¥", "sqrt": "√",
}  # fmt: skip
_SHIPS = _split("ship, uss, hms, ss, rms, hmas, hmcs, ms, mv, sms, usns")
_SHOWN = """abbr, angbr, angle bracket, avoid wrap, big, blockquote, bold, center, centre, chem2,
code, cquote, dfn, em, flag, flagcountry, flagu, font, gloss, ill, interlanguage link, italic, kbd,
key, keypress, larger, linktext, lsj, math, mono, mvar, nihongo, no italic, nobold, nobr, noitalic,
not a typo, nowrap, oldstyledate, poemquote, quotation, quote, quote box, rquote, samp, sc, sic,
small, small caps, smallcaps, smaller, strong, sub, term, tooltip, tt, unicode, vanchor, var,
visible anchor"""
_BEHIND_A_CODE = """color, colour, font color, fontcolor, hover title, lang, langx, native name,
native phrase, script"""

_RENDERED: dict[str, Callable[[str, Arguments], str]] = {
    **dict.fromkeys(_split(_SHOWN), _first),
    **dict.fromkeys(_split(_BEHIND_A_CODE), _second),
    **dict.fromkeys(_split("transl, transliteration"), _last),
    **dict.fromkeys(_split("chem, gaps"), _joined),
    **dict.fromkeys(_split("hlist, ubl, unbulleted list, plainlist"), _listed),
    **dict.fromkeys(_SYMBOLS, _symbol),
    **dict.fromkeys(_PREFIXES, _before),
    **dict.fromkeys(_SHIPS, _ship),
    **dict.fromkeys(_split("convert, cvt"), _convert),
    **dict.fromkeys(_split("as of, asof"), _as_of),
    **dict.fromkeys(_split("frac, sfrac, fraction"), _fraction),
    "val": _value,
}
