"""Wikipedia as documents: a packaged set of leads, a dump of one's own, or a table of articles."""

from __future__ import annotations

from .tables import rows
from .wikipedia_articles import Limits, dump
from .wikipedia_dump import DumpError
from .wikipedia_leads import address, fetch, leads

__all__ = ["DumpError", "Limits", "address", "dump", "fetch", "leads", "rows"]
