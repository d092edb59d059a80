from __future__ import annotations

import json

import pytest

pytest.importorskip("mwparserfromhell")

from data.wikipedia_text import documents, is_article, plain_text

ARTICLE = """{{Short description|Lake in Somewhere}}
{{Infobox lake
| name = Lake Example
| image = [[File:Lake.jpg|thumb|A picture]]
| area = {{convert|12|km2|sqmi}}
}}
[[File:Lake.jpg|thumb|left|The lake in [[winter]]]]
'''Lake Example''' ({{IPAc-en|l|eɪ|k}}; {{lang-de|Beispielsee}}) is a [[lake|large lake]]<ref
name="a">{{cite web|title=Lake|url=http://example.org}}</ref> in [[Somewhere (country)|Somewhere]].
<ref name="a" /> It is {{convert|12|km|mi|abbr=on}} long<!-- not sure --> and 10<sup>3</sup>&nbsp;m
deep.{{citation needed|date=May 2020}}

Its water is H<sub>2</sub>O.

== History ==
{{Main|History of the lake}}
Two things happened:
* In [[1900]], the first.
* In 1950, the ''second''.

{| class="wikitable"
|-
! Year !! Level
|-
| 1900 || 12 m
|}

=== Floods ===
It flooded {{as of|2015|3|lc=y}}.

== References ==
{{reflist}}
* A book.

== External links ==
* [http://example.org The lake]

[[Category:Lakes]]
[[de:Beispielsee]]
"""


def test_an_article_becomes_sentences_in_sections_with_paths_of_headings() -> None:
    text, sections = plain_text(ARTICLE)
    assert [(s.headings, text[s.start : s.end]) for s in sections] == [
        (
            (),
            "Lake Example (Beispielsee) is a large lake in Somewhere. It is 12 km long and "
            "10³ m deep.\n\nIts water is H2O.",
        ),
        (
            ("History",),
            "Two things happened:\nIn 1900, the first.\nIn 1950, the second.",
        ),
        (("History", "Floods"), "It flooded as of March 2015."),
    ]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("[[Link]]s and [[a|b]] and [[:Category:Lakes]]", "Links and b and Category:Lakes"),
        ("[[Bild:x.jpg|mini|Caption]]seen[[Image:x.png]]", "seen"),
        ("[[fr:Lac]]here [[Star Trek: Picard]]", "here Star Trek: Picard"),
        ("see [http://x.org the page] or [http://x.org] http://x.org now", "see the page or now"),
        ("a &amp; b &#8211; c&nbsp;d", "a & b – c d"),
        ("one<br />two", "one\ntwo"),
        ("hard\nwrapped\nlines\n\nnext", "hard wrapped lines\n\nnext"),
        ("<nowiki>[[x]]</nowiki>", "x"),
        ("__NOTOC__kept", "kept"),
        ("<math>E = mc</math> and <math>\\frac{1}{2}</math>.", "E = mc and."),
        ("<gallery>\nFile:a.jpg|A\n</gallery>kept", "kept"),
        ("before\n<syntaxhighlight lang=py>x = {{1}}</syntaxhighlight>\nafter", "before\n\nafter"),
        ("born (; 1 May 1900 – )", "born (1 May 1900 –)"),
        ("Asphalt (occasionally {{IPA|x}}), known", "Asphalt (occasionally), known"),
        ("'''bold ''and'' more", "bold and more"),
        ("{{quote|They came.|Caesar}}", "They came."),
        ("{{unclosed|template and [[link", "unclosed|template and link"),
        (
            "{| class=x\n| cell\n\nText after a table that never ends.",
            "Text after a table that never ends.",
        ),
        ("<div style='x'>inside</div><span>too</span>", "inside\n\ntoo"),
        ("", ""),
        ("{{Infobox}}\n[[Category:A]]", ""),
    ],
)
def test_markup_leaves_no_traces(wikitext: str, text: str) -> None:
    assert plain_text(wikitext, ("file", "image", "category", "bild"))[0] == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{convert|5|to|10|km|mi}}", "5 to 10 km"),
        ("{{Convert|5|sqmi|km2}}", "5 sq mi"),
        ("{{cvt|-40|C|F}}", "-40 °C"),
        ("{{lang|fr|Le ''lac''}}", "Le lac"),
        ("{{transl|ar|DIN|qahwa}}", "qahwa"),
        ("{{nowrap|a b}}", "a b"),
        ("{{As of|2020}}", "As of 2020"),
        ("{{circa|1500}}", "c. 1500"),
        ("{{frac|3|1|2}}", "3 1⁄2"),
        ("{{frac|2}}", "1⁄2"),
        ("{{val|1.5|e=6|u=km}}", "1.5×10^6 km"),
        ("{{chem|H|2|O}}", "H2O"),
        ("{{formatnum:12345}}", "12345"),
        ("{{HMS|Victory|1765}}", "HMS Victory"),
        ("{{ship|USS|Maine}}", "USS Maine"),
        ("{{US$|5}}", "US$5"),
        ("{{hlist|a|b|[[c]]}}", "a, b, c"),
        ("{{snd}}", "–"),
        ("{{nowrap|1={{convert|5|km}}}}", "5 km"),
        ("{{cite book|title=No}}", ""),
        ("{{efn|A note}}", ""),
        ("{{convert}}", ""),
        ("{{lang}}", ""),
    ],
)
def test_templates_that_stand_for_words_are_written_out(template: str, text: str) -> None:
    found = plain_text(f"x {template} y")[0]
    assert found == f"x {text} y".replace("  ", " ")


def test_sections_lie_in_the_text_and_cover_all_of_it_but_white_space() -> None:
    text, sections = plain_text("Lead.\n== A ==\nOne.\n=== B ===\nTwo.\n== C ==\n\n== D ==\nThree.")
    assert [s.headings for s in sections] == [(), ("A",), ("A", "B"), ("D",)]
    left = text
    for section in sections:
        left = left.replace(text[section.start : section.end], "", 1)
    assert not left.strip()


@pytest.mark.parametrize("markup", ["{{", "[[", "<ref>", "{|", "'''", "<div>", "{{{", "[http://"])
def test_markup_that_is_never_closed_costs_no_more_than_its_length(markup: str) -> None:
    text, _ = plain_text(f"Begin. {markup * 2000} end.")
    assert text.startswith("Begin.")


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("#REDIRECT [[X]]", False),
        (" #redirect[[X]]", False),
        ("'''A''' may refer to:\n* [[A1]]\n{{disambiguation|geo}}", False),
        ("{{Hndis}}", False),
        ("It is {{disambiguation needed|date=May 2020}} so.", True),
        ("'''A''' is.", True),
    ],
)
def test_only_pages_that_say_something_are_articles(wikitext: str, expected: bool) -> None:
    assert is_article(wikitext) is expected


def test_the_child_answers_for_every_page_in_order() -> None:
    content = json.dumps(["One.", "#REDIRECT [[X]]", "Two.\n== H ==\nThree."]).encode()
    assert list(documents(content, {"silent": ["file"]})) == [
        {"text": "One.", "sections": [[0, 4, ()]]},
        {"text": "", "sections": []},
        {"text": "Two.\n\nThree.", "sections": [[0, 4, ()], [6, 12, ("H",)]]},
    ]
