from __future__ import annotations

from data.documents import Document, Section
from tests.data.readers.conftest import Read


def test_a_text_is_one_section_titled_by_the_name_of_the_file(read_as: Read) -> None:
    (document,) = read_as("My notes.txt", "# not a heading\n\nText.\n")
    assert document == Document(
        document.uri,
        "My notes",
        "# not a heading\n\nText.\n",
        (Section(0, 23),),
        {"mime": "text/plain", "lines": "yes"},
    )
