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
    with temporary.open("wb") as file:
        file.write(head + payload + digest)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
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


def newest_valid(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest valid checkpoint, and what was wrong with each newer one."""
    refused: list[str] = []
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        try:
            return read(path), refused
        except EngineError as error:
            refused.append(str(error))
    return None, refused


def oldest_seq(folder: Path) -> int:
    """Sequence number of the oldest kept checkpoint.

    The journal after it must be kept. 0 without a valid one.
    """
    for path in sorted(folder.glob("*.ckpt")):
        with path.open("rb") as file:
            head = file.read(HEAD.size)
        if len(head) == HEAD.size and head.startswith(MAGIC):
            seq: int = HEAD.unpack(head)[1]
            return seq
    return 0


def prune(folder: Path, *, keep: int) -> int:
    """Remove all but the `keep` newest checkpoints and left-over temporary files; returns how many went."""
    old = sorted(folder.glob("*.ckpt"), reverse=True)[keep:] + sorted(folder.glob("*.tmp"))
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
