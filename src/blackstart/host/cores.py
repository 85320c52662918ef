"""Core dumps: where the kernel will put one, whether a file is that of a given process, and keeping it."""

from __future__ import annotations

import hashlib
import re
import resource
import shutil
import struct
from pathlib import Path
from typing import Any, NamedTuple

_PATTERN = Path("/proc/sys/kernel/core_pattern")
_USES_PID = Path("/proc/sys/kernel/core_uses_pid")
_CORE = 4
_NOTE = 4
_PRSTATUS = 1
_PRPSINFO = 3
_PR_PID = {64: 24, 32: 12}
"""Offset of the pid in the note PRPSINFO (`elf_prpsinfo`)."""
_SI_SIGNO = {64: 0, 32: 0}
"""Offset of the signal in the note PRSTATUS (`elf_siginfo`)."""


class Place(NamedTuple):
    """Where a core dump will lie: files that match `name` in `folder`; or nowhere, and `reason` says why.

    `follows`: wherever the process is when it dies.
    """

    folder: Path | None
    name: str = ""
    reason: str = ""
    follows: bool = False


def place(pid: int) -> Place:
    """Tell where the kernel will put the core dump of a process that is alive now."""
    pattern = _PATTERN.read_text(encoding="utf-8").strip()
    if pattern.startswith("|"):
        reason = f"the kernel pipes core dumps to `{pattern[1:].split()[0]}`: ask it (coredumpctl)"
        return Place(None, reason=f"{reason}, or set kernel.core_pattern to a path")
    if not pattern:
        return Place(None, reason="kernel.core_pattern is empty: no core dumps are written")
    whole = Path(f"/proc/{pid}/cwd").resolve() / pattern
    if "%" not in pattern and _USES_PID.read_text(encoding="utf-8").strip() == "1":
        whole = whole.with_name(f"{whole.name}.{pid}")
    if "%" in str(whole.parent):
        return Place(None, reason=f"kernel.core_pattern names a folder by pattern: {pattern}")
    follows = not pattern.startswith("/")
    return Place(
        whole.parent, re.sub("%.", lambda found: _wildcard(found[0], pid), whole.name), follows=follows
    )


def _wildcard(specifier: str, pid: int) -> str:
    return {"%p": str(pid), "%P": "*", "%%": "%"}.get(specifier, "*")


def allow(pid: int) -> bool:
    """Raise the running process' limit on core dumps as far as we may; returns whether it may dump core."""
    before = resource.prlimit(pid, resource.RLIMIT_CORE)
    try:
        resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (PermissionError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (before[1], before[1]))
        return before[1] != 0
    return True


def collect(where: Place, pid: int, kept: Path) -> dict[str, Any]:
    """Move the core dump of a dead process to `kept` and describe it, or say why there is none."""
    if where.folder is None:
        return {"collected": False, "why": where.reason}
    for file in sorted(where.folder.glob(where.name)):
        if dumped_by(file) == pid:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, kept)
            with kept.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            size, number = kept.stat().st_size, signal_of(kept)
            return {
                "collected": True,
                "file": str(kept),
                "bytes": size,
                "sha256": digest,
                "signal": number,
            }
    why = "RLIMIT_CORE, no room, a folder that it may not write, or a handler of its own for SIGSEGV"
    return {"collected": False, "why": f"no core dump of pid {pid} in {where.folder}: {why}"}


def dumped_by(file: Path) -> int | None:
    """Return the pid of the process whose ELF core dump this is; None for any other file."""
    return _noted(file, _PRPSINFO, _PR_PID)


def signal_of(file: Path) -> int | None:
    """Return the signal that an ELF core dump says its process died of; None for any other file."""
    return _noted(file, _PRSTATUS, _SI_SIGNO)


def _noted(file: Path, kind: int, places: dict[int, int]) -> int | None:
    try:
        with file.open("rb") as stream:
            return _number(stream.read(1 << 20), kind, places)
    except (OSError, struct.error):
        return None


def _number(data: bytes, wanted: int, places: dict[int, int]) -> int | None:
    """Walk the notes to the first of that kind."""
    if data[:4] != b"\x7fELF" or data[4:6] not in {b"\x02\x01", b"\x01\x01"}:
        return None
    bits = 64 if data[4] == 2 else 32  # noqa: PLR2004 - ELFCLASS64
    kind, headers, size, count = _header(data, bits)
    if kind != _CORE:
        return None
    for k in range(min(count, (len(data) - headers) // size)):
        at = headers + k * size
        if struct.unpack_from("<I", data, at)[0] == _NOTE:
            offset, length = struct.unpack_from("<8xQ16xQ" if bits == 64 else "<4xI8xI", data, at)  # noqa: PLR2004
            return _from_notes(data[offset : offset + length], wanted, places[bits])
    return None


def _header(data: bytes, bits: int) -> tuple[int, int, int, int]:
    kind = struct.unpack_from("<H", data, 16)[0]
    headers = struct.unpack_from("<Q" if bits == 64 else "<I", data, 32 if bits == 64 else 28)[0]  # noqa: PLR2004
    size, count = struct.unpack_from("<HH", data, 54 if bits == 64 else 42)  # noqa: PLR2004
    return kind, headers, size, count


def _from_notes(notes: bytes, wanted: int, place: int) -> int | None:
    at = 0
    while at + 12 <= len(notes):
        name, length, kind = struct.unpack_from("<III", notes, at)
        content = at + 12 + (name + 3) // 4 * 4
        if kind == wanted:
            found: int = struct.unpack_from("<i", notes, content + place)[0]
            return found
        at = content + (length + 3) // 4 * 4
    return None
