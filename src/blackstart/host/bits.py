"""Bits in files: choose, flip, compare; read what really lies on the disk."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

_BLOCK = 4096


def draw(length: int, count: int, rng: random.Random, *, bit: int | None = None) -> list[int]:
    """Draw `count` different bits of `length` bytes from `rng`; `bit` names the only one instead.

    Bit 0 is the lowest of the first byte. Fewer bits than `count` come only where there are no more.
    """
    total = length * 8
    return [bit % total] if bit is not None else rng.sample(range(total), min(count, total))


def flipped(data: bytes, chosen: Iterable[int]) -> bytes:
    """Return `data` with the bits turned that were drawn."""
    changed = bytearray(data)
    for one in chosen:
        changed[one // 8] ^= 1 << one % 8
    return bytes(changed)


def differing(one: bytes, other: bytes) -> int:
    """Count the bits in which two strings of the same length differ; a missing byte counts as eight."""
    common = min(len(one), len(other))
    bits = (int.from_bytes(one[:common], "big") ^ int.from_bytes(other[:common], "big")).bit_count()
    return bits + 8 * (max(len(one), len(other)) - common)


def read(path: str, offset: int, length: int) -> bytes:
    """Read bytes of a file through the page cache; what another process has mapped is seen."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _all(handle, offset, length)
    finally:
        os.close(handle)


def read_disk(path: str, offset: int, length: int) -> tuple[bytes, str]:
    """Read past the page cache what the disk holds; says how. Where that cannot be: through the cache."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return read(path, offset, length), "read"
    try:
        with contextlib.suppress(OSError):
            return _direct(handle, offset, length), "O_DIRECT"
    finally:
        os.close(handle)
    return read(path, offset, length), "read"


def write(path: str, offset: int, data: bytes, *, sync: bool = True) -> None:
    """Overwrite bytes of a file in place; with `sync` they are on the disk afterwards."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(handle, data[done:], offset + done)
        if sync:
            os.fdatasync(handle)
    finally:
        os.close(handle)


def save(path: str, data: bytes) -> None:
    """Make a file of these bytes that outlasts a crash of the host: it is on the disk, and so is its name."""
    with open(path, "xb") as file:  # noqa: PTH123 - pathlib is slow to import
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def cut(path: str, size: int) -> None:
    """Make a file end at `size`, on the disk too."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(handle, size)
        os.fsync(handle)
    finally:
        os.close(handle)


def _all(handle: int, offset: int, length: int) -> bytes:
    parts, left = [], length
    while left and (part := os.pread(handle, left, offset + length - left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _direct(handle: int, offset: int, length: int) -> bytes:
    """O_DIRECT wants whole blocks and an aligned buffer: anonymous memory is."""
    first = offset // _BLOCK * _BLOCK
    want = -(-(offset + length - first) // _BLOCK) * _BLOCK
    with mmap.mmap(-1, max(want, _BLOCK)) as buffer:
        got = os.preadv(handle, [buffer], first)
        return buffer[offset - first : min(got, offset - first + length)]
