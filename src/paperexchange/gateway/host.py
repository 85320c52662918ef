"""Owns one FIX session: its connection, its effects, and what goes wrong with it on purpose.

Nothing is written to a socket before the ledger entries that led to it are on stable storage: outgoing bytes
wait in a batch that the ledger releases.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec

from fixsession.clock import Now
from fixsession.effects import (
    Deliver,
    Disconnect,
    Effect,
    Gap,
    LoggedOn,
    LoggedOut,
    Rejected,
    Transmit,
    Warning,  # noqa: A004 - the field's own word
)
from fixsession.message import Message
from fixsession.session import Session
from fixsession.tags import SESSION_TYPES
from paperexchange import facts as f
from paperexchange.gateway.rewrite import corrupted, skewed, with_field
from paperexchange.gateway.store import LedgerStore
from paperexchange.gateway.wire import Arrival, Connection
from paperexchange.ledger.writer import Ledger
from paperexchange.misbehave import Engine, Misbehaviour

_SECOND_NS = 1_000_000_000
_MS_NS = 1_000_000
_REORDER_PATIENCE_MS = 1000.0


class Application(Protocol):
    """What stands behind a session."""

    def deliver(self, host: "SessionHost", effect: Deliver, arrival: Arrival, now: Now) -> bool:
        """Deal with an application message; False leaves it uncommitted (it will be asked for again)."""

    def logged_on(self, host: "SessionHost", now: Now) -> None:
        """Take note that the session is up."""

    def gone(self, host: "SessionHost", reason: str, now: Now) -> None:
        """Take note that the connection is closed."""


class Outgoing(msgspec.Struct):
    """Bytes that wait for their turn; `then_close` is the reason for closing behind them."""

    data: bytes
    seq_num: int
    outcome: Any = "written"
    then_close: str = ""


class Surroundings(msgspec.Struct):
    """What every session shares."""

    ledger: Ledger
    record: Callable[[f.Fact], None]
    record_later: Callable[[f.Fact], None]
    engine: Engine
    clock: Callable[[], Now]


class SessionHost:
    """One session of one account on one gateway."""

    def __init__(
        self,
        around: Surroundings,
        *,
        name: str,
        gateway: str,
        account: str,
        session: Session,
        store: LedgerStore,
        application: Application,
    ) -> None:
        """`name` is unique over all gateways; controls use it."""
        self.name = name
        self.gateway = gateway
        self.account = account
        self.session = session
        self.store = store
        self.conn: Connection | None = None
        self.last_conn = 0
        self.connected_mono_ns = 0
        self.refuse_until_ns = 0
        self.frozen = False
        self._answer_delay_s = 0.0
        self._slow_until_ns = 0
        self._begins_anew = False
        self._around = around
        self._application = application
        self._loop = asyncio.get_running_loop()
        self._batch: list[Outgoing] = []
        self._batch_group = -1
        self._held: list[Outgoing] | None = None
        self._hold_until_ns = 0
        self._swapped: Outgoing | None = None
        self._arrival = Arrival(0, "user")
        self._silent: list[Connection] = []
        self._carriers: dict[type, Callable[[Any, Now], bool]] = {
            Transmit: self._on_transmit,
            Deliver: self._on_deliver,
            LoggedOn: self._on_logged_on,
            LoggedOut: self._on_logged_out,
            Disconnect: self._on_disconnect,
            Warning: self._on_warning,
            Gap: self._on_gap,
            Rejected: self._on_rejected,
        }

    def restore(self, entries: list[f.Fact]) -> None:
        """Rebuild the session's store from its ledger entries; before the first connection."""
        for entry in entries:
            self.store.apply(entry)

    # Connection -----------------------------------------------------------------------------------------

    @property
    def logged_on(self) -> bool:
        """Whether messages reach the member now."""
        return self.session.logged_on

    def attach(self, conn: Connection, now: Now) -> None:
        """Talk to this connection from now on."""
        self.conn = conn
        self.last_conn = conn.number
        self.connected_mono_ns = now.mono_ns
        conn.on_data = self._on_data
        conn.on_closed = self._on_closed
        self._around.record(
            f.SessionConnected(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.name,
                gateway=self.gateway,
                conn=conn.number,
            )
        )
        self._batch_group = -1
        self.carry_out(self.session.connected(now), now)

    def _on_data(self, conn: Connection, data: bytes, arrival: Arrival) -> None:
        now = self._around.clock()
        self._around.record(
            f.BytesReceived(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                conn=conn.number,
                data=data,
                received_mono_ns=arrival.mono_ns,
                received_stamp=arrival.stamp,
            )
        )
        self.received(data, arrival, now)

    def received(self, data: bytes, arrival: Arrival, now: Now) -> None:
        """Bytes of this session, already in the ledger."""
        if self.conn is None:
            return
        self._arrival = arrival
        if self.carry_out(self.session.received(data, now), now):
            self.session.commit(now)

    def _on_closed(self, conn: Connection, reason: str) -> None:
        if conn is not self.conn:
            return
        self._forget(conn, reason, conn.closed_mono_ns)

    def _forget(self, conn: Connection, reason: str, mono_ns: int) -> None:
        now = self._around.clock()
        self.conn = None
        self._held = self._swapped = None
        self.frozen = False
        self.carry_out(self.session.disconnected(now), now)
        if self._begins_anew:
            self._begins_anew = False
            self.store.reset(now.wall_ns)
        self._around.record(
            f.SessionDisconnected(
                mono_ns=mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.name,
                gateway=self.gateway,
                conn=conn.number,
                reason=reason,
            )
        )
        self._application.gone(self, reason, now)

    def cut(self, reason: str, *, refuse_ms: float = 0.0) -> int:
        """Close the connection now; the CLOCK_MONOTONIC at which it was closed (0: there was none)."""
        self.refuse_for(refuse_ms)
        return self.conn.close(reason) if self.conn is not None else 0

    def refuse_for(self, ms: float) -> None:
        """Drop connections of this session for `ms` from now."""
        if ms:
            self.refuse_until_ns = self._around.clock().mono_ns + int(ms * _MS_NS)

    # Effects of the session -----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Let time pass for heartbeats and time-outs."""
        if self.frozen or self.conn is None:
            return
        due_ns = self.session.deadline()
        if due_ns is not None and due_ns <= now.mono_ns:
            self.carry_out(self.session.tick(now), now)

    def send(self, message: Message, now: Now) -> None:
        """Send the message under the next number, or keep it for the member's next logon."""
        self.store.about = message
        effects = self.session.send(message, now)
        self.store.about = None
        self.carry_out(effects, now)

    def log_out(self, text: str, now: Now) -> None:
        """End the session in order."""
        if self.conn is not None:
            self.carry_out(self.session.logout(text, now), now)

    def begin_anew(self, text: str, now: Now) -> None:
        """End the session in order; its numbers are 1 as soon as the connection is closed."""
        if self.conn is None:
            self.store.reset(now.wall_ns)
        else:
            self._begins_anew = True
            self.log_out(text, now)

    def carry_out(self, effects: list[Effect], now: Now) -> bool:
        """Carry out in order; False when a cut ended it, so that what followed was not dealt with."""
        return all(self._carriers[type(effect)](effect, now) for effect in effects)

    def _on_deliver(self, effect: Deliver, now: Now) -> bool:
        if not self._application.deliver(self, effect, self._arrival, now):
            # Commit what came before, so that exactly this message will be asked for again.
            self.store.save_in(effect.seq_num, now.wall_ns)
            return False
        if self.conn is None:
            self.store.save_in(effect.seq_num + 1, now.wall_ns)
            return False
        return True

    def _on_logged_on(self, effect: LoggedOn, now: Now) -> bool:
        self._around.record(
            f.LoggedOn(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.name,
                gateway=self.gateway,
                conn=self.conn.number if self.conn else 0,
                reset=effect.reset,
            )
        )
        self._application.logged_on(self, now)
        return True

    def _on_logged_out(self, effect: LoggedOut, now: Now) -> bool:
        self._around.record(
            f.LoggedOut(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.name,
                gateway=self.gateway,
                conn=self.conn.number if self.conn else 0,
                text=effect.text,
            )
        )
        return True

    def _on_disconnect(self, effect: Disconnect, _: Now) -> bool:
        if self.conn is not None:
            self._put(Outgoing(b"", 0, then_close=effect.reason))
        return True

    def _on_warning(self, effect: Warning, now: Now) -> bool:
        return self._warn(effect.text, now)

    def _on_gap(self, effect: Gap, now: Now) -> bool:
        return self._warn(f"messages {effect.begin} to {effect.end} are missing and were asked for", now)

    def _on_rejected(self, effect: Rejected, now: Now) -> bool:
        return self._warn(f"the member rejected message {effect.ref_seq_num}: {effect.text}", now)

    def _warn(self, text: str, now: Now) -> bool:
        self._around.record(
            f.SessionWarning(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.name,
                gateway=self.gateway,
                text=text,
            )
        )
        return True

    # Outgoing bytes -------------------------------------------------------------------------------------

    def _on_transmit(self, effect: Transmit, now: Now) -> bool:
        outgoing = Outgoing(effect.data, effect.seq_num)
        armed = None
        if self._around.engine.armed and effect.msg_type not in SESSION_TYPES:
            armed = self._around.engine.take(self.name, "outbound", now.mono_ns)
        if armed is None:
            self._put(outgoing)
            return True
        self._fired(armed, now)
        _OUTBOUND[armed.action](self, armed, outgoing)
        return self.conn is not None

    def _fired(self, armed: Misbehaviour, now: Now) -> None:
        self._around.record(
            f.MisbehaviourFired(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                id=armed.id,
                action=armed.action,
                session=self.name,
                on_seq=armed.on_seq,
            )
        )

    def _put(self, outgoing: Outgoing) -> None:
        """Queue behind a hold, or into the batch that the ledger releases next."""
        if self._held is not None:
            self._held.append(outgoing)
            return
        if self._batch_group != self._around.ledger.group_no:
            self._batch = []
            self._batch_group = self._around.ledger.group_no
            self._around.ledger.after(partial(self._write, self._batch, self.conn))
        self._batch.append(outgoing)
        if self._swapped is not None:
            swapped, self._swapped = self._swapped, None
            self._batch.append(swapped)

    def _write(self, batch: list[Outgoing], conn: Connection | None) -> None:
        """Everything that led to these bytes is durable."""
        if self._held is not None and conn is self.conn:
            self._held[:0] = batch
            return
        if conn is None or not conn.open or conn is not self.conn:
            self._attempted(batch, conn, "not_connected")
            return
        self._attempted(batch, conn, "")
        conn.write(b"".join([outgoing.data for outgoing in batch]))
        for outgoing in batch:
            if outgoing.then_close:
                conn.close_when_sent(outgoing.then_close)

    def _attempted(self, batch: list[Outgoing], conn: Connection | None, outcome: str) -> None:
        """One entry for each run of messages with the same outcome."""
        run: list[Outgoing] = []
        for outgoing in [*batch, None]:
            if run and (outgoing is None or outgoing.outcome != run[0].outcome):
                self._attempt(run, conn, outcome or run[0].outcome)
                run = []
            if outgoing is not None and outgoing.seq_num:
                run.append(outgoing)

    def _attempt(self, run: list[Outgoing], conn: Connection | None, outcome: Any) -> None:
        now = self._around.clock()
        self._around.record_later(
            f.Delivery(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.name,
                gateway=self.gateway,
                conn=conn.number if conn else 0,
                first=run[0].seq_num,
                last=run[-1].seq_num,
                outcome=outcome,
            )
        )

    # Misbehaviour ---------------------------------------------------------------------------------------

    def hold(self, ms: float | None) -> None:
        """Keep back everything outgoing, for `ms` or until `release`. Order is kept."""
        if self._held is None:
            self._held = []
        if ms is not None:
            self._loop.call_later(ms / 1000, self.release)

    def release(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, None
        for outgoing in held or []:
            self._put(outgoing)

    def _delay(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        self.hold(armed.number("ms", 100))
        self._put(outgoing)

    def _hold(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        self.hold(armed.number("ms", 0) or None)
        self._put(outgoing)

    def _drop(self, _: Misbehaviour, outgoing: Outgoing) -> None:
        self._attempt([outgoing], self.conn, "dropped")

    def _duplicate(self, _: Misbehaviour, outgoing: Outgoing) -> None:
        outgoing.outcome = "duplicated"
        outgoing.data += outgoing.data
        self._put(outgoing)

    def _reorder(self, _: Misbehaviour, outgoing: Outgoing) -> None:
        """Let the next message overtake this one; without a next one it goes out after a second."""
        self._swapped = outgoing
        self._loop.call_later(_REORDER_PATIENCE_MS / 1000, self._unswap, outgoing)

    def _unswap(self, outgoing: Outgoing) -> None:
        if self._swapped is outgoing:
            self._swapped = None
            self._put(outgoing)

    def _corrupt(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        """One bit flips; with `tag` and `value` that field is changed and the checksum is right."""
        tag, value = armed.parameters.get("tag"), armed.parameters.get("value")
        fits = isinstance(tag, int | str) and str(tag).isdecimal() and value is not None
        outgoing.data = (
            with_field(outgoing.data, int(str(tag)), str(value)) if fits else corrupted(outgoing.data)
        )
        outgoing.outcome = "corrupted"
        self._put(outgoing)

    def _skew_sending(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        outgoing.data = skewed(outgoing.data, 52, armed.number("ms", 300_000))
        self._put(outgoing)

    def _skew_transact(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        outgoing.data = skewed(outgoing.data, 60, armed.number("ms", 300_000))
        self._put(outgoing)

    def _cut_before(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        self._attempt([outgoing], self.conn, "cut")
        self.cut(f"misbehaviour {armed.id}", refuse_ms=armed.number("refuse_ms", 0))

    def _cut_after(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        self.refuse_for(armed.number("refuse_ms", 0))
        outgoing.then_close = f"misbehaviour {armed.id}"
        self._put(outgoing)

    def _cut_within(self, armed: Misbehaviour, outgoing: Outgoing) -> None:
        self.refuse_for(armed.number("refuse_ms", 0))
        half = Outgoing(outgoing.data[: len(outgoing.data) // 2], outgoing.seq_num, "cut")
        half.then_close = f"misbehaviour {armed.id}"
        self._put(half)

    def freeze(self, ms: float) -> None:
        """Neither read nor send for `ms`, then go on as if nothing had been."""
        if self.conn is None:
            return
        conn = self.conn
        self.frozen = True
        conn.pause()
        self.hold(None)
        self._loop.call_later(ms / 1000, self._thaw, conn)

    def _thaw(self, conn: Connection) -> None:
        if self.conn is conn and self.frozen:
            self.frozen = False
            conn.start()
            self.release()

    def half_open(self, ms: float) -> None:
        """Forget the connection without closing it: the member sees a silent, living socket for `ms`."""
        if self.conn is None:
            return
        conn = self.conn
        conn.pause()
        self._silent.append(conn)
        self._forget(conn, "half_open", self._around.clock().mono_ns)
        self._loop.call_later(ms / 1000, conn.close, "half_open is over")

    def slow_read(self, bytes_per_s: float, ms: float) -> None:
        """Read at most that fast for `ms`."""
        if self.conn is not None:
            self.conn.throttle(max(bytes_per_s, 1.0))
            self._loop.call_later(ms / 1000, self.conn.throttle, 0.0)

    def slow_answers(self, delay_ms: float, ms: float) -> None:
        """Have the member interface take requests about the account up `delay_ms` later, for `ms`."""
        self._answer_delay_s = delay_ms / 1000
        self._slow_until_ns = self._around.clock().mono_ns + int(ms * _MS_NS)

    @property
    def answer_delay_s(self) -> float:
        """How much later the member interface takes a request up now."""
        return self._answer_delay_s if self._around.clock().mono_ns < self._slow_until_ns else 0.0

    def lose_messages(self, n: int, ahead: int, refuse_ms: float) -> int:
        """Cut, lose the last `n` messages and number on `ahead` further: a failover to an older copy.

        Asked for them, the session fills the gap without them. Returns as `cut`.
        """
        cut_ns = self.cut("failover to a copy that lacks the last messages", refuse_ms=refuse_ms)
        lost = min(n, self.store.next_out - 1)
        if lost:
            self.store.roll_back(lost)
        if lost + ahead:
            self.store.jump_ahead(lost + ahead)
        return cut_ns

    def behave(self) -> None:
        """Lift everything: holds, freezes, refusals, silent connections, slow answers."""
        self.refuse_until_ns = self._slow_until_ns = 0
        if self.frozen and self.conn is not None:
            self._thaw(self.conn)
        if self._swapped is not None:
            self._unswap(self._swapped)
        if self._held is not None:
            self.release()
        if self.conn is not None and self.conn.bytes_per_s:
            self.conn.throttle(0.0)
        for conn in self._silent:
            conn.close("half_open is over")
        self._silent.clear()


_OUTBOUND: dict[str, Callable[[SessionHost, Misbehaviour, Outgoing], None]] = {
    "delay": SessionHost._delay,  # noqa: SLF001 - a table of this class's own methods
    "hold": SessionHost._hold,  # noqa: SLF001
    "drop": SessionHost._drop,  # noqa: SLF001
    "duplicate": SessionHost._duplicate,  # noqa: SLF001
    "reorder": SessionHost._reorder,  # noqa: SLF001
    "corrupt": SessionHost._corrupt,  # noqa: SLF001
    "skew_sending_time": SessionHost._skew_sending,  # noqa: SLF001
    "skew_transact_time": SessionHost._skew_transact,  # noqa: SLF001
    "disconnect_before_send": SessionHost._cut_before,  # noqa: SLF001
    "disconnect_after_send": SessionHost._cut_after,  # noqa: SLF001
    "disconnect_mid_message": SessionHost._cut_within,  # noqa: SLF001
}
