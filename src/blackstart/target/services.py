"""Service streams: the events that show from outside that the target serves.

Watched without a break or with the break told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blackstart.errors import TargetError
from blackstart.model.match import matches, reach
from blackstart.model.record import OracleSeen, ServiceBatch, ServiceWatched
from blackstart.target import canonical, probes, sql
from blackstart.target.exchange_oracle import ExchangeOracle, received
from blackstart.target.tail import follow
from blackstart.target.workload_ledger import Pairing, Write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blackstart.contracts import Clock, Probe, Sample, Sink
    from blackstart.model.manifest import Match, Service
    from blackstart.target.workload import WorkloadProcess

Event = tuple[int, str, int]
"""Moment, key, and how much earlier it may have been."""

AGAIN_S = 0.02
_PREFETCH = 2000
SESSION_EVENTS = (
    "logon",
    "logout",
    "session_connected",
    "session_disconnected",
    "phase",
    "misbehaviour",
)


class Watched:
    """Keeps the promise of `ServiceWatched`: from when to when somebody really looked."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name, self._sink = name, sink
        self._since: int | None = None
        self._until = 0

    def seen(self, mono_ns: int, events: list[Event]) -> None:
        """Record events; up to `mono_ns` nothing else happened."""
        if self._since is None:
            self._since = mono_ns
        self._until = max(self._until, mono_ns)
        if events:
            self._sink(ServiceBatch(service=self.name, events=events))

    def end(self, error: str | None = None) -> None:
        """Record what was watched so far.

        What follows begins where this ended only if nothing can have been missed.
        """
        if self._since is not None:
            watched = ServiceWatched(
                service=self.name, since_mono_ns=self._since, until_mono_ns=self._until, error=error
            )
            self._sink(watched)
        self._since = None

    def resume(self) -> None:
        """Go on where the last stretch ended: the source hands over everything since then."""
        self._since = self._until or None


async def from_oracle(name: str, service: Service, oracle: ExchangeOracle, *, sink: Sink) -> None:
    """Follow the exchange's events of one kind. After a break its sequence numbers bring what was missed."""
    test, watched = matches(service.where), Watched(name, sink)
    since: int | str = "now"
    try:
        while True:
            try:
                async for batch in oracle.events([service.event], since):
                    chosen = [event for event in batch if event["kind"] == service.event and test(event)]
                    events = [_oracle_event(event, service.key) for event in chosen]
                    watched.seen(batch[-1]["mono_ns"], events)
                    since = batch[-1]["seq"]
            except TargetError as error:
                watched.end(error.what)
            await asyncio.sleep(AGAIN_S)
            watched.resume()
    finally:
        watched.end()


def _oracle_event(event: Mapping[str, Any], key: str) -> Event:
    moment, late = received(event)
    return moment, canonical.text(event.get(key)), late


async def oracle_events(oracle: ExchangeOracle, interest: Sequence[Match], *, sink: Sink) -> None:
    """Record the sessions' events and those that somebody waits for, as OracleSeen."""
    tests = [(match.event, matches(match.where)) for match in interest]
    kinds = {*SESSION_EVENTS, *(match.event for match in interest)}
    since: int | str = "now"
    while True:
        try:
            async for batch in oracle.events(kinds, since):
                for event in batch:
                    kind = event["kind"]
                    if kind in SESSION_EVENTS or any(kind == want and test(event) for want, test in tests):
                        sink(OracleSeen(event=kind, mono_ns=event["mono_ns"], fields=event))
                since = batch[-1]["seq"]
        except TargetError:
            await asyncio.sleep(AGAIN_S)


