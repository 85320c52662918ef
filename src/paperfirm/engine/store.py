"""The engine's memory on disk: newest valid checkpoint, journal after it, checkpoints by a forked child."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from typing import TYPE_CHECKING

import msgspec

from paperfirm.engine import checkpoint, journal
from paperfirm.engine.errors import EngineError
from paperfirm.engine.process import die_with_parent
from paperfirm.engine.state import State, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paperfirm.config import EngineSettings
    from paperfirm.eventlog import Clock

    Emit = Callable[..., int]


class Loaded(msgspec.Struct):
    """What start-up found: `replayed` journal records on a checkpoint at `checkpoint_seq`.

    `damage` if something was.
    """

    checkpoint_seq: int = 0
    replayed: int = 0
    damage: list[str] = []


class Store:
    """Loads, journals, checkpoints and replaces the state below `folder`."""

    def __init__(self, folder: Path, settings: EngineSettings, *, clock: Clock, emit: Emit) -> None:
        self.folder = folder
        self.journal_folder = folder / "journal"
        self.checkpoint_folder = folder / "checkpoint"
        self.state = State()
        self.loaded = Loaded()
        self.checkpoint_seq = 0
        self.checkpoints = 0
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._child: tuple[int, int] | None = None
        self._open_journal: journal.Journal | None = None

    @property
    def journal(self) -> journal.Journal:
        """The writer; `load` or `reset` must have run."""
        assert self._open_journal is not None
        return self._open_journal

    # --- start-up ---

    def load(self) -> Loaded:
        """Rebuild the state: newest valid checkpoint, then the journal.

        Damage leads to the sound part, and is said.
        """
        self.journal_folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        self._load_checkpoint()
        crc = 0
        try:
            crc = self._replay()
            cut = journal.cut_torn_tail(self.journal_folder)
        except EngineError as error:
            self._set_aside(error)
        else:
            self._emit("journal_replayed", records=self.loaded.replayed, seq=self.state.seq, torn_bytes=cut)
        self._open(crc)
        return self.loaded

    def _load_checkpoint(self) -> None:
        found, refused = checkpoint.newest_valid(self.checkpoint_folder)
        for reason in refused:
            self._emit("checkpoint_refused", reason=reason)
        self.loaded.damage += refused if found is None else []
        if found is None:
            return
        self.state = load(found.payload)
        self.loaded.checkpoint_seq = self.checkpoint_seq = found.seq
        self._emit("checkpoint_loaded", path=found.path, seq=found.seq)

    def _replay(self) -> int:
        crc = 0
        apply = self.state.apply
        for record, raw in journal.read(self.journal_folder, after=self.state.seq):
            apply(record)
            self.loaded.replayed += 1
            crc = raw.crc
        return crc

    def _set_aside(self, error: EngineError) -> None:
        """Keep damaged segments for the post-mortem and go on from the sound part.

        Which becomes a checkpoint.
        """
        self.loaded.damage.append(str(error))
        aside = self.folder / f"damaged-{self._clock[1]()}"
        aside.mkdir()
        for segment in journal.segments(self.journal_folder):
            segment.rename(aside / segment.name)
        if self.state.seq:
            checkpoint.write(
                self.checkpoint_folder, self.state.dump(), seq=self.state.seq, wall_ns=self._clock[1]()
            )
        self._emit("journal_damaged", reason=str(error), kept_until=self.state.seq, set_aside=str(aside))

    def _open(self, crc: int) -> None:
        self._open_journal = journal.Journal(
            self.journal_folder,
            last_seq=self.state.seq,
            last_crc=crc,
            segment_bytes=self._settings.segment_bytes,
        )

    def reset(self, payload: bytes, seq: int) -> None:
        """Replace everything by a peer's image (empty: by nothing)."""
        fresh = load(payload) if payload else State()
        if fresh.seq != seq:
            raise EngineError(f"the peer's image is of record {fresh.seq}, not {seq}; it will be asked again")
        self.journal.close()
        self.drop_child()
        for folder in (self.journal_folder, self.checkpoint_folder):
            shutil.rmtree(folder)
            folder.mkdir()
        if payload:
            checkpoint.write(self.checkpoint_folder, payload, seq=seq, wall_ns=self._clock[1]())
        self.state = fresh
        self.checkpoint_seq = seq
        self._open(0)

    # --- checkpoints ---

    def checkpoint_now(self) -> None:
        """Write a checkpoint in this process (clean stop).

        Raises EngineError when the journal would end before it: what is appended later would leave a hole.
        """
        self.drop_child()
        if self.journal.written != self.state.seq:
            raise EngineError(
                f"{self.folder}: journal ends at {self.journal.written}, not at {self.state.seq}: flush first"
            )
        self.journal.sync()
        self._emit("checkpoint_started", seq=self.state.seq)
        self._write()
        self._done(self.state.seq, 0)

    def checkpoint_in_child(self) -> None:
        """Fork a child that writes the state as of now; the engine goes on meanwhile.

        Nothing if one is at it.

        The journal must have been flushed, so that it never ends before a checkpoint.
        """
        if self._child is not None:
            return
        seq = self.state.seq
        self._emit("checkpoint_started", seq=seq)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._child_main(parent)
        pidfd = os.pidfd_open(pid)
        self._child = (pid, pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._child_ended, seq)

    def _child_main(self, parent: int) -> None:
        """In the child: no connection may outlive the engine here, and the child must not either."""
        status = 1
        try:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            die_with_parent(parent)
            gc.disable()
            self._write()
            status = 0
        finally:
            os._exit(status)

    def _write(self) -> None:
        checkpoint.write(
            self.checkpoint_folder, self.state.dump(), seq=self.state.seq, wall_ns=self._clock[1]()
        )

    def _child_ended(self, seq: int) -> None:
        assert self._child is not None
        pid, _ = self._child
        _, status = os.waitpid(pid, 0)
        self._forget_child()
        self._done(seq, status)

    def _forget_child(self) -> None:
        assert self._child is not None
        pidfd = self._child[1]
        self._child = None
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)

    def drop_child(self) -> None:
        """End a child that is still writing; its temporary file is removed with the next checkpoint."""
        if self._child is not None:
            pid = self._child[0]
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            self._forget_child()

    def _done(self, seq: int, status: int) -> None:
        if status != 0:
            self._emit("checkpoint_failed", seq=seq, status=status)
            return
        self.checkpoint_seq = seq
        self.checkpoints += 1
        checkpoint.prune(self.checkpoint_folder, keep=self._settings.checkpoints_kept)
        removed = self.journal.prune(keep_after=checkpoint.oldest_seq(self.checkpoint_folder))
        self._emit("checkpoint_written", seq=seq, segments_removed=removed)

    def due(self, *, last_s: float, now_s: float) -> bool:
        """Whether it is time for a checkpoint; never without news."""
        news = self.state.seq - self.checkpoint_seq
        settings = self._settings
        return news >= settings.checkpoint_events or (news > 0 and now_s - last_s >= settings.checkpoint_s)

    def close(self) -> None:
        """Sync and close the journal; a checkpoint being written is given up."""
        self.drop_child()
        self.journal.close()
