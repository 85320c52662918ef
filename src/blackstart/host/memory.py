"""The memory of other processes: find a value, read it, change it."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


class Area(NamedTuple):
    """A stretch of a process's memory (`/proc/PID/maps`)."""

    begin: int
    end: int
    name: str


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)


def areas(pid: int) -> Iterator[Area]:
    """Yield what the process can write and nobody shares: heap, stacks, anonymous and private memory."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as lines:  # noqa: PTH123 - no path of the file system
        for line in lines:
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            begin, end = (int(text, 16) for text in span.split("-"))
            if rights.startswith("rw") and rights.endswith("p"):
                yield Area(begin, end, name[0].strip() if name else "")


def find(pid: int, value: bytes) -> list[int]:
    """Return every address at which the value lies. Raises OSError when the memory may not be read."""
    found: list[int] = []
    handle = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for area in list(areas(pid)):
            found += _find_in(handle, area, value)
    finally:
        os.close(handle)
    return found


def _find_in(handle: int, area: Area, value: bytes) -> Iterator[int]:
    """Look through an area piece by piece; a value may lie across the border of two."""
    kept, begin = b"", area.begin
    while begin < area.end:
        try:
            piece = os.pread(handle, min(_CHUNK, area.end - begin), begin)
        except OSError:  # guard pages, or unmapped meanwhile
            return
        if not piece:
            return
        held, start = kept + piece, begin - len(kept)
        place = held.find(value)
        while place >= 0:
            yield start + place
            place = held.find(value, place + 1)
        kept = held[max(0, len(held) - len(value) + 1) :]
        begin += len(piece)


def read(pid: int, address: int, length: int) -> bytes:
    """Read through `/proc/PID/mem`. Raises OSError."""
    handle = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(handle, length, address)
    finally:
        os.close(handle)


def write(pid: int, address: int, data: bytes) -> str:
    """Change it by `process_vm_writev`, or through `/proc/PID/mem`; says by which. Raises OSError."""
    buffer = ctypes.create_string_buffer(data, len(data))
    ours = _Vector(ctypes.addressof(buffer), len(data))
    theirs = _Vector(address, len(data))
    done = _libc.process_vm_writev(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    if done == len(data):
        return "process_vm_writev"
    handle = os.open(f"/proc/{pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(handle, data, address)
    finally:
        os.close(handle)
    return "/proc/PID/mem"
