"""The heap of this process: what a piece of work has left behind goes back to the kernel.

For processes that live for hours. The collector comes to old objects only when many new ones have grown old:
until then a few that hold one another keep megabytes, and pages between them cannot be given back.
"""

from __future__ import annotations

import ctypes
import gc

_libc = ctypes.CDLL(None)


def settle() -> None:
    """Take what stays for good, modules and classes, out of the collector's sight: `give_back` is quick."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Free what only its own parts still hold; hand free pages back (`malloc_trim` where there is one)."""
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
