"""Faults as data: what was done, how it is undone, and the proof that it happened."""

from __future__ import annotations

from typing import Any

import msgspec


class ProcessRef(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for another.

    The pid and its start time in clock ticks (`/proc/PID/stat`, field 22).
    """

    pid: int
    start_ticks: int


class RemoteRef(msgspec.Struct, frozen=True):
    """A process of another host (a name under the manifest's [hosts]).

    A type of its own: its pid means nothing here, and nothing that acts on processes of this host takes one.
    """

    host: str
    pid: int
    start_ticks: int


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    """How to take one fault back.

    Written and synced before the fault exists; applying it twice does no harm.

    `action` names one of the guardian's few verbs (`kill`, `continue`, `http`, `unlink`, `rmtree`);
    `arguments` are its values. The guardian carries it out by itself at `expires_mono_ns`, without that after
    the longest life that a fault may have, and not before the trial is over with `at_the_end`.
    """

    id: str
    action: str
    arguments: dict[str, Any]
    expires_mono_ns: int | None = None
    at_the_end: bool = False


class LaunchChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault needs changed before the target's processes start.

    `environment` is added to that of every process; `prefix` is a command put in front of theirs.
    """

    environment: dict[str, str] = {}
    prefix: tuple[str, ...] = ()


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that was injected: `t0_mono_ns` is the instant it took effect, known to `uncertainty_ns`.

    `processes` are those of this host that were hit, `remote` those of other hosts, by component.
    """

    fault: str
    mechanism: str
    t0_mono_ns: int
    t0_source: str
    uncertainty_ns: int = 0
    processes: dict[str, ProcessRef] = {}
    remote: dict[str, RemoteRef] = {}
    undo: tuple[Undo, ...] = ()
    data: dict[str, Any] = {}

    @property
    def hit(self) -> tuple[str, ...]:
        """The components whose processes were hit, wherever they run."""
        return (*self.processes, *self.remote)


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """Independent proof.

    `bit` None means that nobody could tell: the trial is then UNKNOWN (`fault-did-not-bite`).
    """

    bit: bool | None
    evidence: dict[str, Any]
