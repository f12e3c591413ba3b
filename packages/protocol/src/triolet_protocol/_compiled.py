"""Finds the compiled functions, the distribution `triolet-speedups`; by the rules of the server's core."""

import importlib
from collections.abc import Mapping
from types import ModuleType

INTERFACE = 6
"""Raised with every change of what compiled functions take or return."""
COMPILED = "triolet_speedups"
PURE_VARIABLE = "TRIOLET_PURE"
"""Environment variable; anything but empty and 0 forces Python."""


def find(environ: Mapping[str, str]) -> ModuleType | None:
    """Return the compiled functions if they are installed, of this interface and not switched off."""
    if environ.get(PURE_VARIABLE, "") not in ("", "0"):
        return None
    try:
        compiled = importlib.import_module(COMPILED)
    except ImportError:
        return None
    return compiled if compiled.INTERFACE == INTERFACE else None
