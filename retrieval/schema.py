"""The tables of `knowledge.sqlite`, their version and the checksum that every row carries.

`title` of a chunk is the document's title with the headings, `body` its text; the full-text index
reads both from `chunks` (external content), so no text is kept twice for it. Ids are given by us
(`state` knows the last ones) and never used again. Large columns stand last, so that the others
are read without them.
"""

from __future__ import annotations

import zlib

VERSION = 1
APPLICATION_ID = 0x53504B42  # "SPKB": what `file` and other tools can know the file by
FTS_OPTIONS = "tokenize='porter unicode61'"

# table -> its columns before `crc`, which is the checksum of their values in this order
COLUMNS = {
    "settings": (
        "id base_id created n_sentences chunker encoder encoder_id dimension backend".split()
    ),
    "state": "id commit_number n_documents n_chunks n_files last_document_id last_chunk_id".split(),
    "roots": "id path globs exclude".split(),
    "files": "id root_id path sha256 mtime_ns size state".split(),
    "documents": "id file_id uri title n_chunks sha256 metadata text".split(),
    "chunks": ("id document_id ord start stop page text_sha headings title body".split()),
    "encoders": "id encoder_id dimension".split(),
    "embeddings": "id encoder text_sha vector".split(),
}

TABLES = (
    """CREATE TABLE settings (
        id INTEGER PRIMARY KEY, base_id TEXT NOT NULL, created TEXT NOT NULL,
        n_sentences INTEGER NOT NULL, chunker TEXT NOT NULL, encoder TEXT, encoder_id TEXT,
        dimension INTEGER, backend TEXT NOT NULL, crc INTEGER NOT NULL)""",
    """CREATE TABLE state (
        id INTEGER PRIMARY KEY, commit_number INTEGER NOT NULL, n_documents INTEGER NOT NULL,
        n_chunks INTEGER NOT NULL, n_files INTEGER NOT NULL, last_document_id INTEGER NOT NULL,
        last_chunk_id INTEGER NOT NULL, crc INTEGER NOT NULL)""",
    """CREATE TABLE roots (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL, globs TEXT NOT NULL,
        exclude TEXT NOT NULL, crc INTEGER NOT NULL, UNIQUE (path, globs, exclude))""",
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY, root_id INTEGER NOT NULL, path TEXT NOT NULL UNIQUE,
        sha256 BLOB NOT NULL, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL,
        state TEXT NOT NULL, crc INTEGER NOT NULL)""",
    """CREATE TABLE documents (
        id INTEGER PRIMARY KEY, file_id INTEGER, uri TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
        n_chunks INTEGER NOT NULL, sha256 BLOB NOT NULL, crc INTEGER NOT NULL,
        metadata TEXT NOT NULL, text TEXT NOT NULL)""",
    "CREATE INDEX documents_by_file ON documents (file_id)",
    """CREATE TABLE chunks (
        id INTEGER PRIMARY KEY, document_id INTEGER NOT NULL, ord INTEGER NOT NULL,
        start INTEGER NOT NULL, stop INTEGER NOT NULL, page INTEGER, text_sha BLOB NOT NULL,
        crc INTEGER NOT NULL, headings TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX chunks_by_document ON chunks (document_id, ord)",
    "CREATE INDEX chunks_by_text ON chunks (text_sha)",
    """CREATE TABLE encoders (
        id INTEGER PRIMARY KEY, encoder_id TEXT NOT NULL UNIQUE, dimension INTEGER NOT NULL,
        crc INTEGER NOT NULL)""",
    """CREATE TABLE embeddings (
        id INTEGER PRIMARY KEY, encoder INTEGER NOT NULL, text_sha BLOB NOT NULL,
        crc INTEGER NOT NULL, vector BLOB NOT NULL, UNIQUE (text_sha, encoder))""",
    # chunks without a vector of the base's encoder; chunks that a generation may still hold
    "CREATE TABLE pending (chunk_id INTEGER PRIMARY KEY)",
    "CREATE TABLE tombstones (chunk_id INTEGER PRIMARY KEY)",
    f"""CREATE VIRTUAL TABLE fts USING fts5(
        title, body, content='chunks', content_rowid='id', {FTS_OPTIONS})""",
)

Value = int | str | bytes | None


def row_crc(*values: Value) -> int:
    """CRC-32 over the values with their types and lengths: what a row's `crc` must be."""
    crc = 0
    for value in values:
        if isinstance(value, str):
            raw, kind = value.encode("utf-8", "surrogatepass"), b"s"
        elif isinstance(value, bytes):
            raw, kind = value, b"b"
        else:  # repr: a float, which only damage can make, is not an int
            raw, kind = repr(value).encode(), b"v"
        crc = zlib.crc32(raw, zlib.crc32(b"%s%d:" % (kind, len(raw)), crc))
    return crc


def select(table: str) -> str:
    """ "SELECT crc, columns FROM table": the columns in the order of their checksum."""
    return f"SELECT crc, {', '.join(COLUMNS[table])} FROM {table}"


def insert(table: str, verb: str = "INSERT") -> str:
    """The statement that takes a row as `sealed` makes it."""
    columns = COLUMNS[table]
    marks = ", ".join("?" * (len(columns) + 1))
    return f"{verb} INTO {table} (crc, {', '.join(columns)}) VALUES ({marks})"


def sealed(*values: Value) -> tuple[Value, ...]:
    """(crc, *values)."""
    return row_crc(*values), *values