async def from_workload(
    name: str, service: Service, workload: WorkloadProcess, *, clock: Clock, sink: Sink
) -> None:
    """Follow the acknowledged writes.

    An event's uncertainty reaches back to its sending: the answer came in between.
    """
    watched, test = Watched(name, sink), matches(service.where)
    # Begun before the load: everything. Begun beside it: what is sent from now on.
    joined = workload.ledger.exists()
    pairing = Pairing(joined=joined)
    beat = asyncio.create_task(_beat(watched, workload, clock))
    try:
        async for batch in follow(str(workload.ledger), from_start=not joined):
            writes = [write for _, line in batch if (write := pairing.take(line)) and write.outcome == "ok"]
            events = [_write_event(write, service.key) for write in writes if test(write.record)]
            watched.seen(clock.now().mono_ns, events)
    finally:
        beat.cancel()
        watched.end()


async def _beat(watched: Watched, workload: WorkloadProcess, clock: Clock) -> None:
    """While the workload runs, its silence is the target's; when it is dead, nobody looks.

    When it was told to end there is nothing more to be seen, and nothing wrong.
    """
    while True:
        await asyncio.sleep(0.05)
        if workload.running:
            watched.seen(clock.now().mono_ns, [])
        elif not workload.stopping:
            watched.end("the workload does not run")


def _write_event(write: Write, key: str) -> Event:
    assert write.mono_ns is not None
    return write.mono_ns, canonical.text(reach(write.record, key)), write.mono_ns - write.sent_mono_ns


async def from_probe(name: str, probe: Probe, *, clock: Clock, sink: Sink) -> None:
    """Take each yes of a probe as an event of the service."""
    watched = Watched(name, sink)
    count = 0

    def listen(sample: Sample, interval: int) -> None:
        nonlocal count
        count += 1
        watched.seen(sample.mono_ns, [(sample.mono_ns, str(count), interval)] if sample.ok else [])

    try:
        await probes.run(probe, clock=clock, sink=sink, listener=listen)
    finally:
        watched.end()


async def from_sql(name: str, service: Service, dsn: str, *, clock: Clock, sink: Sink) -> None:
    """Ask for new rows again and again.

    The first answer, and the first one after a question that failed, only bring us up to date: some of their
    rows may have been there before, so they are no events. The next rows' uncertainty reaches back over them,
    to the last question that failed.
    """
    watched = Watched(name, sink)
    poll = SqlPoll(service.query or "", dsn)
    asked = clock.now().mono_ns
    behind, skipped = True, False
    try:
        while True:
            began = clock.now().mono_ns
            rows = await poll.ask(newest=behind)
            if rows is None:
                asked, behind = began, True
            else:
                now = clock.now().mono_ns
                keys = [] if behind else [canonical.text(row[1]) for row in rows]
                watched.seen(now, [(now, key, now - asked) for key in keys])
                skipped = bool(rows) if behind else skipped and not keys
                asked = asked if skipped else began
                behind = False
            await clock.sleep_until(began + round(service.period_ms * 1e6))
    finally:
        watched.end()
        await poll.close()


class SqlPoll:
    """One question with a cursor: the first column of the newest row is handed back as `$1`."""

    def __init__(self, query: str, dsn: str) -> None:
        self._query, self._dsn = query, dsn
        self._connection: Any = None
        self._statement: Any = None
        self._cursor: Any = None

    async def ask(self, *, newest: bool = False) -> list[Any] | None:
        """Return the rows after the cursor; None when the database does not answer now.

        With `newest` only the last of them: the first answer can be a table of any size.
        """
        try:
            if self._connection is None:
                self._connection = await sql.connect(self._dsn)
                self._statement = await self._connection.prepare(self._query)
            fetch = self._newest if newest else self._statement.fetch
            rows: list[Any] = await fetch(self._cursor)
        except Exception:  # noqa: BLE001 - whatever it was: no answer now, ask again
            await self.close()
            return None
        if rows:
            self._cursor = rows[-1][0]
        return rows

    async def _newest(self, cursor: Any) -> list[Any]:
        transaction = self._connection.transaction(readonly=True)
        await transaction.start()  # never rolled back: whatever fails, the connection is given up
        last = []
        async for row in self._statement.cursor(cursor, prefetch=_PREFETCH):
            last = [row]
        await transaction.commit()
        return last

    async def close(self) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
