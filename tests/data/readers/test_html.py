from __future__ import annotations

import pytest

from data.documents import DocumentError
from tests.data.readers.conftest import Read


def test_the_visible_text_comes_in_blocks_under_its_headings(read_as: Read) -> None:
    (document,) = read_as(
        "a.html",
        """<!doctype html><html><head><title>The  page</title><style>p {}</style></head><body>
        <nav>Home | About</nav><p>Before <b>all</b>,
        a line.<br>Another.</p>
        <h1>One</h1><p>A&amp;B</p><ul><li>first<li>second <i>item</i></ul>
        <h2>Two <a href="#x">¶</a></h2><div>Div<div>inner</div>rest</div>
        <pre>  x = 1
  y  = 2</pre><script>alert(1)</script><footer>Copyright</footer></body></html>""",
    )
    assert document.text == (
        "Before all, a line.\nAnother.\n\nOne\n\nA&B\n\n- first\n- second item\n\n"
        "Two\n\nDiv\n\ninner\n\nrest\n\nx = 1\n  y  = 2"
    )
    assert document.title == "The page"
    assert [section.headings for section in document.sections] == [(), ("One",), ("One", "Two")]
    assert document.metadata == {"mime": "text/html"}


@pytest.mark.parametrize(
    "part",
    [
        "<script>hidden</script>",
        "<style>hidden</style>",
        "<template><p>hidden</p></template>",
        "<noscript>hidden</noscript>",
        "<p hidden>hidden</p>",
        "<p style='color:red;display: none'>hidden</p>",
        "<div role=navigation>hidden</div>",
        "<svg><text>hidden</text></svg>",
        "<select><option>hidden</select>",
        "<!-- hidden -->",
        "<iframe>hidden</iframe>",
        "<nav><h1>hidden</h1></nav>",
    ],
)
def test_what_a_reader_does_not_see_is_dropped(read_as: Read, part: str) -> None:
    (document,) = read_as("a.html", f"<p>before{part}<p>after")
    assert document.text == "before\n\nafter"


def test_rows_of_a_table_are_lines(read_as: Read) -> None:
    (document,) = read_as(
        "a.html",
        "<table><tr><th>Name</th><th>Size</th></tr><tr><td><p>Zug</p></td><td></td><td>5</td></tr>"
        "</table>after",
    )
    assert document.text == "Name | Size\nZug | | 5\n\nafter"


def test_tables_that_lay_out_a_page_are_read_as_blocks(read_as: Read) -> None:
    (document,) = read_as("a.html", "<table><tr><td><h2>Part</h2><p>One.<p>Two.</td></tr></table>")
    assert document.text == "Part\n\nOne.\n\nTwo."
    assert document.title == "Part"


def test_the_title_is_the_first_heading_or_the_name_of_the_file(read_as: Read) -> None:
    assert read_as("a.html", "<h2><div>In</div> short</h2>x")[0].title == "In short"
    assert read_as("page.html", "<p>x")[0].title == "page"


@pytest.mark.parametrize(
    "head", ["<meta charset={}>", '<META http-equiv=x content="text/html; charset={}">',
             '<?xml version="1.0" encoding="{}"?>']
)  # fmt: skip
def test_the_declared_encoding_is_honoured(read_as: Read, head: str) -> None:
    page = head.format("iso-8859-2") + "<p>Zażółć gęślą"
    assert read_as("a.html", page.encode("iso-8859-2"))[0].text == "Zażółć gęślą"


@pytest.mark.parametrize("declared", ["utf-16", "rot13", "nonsense", "x" * 1000, "ibm\x00437"])
def test_a_declared_encoding_that_is_none_does_no_harm(read_as: Read, declared: str) -> None:
    page = f"<meta charset={declared}><p>plain words".replace("\0", "")
    assert read_as("a.html", page)[0].text == "plain words"


def test_the_address_of_a_saved_page_is_kept_for_citations(read_as: Read) -> None:
    (document,) = read_as("a.html", "<link rel=canonical href='https://example.org/x'><p>x")
    assert document.metadata["url"] == "https://example.org/x"
    (document,) = read_as("a.html", "<link rel=canonical href='javascript:x'><p>x")
    assert "url" not in document.metadata


def test_soft_hyphens_are_removed(read_as: Read) -> None:
    assert read_as("a.html", "<p>soft&shy;ware&nbsp;is")[0].text == "software is"


@pytest.mark.parametrize("tag", ["div", "b", "span", "ul"])
def test_deep_nesting_is_read_or_refused(read_as: Read, tag: str) -> None:
    page = f"<{tag}>" * 100_000 + "x"
    if tag in ("div", "ul"):
        with pytest.raises(DocumentError, match="its tags are nested more than 20,000 deep"):
            read_as("a.html", page)
    else:
        assert read_as("a.html", page)[0].text == "x"


def test_a_page_of_nothing_but_programs_has_no_text(read_as: Read) -> None:
    with pytest.raises(DocumentError, match="there is no text in it"):
        read_as("a.html", "<title>App</title><script>render()</script>")
