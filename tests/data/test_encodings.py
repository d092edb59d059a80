from __future__ import annotations

import pytest

from data.encodings import NotTextError, decode

TEXTS = {
    "cp1252": "Le café était fermé; la forêt brûlait à côté de l’église. Où êtes-vous, élève?",
    "latin-1": "Señor Núñez habló del niño: mañana comerá piña en el jardín español.",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń i jeszcze więcej słów.",
    "cp1251": "Съешь же ещё этих мягких французских булок да выпей чаю. Москва — столица России.",
    "koi8_r": "Съешь же ещё этих мягких французских булок да выпей чаю. Москва столица России.",
    "cp932": "これは日本語の文章です。東京は日本の首都であり、多くの人が住んでいます。",
    "euc_jp": "これは日本語の文章です。東京は日本の首都であり、多くの人が住んでいます。",
    "gb18030": "这是中文的句子。北京是中华人民共和国的首都，历史悠久的城市。",
    "big5": "這是中文的句子。臺北是中華民國的首都，歷史悠久的城市。",
    "cp949": "이것은 한국어 문장입니다. 서울은 대한민국의 수도이며 많은 사람이 살고 있습니다.",
    "cp1253": "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας και η μεγαλύτερη πόλη της χώρας.",
    "cp1255": "ירושלים היא בירת ישראל והעיר הגדולה ביותר בה",
    "iso2022_jp": "これは日本語です。",
}


@pytest.mark.parametrize("encoding", sorted(TEXTS))
def test_undeclared_encodings_are_guessed(encoding: str) -> None:
    assert decode(TEXTS[encoding].encode(encoding))[0] == TEXTS[encoding]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_and_goes_away(encoding: str) -> None:
    assert decode("Hello wïde 日本".encode(encoding))[0] == "Hello wïde 日本"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_known_without_a_mark(encoding: str) -> None:
    assert decode("Plain words and a few more.".encode(encoding)) == (
        "Plain words and a few more.",
        encoding,
    )


def test_utf_8_comes_before_what_is_declared() -> None:
    assert decode("naïve".encode(), declared="cp1251") == ("naïve", "utf-8")


def test_a_declared_encoding_comes_before_a_guess() -> None:
    assert decode("Zażółć".encode("iso8859_2"), declared="ISO-8859-2")[0] == "Zażółć"


def test_latin_1_means_what_browsers_take_it_for() -> None:
    assert decode("“5 €”".encode("cp1252"), declared="iso-8859-1") == ("“5 €”", "cp1252")


@pytest.mark.parametrize(
    "declared", ["rot13", "unicode_escape", "utf-7", "utf-16", "hex", "idna", "mbcs", "x\0y", "no"]
)
def test_a_file_cannot_choose_a_codec_that_is_none_for_text(declared: str) -> None:
    text = "A \\u0041 +AEE- 4142"
    assert decode(text.encode(), declared=declared) == (text, "utf-8")


def test_line_ends_become_newlines() -> None:
    assert decode(b"a\r\nb\rc\nd")[0] == "a\nb\nc\nd"


def test_a_text_cut_off_inside_a_letter_stays_utf_8() -> None:
    text, encoding = decode(("naïve façade, " * 50).encode() + b"\xc3")
    assert (text[-1], encoding) == ("�", "utf-8")


def test_one_latin_byte_does_not_spoil_a_text_in_utf_8() -> None:
    text, encoding = decode(("naïve façade, " * 50).encode() + b"\xe9 fin")
    assert encoding == "utf-8"
    assert text.startswith("naïve façade")
    assert text.endswith("� fin")


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04\0\0\xff", bytes(range(1, 256)) * 9, b"text\0text"]
)
def test_binary_files_are_no_text(content: bytes) -> None:
    with pytest.raises(NotTextError, match="it is binary"):
        decode(content)


def test_an_empty_file_is_an_empty_text() -> None:
    assert decode(b"") == ("", "utf-8")
