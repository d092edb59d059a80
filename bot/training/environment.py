"""Variables that make training faster and have to stand before the process begins.

They are set by starting this program once more in its own place (same process, same terminal). The
one list below is all of it: whoever has set one of them has a reason, and keeps it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

VARIABLES: Mapping[str, str] = {}


def renew(environment: Mapping[str, str] | None = None) -> None:
    """Begin again with the variables, where they are missing and the system knows them."""
    found = dict(os.environ if environment is None else environment)
    wanted = {**VARIABLES, **found}
    if wanted != found and sys.platform == "linux":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
