"""Where a target keeps data that faults can damage: files, logs, shared memory, by name in its manifest."""

from __future__ import annotations

from typing import Literal

import msgspec


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of data: exactly one of `files`, a glob, or `glue`, a function that returns the places.

    `pick` chooses among the files: the one that changed last, the one that changed last in each folder, or
    all of them. `records = "lines"` says that a file is a log of lines, so that a cut can be made within one.
    The glue's `async def FUNCTION(settings)` returns a list of `{"path", "offset", "length", "name"}`: what
    lies where, by the target's documented layout; for a log, one place a record.
    """

    files: str | None = None
    pick: Literal["newest", "newest-in-each-folder", "all"] = "newest"
    records: Literal["lines"] | None = None
    glue: str | None = None


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a file: `length` bytes at `offset`. `name` is what lies there (`ALFA.quantity`)."""

    path: str
    offset: int = 0
    length: int = 0
    name: str = ""
