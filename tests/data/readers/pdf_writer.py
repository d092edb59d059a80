"""A small PDF in Helvetica: enough to be read back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence


def pdf_of(pages: Sequence[str], title: str = "", *, compressed: bool = False) -> bytes:
    """A PDF with a page for each string; its lines become lines. Letters of Latin-1 only."""
    return pdf_of_streams([_stream(page) for page in pages], title, compressed=compressed)


def pdf_of_streams(streams: Sequence[bytes], title: str = "", *, compressed: bool = False) -> bytes:
    """A PDF with a page for each content stream."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(streams)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(streams)} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for n, stream in enumerate(streams):
        page = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * n} 0 R >>"
        )
        body = zlib.compress(stream) if compressed else stream
        filtered = " /Filter /FlateDecode" if compressed else ""
        head = f"<< /Length {len(body)}{filtered} >>\nstream\n".encode()
        objects += [page.encode(), head + body + b"\nendstream"]
    if title:
        objects.append(f"<< /Title ({title}) >>".encode("latin-1"))
    return _file(objects, info=len(objects) if title else 0)


def _stream(page: str) -> bytes:
    lines = [
        line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        for line in page.split("\n")
    ]
    shown = "\n".join(f"({line}) Tj T*" for line in lines)
    return f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}\nET".encode("cp1252")


def _file(objects: Sequence[bytes], info: int) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R" % (len(objects) + 1)
    out += b" /Info %d 0 R" % info if info else b""
    return bytes(out + b" >>\nstartxref\n%d\n%%%%EOF\n" % table)
