"""Build the exchange's state from its ledger alone, and mend what a crash left at the end of the file."""

import os
from collections import deque
from pathlib import Path

import msgspec

from paperexchange import facts as f
from paperexchange.errors import ExchangeError
from paperexchange.ledger.lines import Reader
from paperexchange.state import State

_SESSION_KINDS = (f.ReportSent, f.NextOutgoing, f.NextIncoming, f.SessionReset)
_INDEX_EVERY = 256
REPUBLISH = 1000
"""So many reports that nobody was there to take are kept for the gateway that comes into force."""


class Recovered(msgspec.Struct):
    """What the ledger told."""

    state: State
    index: list[tuple[int, int]]
    session_facts: dict[str, list[f.Fact]]
    unreported: list[f.Fact]
    presence: "Presence"
    cut_bytes: int


class Presence:
    """Who was there at the end (`conns`, by session), and what was numbered while nobody was."""

    def __init__(self) -> None:
        """Start with nobody there."""
        self.conns: dict[str, int] = {}
        self.unsent_from: dict[str, int] = {}
        self.missed: dict[str, deque[f.ReportSent]] = {}

    def take(self, fact: f.Fact) -> None:
        """Follow an entry."""
        if isinstance(fact, f.ReportSent):
            if fact.session not in self.conns:
                self.unsent_from.setdefault(fact.session, fact.seq_num)
                self.missed.setdefault(fact.session, deque(maxlen=REPUBLISH)).append(fact)
        elif isinstance(fact, f.LoggedOn):
            self.conns[fact.session] = fact.conn
            self._forget(fact.session)
        elif isinstance(fact, f.SessionDisconnected):
            self.conns.pop(fact.session, None)
        elif isinstance(fact, f.SessionReset):
            self._forget(fact.session)
        elif isinstance(fact, f.Started):
            self.conns.clear()

    def _forget(self, session: str) -> None:
        self.unsent_from.pop(session, None)
        self.missed.pop(session, None)


class _Replay:
    """Applies entries in order; holds back the first half of a trade until the second is there."""

    def __init__(self) -> None:
        self.state = State()
        self.index: list[tuple[int, int]] = []
        self.session_facts: dict[str, list[f.Fact]] = {}
        self.presence = Presence()
        self.half: tuple[f.Fill, int] | None = None
        self._reportable: dict[str, f.Fact] = {}

    def take(self, fact: f.Fact, offset: int) -> None:
        if fact.seq % _INDEX_EVERY == 1:
            self.index.append((fact.seq, offset))
        if isinstance(fact, f.Fill) and (self.half is None or self.half[0].match_id != fact.match_id):
            self.half = (fact, offset)
            return
        if self.half is not None:
            self._apply(self.half[0])
            self.half = None
        self._apply(fact)

    def _apply(self, fact: f.Fact) -> None:
        self.state.apply(fact)
        self.presence.take(fact)
        if isinstance(fact, _SESSION_KINDS):
            self.session_facts.setdefault(fact.session, []).append(fact)
        if isinstance(fact, f.ReportSent):
            self._reportable.pop(fact.exec_id, None)
            self._reportable.pop(f"9{fact.cl_ord_id}", None)
        elif isinstance(fact, f.CancelRejected):
            self._reportable[f"9{fact.cl_ord_id}"] = fact
        elif fact.account and (exec_id := getattr(fact, "exec_id", "")):
            self._reportable[exec_id] = fact

    def unreported(self) -> list[f.Fact]:
        """Entries of members that no message was numbered for: the crash came in between."""
        return [
            fact
            for fact in self._reportable.values()
            if self.state.account(fact.account).member and not _preloaded(self.state, fact)
        ]


def _preloaded(state: State, fact: f.Fact) -> bool:
    """History booked by `preload` was never to be reported; it came over no connection."""
    order = state.orders.get(getattr(fact, "order_id", ""))
    return order is not None and order.conn == 0


def recover(path: Path) -> Recovered:
    """Replay the ledger. A torn end is cut off; ExchangeError names the place of any other damage."""
    reader = Reader(path)
    replay = _Replay()
    decode = f.decoder.decode
    for line in reader:
        replay.take(decode(line.body), line.offset)
    if reader.damage is not None and not reader.damage.torn:
        raise ExchangeError(
            f"damaged at {reader.damage}",
            where=str(path),
            hint="restore the ledger; `paperexchange ledger verify` shows the place",
        )
    end = replay.half[1] if replay.half is not None else reader.end
    cut_bytes = path.stat().st_size - end
    if cut_bytes:
        os.truncate(path, end)
    replay.index = [entry for entry in replay.index if entry[1] < end]
    unreported = replay.unreported()
    return Recovered(replay.state, replay.index, replay.session_facts, unreported, replay.presence, cut_bytes)
