"""What the preparation of a server hands to whoever starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from paperfirm.servers.identity import Identity


class ServerError(Exception):
    """A server cannot be prepared; the text says what, where and what to do."""


class ServerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One server, ready to be started (and started again) by a supervisor.

    `death_signal` is what the kernel sends the server when its starter dies; `stop_signal` ends it cleanly;
    `ready_file` (PostgreSQL) holds the server's own word that it takes connections;
    `template` is the cluster that its data are copied from.
    """

    name: str
    argv: list[str]
    port: int
    url: str
    log: Path
    identity: Identity
    stop_signal: signal.Signals
    death_signal: signal.Signals
    ready_file: Path | None = None
    template: Path | None = None
