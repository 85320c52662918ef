"""The engine's memory on disk: newest valid checkpoint, journal after it, checkpoints by a forked child."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from paperfirm.alerts import Alerts
from paperfirm.disk import SUSPECT
from paperfirm.engine import checkpoint, journal
from paperfirm.engine.errors import EngineError
from paperfirm.engine.mark import Mark
from paperfirm.engine.process import die_with_parent
from paperfirm.engine.state import State, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paperfirm.config import EngineSettings
    from paperfirm.eventlog import Clock

    Emit = Callable[..., int]

UNKNOWN_STATUS = 255
RETRY_S = 5.0
"""A checkpoint that could not be written is tried again so soon."""


class Missing(msgspec.Struct, frozen=True):
    """Records that were durable here once and are not there any more."""

    first: int
    last: int


class Loaded(msgspec.Struct):
    """What start-up found: `replayed` journal records on a checkpoint at `checkpoint_seq`.

    `damage` if something was, `missing` if the journal ends before what was durable.
    """

    checkpoint_seq: int = 0
    replayed: int = 0
    damage: list[str] = []
    missing: Missing | None = None


class Store:
    """Loads, journals, checkpoints and replaces the state below `folder`."""

    def __init__(
        self,
        folder: Path,
        settings: EngineSettings,
        *,
        clock: Clock,
        emit: Emit,
        alerts: Alerts | None = None,
    ) -> None:
        self.folder = folder
        self.journal_folder = folder / "journal"
        self.checkpoint_folder = folder / "checkpoint"
        self.state = State()
        self.loaded = Loaded()
        self.checkpoint_seq = 0
        self.checkpoints = 0
        self.checkpoint_failed = False
        """Whether the last attempt failed."""
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self._alerts = alerts or Alerts(emit)
        self._mark: Mark | None = None
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
        for path in checkpoint.incomplete(self.checkpoint_folder):
            self._emit("checkpoint_incomplete", file=str(path), bytes=path.stat().st_size)
            path.unlink()
        self._load_checkpoint()
        crc, ends_at = 0, 0
        try:
            crc = self._replay()
            cut, ends_at = journal.cut_torn_tail(self.journal_folder)
        except EngineError as error:
            self._set_aside(error)
        else:
            self._emit("journal_replayed", records=self.loaded.replayed, seq=self.state.seq, torn_bytes=cut)
        if (self.journal_folder / SUSPECT).exists():
            self._write_anew()
        self._open(crc, fresh=ends_at != self.state.seq)
        self._compare_with_mark()
        return self.loaded

    def _load_checkpoint(self) -> None:
        found, refused = checkpoint.newest_valid(self.checkpoint_folder)
        for path, reason in refused.items():
            self._emit("checkpoint_rejected", file=str(path), reason=reason)
            self._alerts.sound("checkpoint_rejected", reason, key=path.name, file=str(path), reason=reason)
        if found is None and refused:
            self.loaded.damage += refused.values()
            self._alerts.sound(
                "no_checkpoint",
                f"{self.checkpoint_folder}: none of {len(refused)} checkpoints is valid: rebuilt from "
                "journal, exchange and database",
                rejected=len(refused),
            )
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
        aside = self._begin_anew("damaged")
        self._emit("journal_damaged", reason=str(error), kept_until=self.state.seq, set_aside=str(aside))
        self._alerts.sound("journal_damaged", str(error), kept_until=self.state.seq, set_aside=str(aside))

    def _begin_anew(self, why: str) -> Path:
        """Put the segments aside and what they led to into a checkpoint; returns where they are."""
        if self.state.seq:
            self._write()
        aside = self.folder / f"{why}-{self._clock[1]()}"
        aside.mkdir()
        for segment in journal.segments(self.journal_folder):
            segment.rename(aside / segment.name)
        return aside

    def _write_anew(self) -> None:
        """After a failed sync: what the kernel gives us to read may not be on the disk.

        What was read goes into a new file, and that is synced.
        """
        aside = self._begin_anew("suspect")
        (self.journal_folder / SUSPECT).unlink()
        self._emit("journal_rewritten", seq=self.state.seq, set_aside=str(aside))

    def _compare_with_mark(self) -> None:
        """Name what the journal has lost; the mark waits until that is found again."""
        self._mark = Mark(self.folder / "durable")
        durable = self._mark.get()
        if durable <= self.state.seq:
            self._keep_mark()
            return
        lost = self.loaded.missing = Missing(self.state.seq + 1, durable)
        text = (
            f"{self.journal_folder}: ends at record {self.state.seq}, {durable} was durable: "
            f"records {lost.first} to {lost.last} are missing; fetched from the other engine or the exchange"
        )
        self.loaded.damage.append(text)
        count = lost.last - lost.first + 1
        detail: dict[str, Any] = {"from": lost.first, "to": lost.last, "count": count}
        self._alerts.sound("journal_truncated", text, **detail)

    def _keep_mark(self) -> None:
        assert self._mark is not None
        self.journal.mark = self._mark
        self._mark.set(self.journal.synced)

    def found_again(self, source: Literal["peer", "exchange"]) -> None:
        """Note that what was missing has been fetched; nothing if nothing was."""
        lost, self.loaded.missing = self.loaded.missing, None
        if lost is not None:
            self._emit("events_recovered", source=source, **{"from": lost.first, "to": lost.last})
            self._keep_mark()
        self._alerts.clear_all("journal_truncated", "journal_damaged")

    def _open(self, crc: int, *, fresh: bool = False) -> None:
        self._open_journal = journal.Journal(
            self.journal_folder,
            last_seq=self.state.seq,
            last_crc=crc,
            segment_bytes=self._settings.segment_bytes,
            fresh=fresh,
        )
        if self._mark is not None and self.loaded.missing is None:
            self._keep_mark()

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

        Nothing if one is at it. `checkpoint_started` is told before the child exists.

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
        status = UNKNOWN_STATUS
        try:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            die_with_parent(parent)
            gc.disable()
            self._write()
            status = 0
        except OSError as error:
            status = error.errno or UNKNOWN_STATUS
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
        self.checkpoint_failed = status != 0
        if status != 0:
            reason = _why(status)
            self._emit("checkpoint_failed", seq=seq, reason=reason)
            text = f"{self.checkpoint_folder}: checkpoint at {seq} not written: {reason}; trading goes on"
            self._alerts.sound("checkpoint_failed", text, seq=seq, reason=reason)
            return
        self._alerts.clear_all("checkpoint_failed", "checkpoint_rejected", "no_checkpoint")
        self.checkpoint_seq = seq
        self.checkpoints += 1
        checkpoint.prune(self.checkpoint_folder, keep=self._settings.checkpoints_kept)
        removed = self.journal.prune(keep_after=checkpoint.oldest_seq(self.checkpoint_folder))
        newest = max(self.checkpoint_folder.glob("*.ckpt"))
        self._emit("checkpoint_written", seq=seq, file=str(newest), segments_removed=removed)

    def due(self, *, last_s: float, now_s: float) -> bool:
        """Whether it is time for a checkpoint; never without news."""
        news = self.state.seq - self.checkpoint_seq
        settings = self._settings
        if self.checkpoint_failed:
            return now_s - last_s >= min(settings.checkpoint_s, RETRY_S)
        return news >= settings.checkpoint_events or (news > 0 and now_s - last_s >= settings.checkpoint_s)

    def close(self) -> None:
        """Sync and close the journal; a checkpoint being written is given up."""
        self.drop_child()
        self.journal.close()


def _why(status: int) -> str:
    """Say what a wait status of the checkpoint's child means: its exit status is the number of an error."""
    if os.WIFSIGNALED(status):
        return f"ended by signal {os.WTERMSIG(status)}"
    number = os.waitstatus_to_exitcode(status)
    return os.strerror(number) if number != UNKNOWN_STATUS else "failed; see the log"
