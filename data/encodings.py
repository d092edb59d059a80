"""Bytes of unknown encoding to text: byte order mark, UTF-8, what the file declares, a guess."""

from __future__ import annotations

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# what may be declared and what is guessed among: encodings of text that files are met in. Python
# knows others (rot13, unicode_escape, utf-7) that a file must not choose
_GUESSED = (
    "cp1252 iso8859_15 cp1250 iso8859_2 cp1251 koi8_r cp866 cp1253 cp1254 cp1255 cp1256 cp1257 "
    "cp1258 cp437 mac_roman cp932 euc_jp gb18030 big5 cp949"
).split()
_DECLARED = frozenset(
    [*_GUESSED, "utf_8", "iso2022_jp", "koi8_u", "cp874", "mac_cyrillic", "hz", "tis_620"]
    + [f"iso8859_{n}" for n in range(1, 17)]
)
# as browsers do: these names stand for the larger sets
_MEANT = {
    "iso8859_1": "cp1252",
    "ascii": "cp1252",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
}
_SAMPLE = 1 << 15
_HIGH = re.compile(rb"[\x80-\xff]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class NotTextError(ValueError):
    """The bytes are no text in any encoding that is looked for; the message says why."""


def decode(content: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text of `content` and the encoding it is in; line ends become \\n, a mark goes away.

    declared  the encoding that the file itself names; believed when it is one for text and the
              bytes are not UTF-8
    A few undecodable bytes become U+FFFD. NotTextError for what is not text.
    """
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return _lines(content[len(mark) :].decode(encoding, "replace")), encoding
    if wide := _wide(content):
        return _lines(content.decode(wide, "replace")), wide
    _refuse_binary(content)
    trusted = _trusted(declared)
    if content.isascii():
        seven_bits = b"\x1b$" in content  # Japanese mail
        named = "iso2022_jp" if seven_bits else trusted or "utf-8"
        return _lines(content.decode(named, "replace")), named
    try:
        return _lines(content.decode("utf-8")), "utf-8"
    except UnicodeDecodeError:
        pass
    text = content.decode("utf-8", "replace")
    n_wrong = text.count("�") - content.count("�".encode())
    if trusted in (None, "utf_8") and len(content) - len(text) > 20 * n_wrong:
        return _lines(text), "utf-8"  # mostly UTF-8: cut off in a letter, or a stray byte
    encoding = trusted or _guess(content)
    return _lines(content.decode(encoding, "replace")), encoding


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff").replace("\0", " ")


def _wide(content: bytes) -> str | None:
    """UTF-16 without a mark, known by zeros in every other byte (as Latin letters have)."""
    sample = content[:4096]
    if len(sample) < 4:
        return None
    even, odd = sample[::2].count(0) * 2, sample[1::2].count(0) * 2
    if odd > 0.4 * len(sample) and even < 0.02 * len(sample):
        return "utf-16-le"
    if even > 0.4 * len(sample) and odd < 0.02 * len(sample):
        return "utf-16-be"
    return None


def _refuse_binary(content: bytes) -> None:
    if b"\0" in content:
        raise NotTextError("it is binary (there are zero bytes in it)")
    sample = content[: 1 << 16]
    if len(_CONTROL.findall(sample)) > 0.02 * len(sample):
        raise NotTextError("it is binary (it is full of control characters)")


def _trusted(declared: str | None) -> str | None:
    """The codec that a declared name means, where it is one for text."""
    if not declared:
        return None
    try:
        name = codecs.lookup(declared.strip()).name.replace("-", "_")
    except (LookupError, ValueError):  # an unknown name; a name with a zero byte in it
        return None
    name = _MEANT.get(name, name)
    return name if name in _DECLARED else None


def _guess(content: bytes) -> str:
    """The encoding in which the first stretch with non-ASCII bytes reads like a language."""
    from charset_normalizer import from_bytes

    high = _HIGH.search(content)
    assert high is not None  # ASCII has been decoded before
    begin = max(content.rfind(b"\n", 0, high.start()) + 1, high.start() - 2000)
    sample = content[begin : begin + _SAMPLE]
    if len(sample) == _SAMPLE:  # end with a line: the last letter may be of several bytes
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    found = list(from_bytes(sample, cp_isolation=_GUESSED, preemptive_behaviour=False))
    if not found:
        raise NotTextError("it is in no encoding that is known here; save it as UTF-8")
    # western Europe shares most letters with its neighbours: in a tie the commoner encoding wins
    likely = [match for match in found if match.chaos <= found[0].chaos + 0.01]
    return max(likely, key=lambda m: (m.coherence, -_GUESSED.index(m.encoding))).encoding
