"""Which ClOrdIDs ever reached the FIX store. The store is the truth.

A reset of the session must not make it forget.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from fixsession.filestore import FileStore
from paperfirm.disk import force

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CL_ORD_ID = re.compile(rb"\x0111=([^\x01]+)\x01")


class RememberingStore(FileStore):
    """A FileStore that archives the ClOrdIDs of its messages before a reset throws those away.

    The ids are picked out of the file's bytes when somebody first asks (0.05 s for 100,000 messages); from
    then on they are kept up as messages are saved. A half-written last message may count as known: the engine
    then asks the exchange, and no harm is done.
    """

    def __init__(self, path: Path) -> None:
        self._file = path
        self._archive = path.with_suffix(".ids")
        self._ids: set[str] | None = None
        super().__init__(path)

    def save_out(self, seq_num: int, raw: bytes, wall_ns: int) -> None:
        """Keep an outgoing message and its ClOrdID."""
        super().save_out(seq_num, raw, wall_ns)
        if self._ids is not None:
            self._ids |= _ids_in(raw)

    def sync(self) -> None:
        """Force what was written to the disk; raises SyncFailedError, after which this process must end."""
        force(super().sync, self._file, self._file.parent)

    def reset(self, wall_ns: int) -> None:
        """Archive the ids durably, then forget everything else."""
        if self.next_out > 1:
            self._keep(_ids_in(self._file.read_bytes()))
        super().reset(wall_ns)

    def compact(self, *, keep_since_wall_ns: int = 0) -> None:
        """Archive the ids durably, then drop old messages."""
        self._keep(_ids_in(self._file.read_bytes()))
        super().compact(keep_since_wall_ns=keep_since_wall_ns)

    def known(self, cl_ord_ids: Iterable[str]) -> list[str]:
        """Return those of the ids that ever reached the store, in the order asked."""
        if self._ids is None:
            self._ids = _ids_in(self._file.read_bytes()) | self._archived()
        return [asked for asked in cl_ord_ids if asked in self._ids]

    def _archived(self) -> set[str]:
        return (
            set(self._archive.read_text(encoding="latin-1").split("\n")) if self._archive.exists() else set()
        )

    def _keep(self, ids: set[str]) -> None:
        descriptor = os.open(self._archive, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write("".join(f"{known}\n" for known in sorted(ids)).encode("latin-1"))
            stream.flush()
            os.fsync(stream.fileno())


def _ids_in(data: bytes) -> set[str]:
    return {found.decode("latin-1") for found in _CL_ORD_ID.findall(data)}
