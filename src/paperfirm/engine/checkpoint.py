"""Checkpoints: header, payload, SHA-256; temporary file, fsync, rename, fsync of the directory.

The newest valid one is used.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import TYPE_CHECKING

import msgspec

from paperfirm.engine.errors import EngineError
from paperfirm.engine.journal import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"PFCKPT01"
HEAD = struct.Struct(">8sQQQ")  # magic, sequence number, wall_ns, payload length
DIGEST_BYTES = 32


class Checkpoint(msgspec.Struct, frozen=True):
    """A valid checkpoint: the state after record `seq`."""

    path: str
    seq: int
    wall_ns: int
    payload: bytes


def write(folder: Path, payload: bytes, *, seq: int, wall_ns: int) -> Path:
    """Write a checkpoint so that it is either wholly there or not at all; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    head = HEAD.pack(MAGIC, seq, wall_ns, len(payload))
    digest = hashlib.sha256(head + payload).digest()
    path = folder / f"{_next_number(folder):08d}.ckpt"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(head + payload + digest)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it would keep the room that is missing
        raise
    sync_folder(folder)
    return path


def _next_number(folder: Path) -> int:
    return max((int(path.stem) for path in folder.glob("*.ckpt")), default=0) + 1


def read(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; raises EngineError that says what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}; an older checkpoint will serve") from error
    if len(data) < HEAD.size + DIGEST_BYTES:
        raise EngineError(f"{path}: {len(data)} bytes are too few for a checkpoint; an older one will serve")
    magic, seq, wall_ns, length = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise EngineError(f"{path}: does not begin like a checkpoint; an older one will serve")
    if len(data) != HEAD.size + length + DIGEST_BYTES:
        raise EngineError(f"{path}: {len(data)} bytes where {HEAD.size + length + DIGEST_BYTES} belong")
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        raise EngineError(f"{path}: SHA-256 does not match; an older one will serve")
    return Checkpoint(str(path), seq, wall_ns, data[HEAD.size : -DIGEST_BYTES])


def newest_valid(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest valid checkpoint, and what was wrong with each newer one."""
    refused: dict[Path, str] = {}
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        try:
            return read(path), refused
        except EngineError as error:
            refused[path] = str(error)
    return None, refused


def incomplete(folder: Path) -> list[Path]:
    """Return what was left of checkpoints that a crash kept from being finished."""
    return sorted(folder.glob("*.tmp"))


def oldest_seq(folder: Path) -> int:
    """Sequence number of the oldest kept checkpoint.

    The journal after it must be kept. 0 without a valid one, and when the numbers cannot be believed: a
    damaged header must not cost journal that an older checkpoint needs.
    """
    seqs = [seq for path in sorted(folder.glob("*.ckpt")) if (seq := _claimed_seq(path)) is not None]
    return seqs[0] if seqs and seqs == sorted(seqs) else 0


def _claimed_seq(path: Path) -> int | None:
    with path.open("rb") as file:
        head = file.read(HEAD.size)
    if len(head) < HEAD.size or not head.startswith(MAGIC):
        return None
    seq: int = HEAD.unpack(head)[1]
    return seq


def prune(folder: Path, *, keep: int) -> int:
    """Remove all but the `keep` newest checkpoints and left-over temporary files; returns how many went."""
    old = sorted(folder.glob("*.ckpt"), reverse=True)[keep:] + incomplete(folder)
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
