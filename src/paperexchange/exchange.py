"""Ties venue, ledger, sessions and misbehaviour together; every change of the exchange passes `record`."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fixsession.clock import Now
from fixsession.codec import decode, split_header
from fixsession.message import Message
from fixsession.session import Session
from paperexchange import facts as f
from paperexchange.config import AccountConfig, Config
from paperexchange.errors import ExchangeError
from paperexchange.events import Hub
from paperexchange.gateway.dropcopy import DropCopy
from paperexchange.gateway.host import Application, SessionHost, Surroundings
from paperexchange.gateway.orderentry import OrderEntry
from paperexchange.gateway.reports import FILL_KINDS, report_for
from paperexchange.gateway.store import LedgerStore
from paperexchange.ledger.writer import Ledger, Written
from paperexchange.marketdata import Deed, Feed
from paperexchange.misbehave import Engine, Misbehaviour
from paperexchange.model import CancelOrder, NewOrder, Order, Phase, ReplaceOrder
from paperexchange.recovery import REPUBLISH, Presence, Recovered
from paperexchange.state import State
from paperexchange.venue import Venue

if TYPE_CHECKING:
    from paperexchange.gateway.acceptor import Acceptor

_TIME_TO_ANSWER_MS = 100  # for the HTTP answer to whoever asked for the exchange's end
_FILLS_AN_ORDER = 10
_PRELOAD_AT_ONCE = 1000


class Route:
    """Where an account's reports go: the gateway in force, and the drop copy."""

    def __init__(
        self, settings: AccountConfig, primary: SessionHost, backup: SessionHost, copy: DropCopy
    ) -> None:
        """Start with the primary gateway in force."""
        self.settings = settings
        self.primary = primary
        self.backup = backup
        self.copy = copy
        self.promoted = False
        # Reports that nobody was there to take, and the session they were numbered on. Whichever gateway
        # comes into force publishes those of the other one again, with PossResend.
        self.missed: list[tuple[SessionHost, Message]] = []

    @property
    def active(self) -> SessionHost:
        """The order-entry session in force."""
        return self.backup if self.promoted else self.primary


class Exchange:
    """The running exchange, apart from its sockets."""

    def __init__(self, config: Config, state: State, ledger: Ledger, clock: Callable[[], Now]) -> None:
        """`state` is new or recovered from `ledger`."""
        self.config = config
        self.state = state
        self.ledger = ledger
        self.clock = clock
        self.echo = config.echo
        self.engine = Engine(self._on_ready)
        self.hub = Hub(ledger)
        self.venue = Venue(config.instruments(), state, self.record)
        self.feed = Feed(lambda: state.md_seq, self._feed_did, self.venue.best_against)
        self.orders_received = 0
        self.orders_per_s = 0.0
        self.entry = OrderEntry(self, on_logon=self._logged_on, on_gone=self._gone)
        self.routes: dict[str, Route] = {}
        self.hosts: dict[str, SessionHost] = {}
        self._outgoing: list[tuple[f.Fact, Message]] = []
        self._loop = asyncio.get_running_loop()
        self._around = Surroundings(ledger, self.record, self._record_later, self.engine, clock)
        self._silent = False
        self._schedule = config.schedule()
        self._timers: list[asyncio.TimerHandle] = []
        self._scripts_armed = 0
        self._conn_no = 0
        self.acceptors: dict[str, Acceptor] = {}
        """By gateway; the server opens them."""
        self.die: Callable[[Misbehaviour], None] = lambda _: None
        """How this process ends at once, and perhaps comes back; the server knows."""
        ledger.on_durable = self._on_durable
        for account, settings in config.accounts.items():
            self._open_account(account, settings)

    def next_conn(self) -> int:
        """Give the number of the next TCP connection; it grows over restarts too."""
        self._conn_no = max(self._conn_no, self.state.conn_no) + 1
        return self._conn_no

    def resume(self, recovered: Recovered) -> None:
        """Finish what the crash interrupted: sessions, books, and reports nobody numbered."""
        now = self.clock()
        for name, entries in recovered.session_facts.items():
            if name in self.hosts:
                self.hosts[name].restore(entries)
        self._resume_presence(recovered.presence, now)
        for fact in recovered.unreported:
            report = report_for(fact, self.state) if fact.account in self.routes else None
            if report is not None:
                self._outgoing.append((fact, report))
        self.venue.resume(now)
        self.publish(now)
        for fact in self.state.scripts.values():
            if self.venue.scripts.pending(fact.order_id) and fact.when != "on_cancel":
                self._loop.call_later(fact.interval_ms / 1000, self._run_script, fact.order_id)

    def _resume_presence(self, presence: Presence, now: Now) -> None:
        """Take up who was there and is not any more, and what nobody was there to take."""
        for route in self.routes.values():
            route.promoted = self.state.promoted
            for host in (route.primary, route.backup):
                missed = [_as_sent(fact) for fact in presence.missed.get(host.name, ())]
                route.missed += [(host, message) for message in missed]
                host.last_conn = presence.conns.get(host.name, 0)
                if host.last_conn:
                    self._gone(host, "the exchange was killed", now)
        for name, number in presence.unsent_from.items():
            if name in self.hosts:
                self.hosts[name].store.unsent_from = number

    # Sessions -------------------------------------------------------------------------------------------

    def _open_account(self, account: str, settings: AccountConfig) -> None:
        comp_id, copy_id = self.config.account_ids(account)
        primary = self._host(comp_id, "primary", account, comp_id, self.entry)
        backup = self._host(f"{comp_id}@backup", "backup", account, comp_id, self.entry)
        copy = DropCopy(settings, self.clock)
        copy.host = self._host(copy_id, "drop_copy", account, copy_id, copy)
        self.routes[account] = Route(settings, primary, backup, copy)

    def _host(
        self, name: str, gateway: str, account: str, comp_id: str, application: Application
    ) -> SessionHost:
        store = LedgerStore(
            name, gateway, account, record=self.record, clock=self.clock, archive=self.ledger.entries_from
        )
        session_config = self.config.session_of(account, comp_id)
        host = SessionHost(
            self._around,
            name=name,
            gateway=gateway,
            account=account,
            session=Session(session_config, store, schedule=self._schedule),
            store=store,
            application=application,
        )
        self.hosts[name] = host
        return host

    def host(self, name: str) -> SessionHost:
        """Give the session of that name; ExchangeError names the known ones."""
        found = self.hosts.get(name)
        if found is None:
            raise ExchangeError(
                f"unknown session {name!r}", where="session", hint="one of " + " ".join(self.hosts)
            )
        return found

    def answer_delay_s(self, account: str) -> float:
        """Say how much later the member interface takes a request about the account up now."""
        route = self.routes.get(account)
        return 0.0 if route is None else max(route.primary.answer_delay_s, route.backup.answer_delay_s)

    def accepts_orders(self, host: SessionHost) -> bool:
        """Only the gateway in force takes application messages."""
        return self.routes[host.account].active is host

    def promote(self, promoted: bool) -> None:  # noqa: FBT001 - the state itself
        """Put the backup gateway in force, or the primary again."""
        now = self.clock()
        self.record(f.GatewayPromoted(mono_ns=now.mono_ns, wall_ns=now.wall_ns, promoted=promoted))
        for route in self.routes.values():
            route.promoted = promoted

    def _logged_on(self, host: SessionHost, now: Now) -> None:
        route = self.routes[host.account]
        if host is not route.active:
            return
        missed, route.missed = route.missed, []
        for numbered_on, message in missed:
            if numbered_on is not host:  # its own are under their numbers already, to be resent
                host.send(Message([(35, message.msg_type), (97, "Y"), *message.pairs[1:]]), now)

    def switch_gateway(self, name: str, *, up: bool) -> None:
        """Take a gateway away, as when its machine dies, or put it back where it was."""
        acceptor = self.acceptors[name]
        if up:
            acceptor.up()
        else:
            acceptor.down("the gateway is gone")
        self.note("gateway", f"{name} up: {up}")

    def _gone(self, host: SessionHost, reason: str, now: Now) -> None:
        """Cancel on disconnect, after the grace time, unless the member is back."""
        del now
        settings = self.routes[host.account].settings
        cause = "logout" if "ogout" in reason else "disconnect"
        if settings.cancel_on_disconnect and cause in settings.cancel_causes:
            grace_s = settings.cancel_grace_ms / 1000
            self._loop.call_later(grace_s, self._cancel_on_disconnect, host, host.last_conn)

    def _cancel_on_disconnect(self, host: SessionHost, conn: int) -> None:
        """Cancel what the rule names: all, or what came over the connection that is gone."""
        which = conn if self.routes[host.account].settings.cancel_orders == "connection" else 0
        if not host.logged_on:
            self.mass_cancel(host.account, "", self.clock(), reason="cancel on disconnect", conn=which)

    # Entries --------------------------------------------------------------------------------------------

    def record(self, fact: f.Fact) -> None:
        """Write an entry under the next number, apply it, and prepare what the member is told of it."""
        self.ledger.append(fact)
        self._take_in(fact)

    def _record_later(self, fact: f.Fact) -> None:
        self.ledger.append_later(fact)
        self._take_in(fact)

    def _take_in(self, fact: f.Fact) -> None:
        self.state.apply(fact)
        if fact.account in self.routes and not self._silent:
            report = report_for(fact, self.state)
            if report is not None:
                self._outgoing.append((fact, report))
        if self.engine.armed:
            self.engine.observe(fact)

    def publish(self, now: Now) -> None:
        """Send the reports of everything recorded since the last time."""
        outgoing, self._outgoing = self._outgoing, []
        for fact, message in outgoing:
            route = self.routes[fact.account]
            host = route.active
            if not host.logged_on:
                route.missed.append((host, message))
                del route.missed[:-REPUBLISH]
            host.send(message, now)
            route.copy.send(message, now, is_fill=isinstance(fact, FILL_KINDS))

    def _on_durable(self, entries: list[Written]) -> None:
        self.hub.publish(entries)
        changes = [w.fact for w in entries if isinstance(w.fact, f.BookChange | f.BookTrade)]
        if changes:
            self.feed.publish(changes)

    def note(self, action: str, detail: str) -> None:
        """Record a control request that has no entry of its own."""
        now = self.clock()
        self.record(f.ControlDone(mono_ns=now.mono_ns, wall_ns=now.wall_ns, action=action, detail=detail))

    # Commands of members --------------------------------------------------------------------------------

    def submit(self, request: NewOrder, host: SessionHost, now: Now) -> bool:
        """Book or reject an order; False when the connection was cut before booking."""
        self.orders_received += 1
        self.record(
            f.OrderReceived(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=request.account,
                cl_ord_id=request.cl_ord_id,
                symbol=request.symbol,
                side=request.side,
                quantity=request.quantity,
                price=request.price,
                conn=request.conn,
                received_mono_ns=request.received_mono_ns,
                received_stamp=request.received_stamp,
            )
        )
        if self._cut_at(host, "before_booking", now):
            return False
        order = self.venue.submit(request, now)
        self._cut_at(host, "after_booking", now)
        if order is not None and order.scripted:
            self._start_script(order, now)
        self.publish(now)
        return True

    def _cut_at(self, host: SessionHost, place: str, now: Now) -> bool:
        armed = self.engine.take(host.name, place, now.mono_ns) if self.engine.armed else None
        if armed is None:
            return False
        self._fired(armed, now)
        host.cut(f"misbehaviour {armed.id}", refuse_ms=armed.number("refuse_ms", 0))
        return True

    def cancel(self, request: CancelOrder, now: Now) -> None:
        """Cancel an order."""
        self.venue.cancel(request, now)
        self.publish(now)

    def replace(self, request: ReplaceOrder, now: Now) -> None:
        """Replace an order."""
        self.venue.replace(request, now)
        self.publish(now)

    def mass_cancel(
        self, account: str, symbol: str, now: Now, *, reason: str = "mass cancel", conn: int = 0
    ) -> int:
        """Cancel an account's open orders; how many."""
        count = self.venue.cancel_all(account, now, reason=reason, symbol=symbol, conn=conn)
        self.publish(now)
        return count

    def enter(self, phase: Phase) -> None:
        """Move the session calendar."""
        now, day = self.clock(), self.state.day
        self.venue.enter(phase, now)
        self.publish(now)
        if self.config.end_of_day_reset and self.state.day > day:
            for host in self.hosts.values():
                host.begin_anew("end of day", now)

    def schedule(self, phases: list[tuple[Phase, float]]) -> None:
        """Enter phases by themselves, each so many milliseconds from now; a later schedule replaces it."""
        for timer in self._timers:
            timer.cancel()
        self._timers = [self._loop.call_later(ms / 1000, self.enter, phase) for phase, ms in phases]

    # Scripted fills -------------------------------------------------------------------------------------

    def next_script_id(self) -> str:
        """Give an id for a fill script, unlike any of earlier runs."""
        self._scripts_armed += 1
        return f"S{self.state.runs}-{self._scripts_armed}"

    def _start_script(self, order: Order, now: Now) -> None:
        script = self.venue.scripts.running(order.order_id)
        if script is None or script.when == "on_cancel":
            return
        if script.when == "before_ack":
            self.venue.fill_slice(order.order_id, now)
            self._outgoing.sort(key=lambda pair: not isinstance(pair[0], f.Fill))
        self._loop.call_later(script.interval_ms / 1000, self._run_script, order.order_id)

    def _run_script(self, order_id: str) -> None:
        script = self.venue.scripts.running(order_id)
        if script is None:
            return
        due = self._loop.time() + script.interval_ms / 1000
        now = self.clock()
        if self.venue.fill_slice(order_id, now):
            self._loop.call_at(due, self._run_script, order_id)
        self.publish(now)

    async def preload(self, account: str, executions: int) -> None:
        """Book `executions` real fills that no session is told of: history from before anybody was there."""
        now = self.clock()
        for done in range(0, executions, _FILLS_AN_ORDER):
            self._silent = True
            self.venue.preload(account, min(_FILLS_AN_ORDER, executions - done), now)
            self._silent = False
            if done % _PRELOAD_AT_ONCE == 0:
                await asyncio.sleep(0)
        await self.ledger.barrier()

    # Misbehaviour ---------------------------------------------------------------------------------------

    def _on_ready(self, armed: Misbehaviour) -> None:
        """Act at once when asked by a person, else right after the entry's command is finished."""
        if armed.on is None:
            self.act(armed)
        else:
            self._loop.call_soon(self.act, armed)

    def act(self, armed: Misbehaviour) -> None:
        """Carry out a misbehaviour of the place `now`."""
        if not armed.ready:
            return
        if armed.action in ("kill", "restart"):
            self._end_at_once(armed)
            return
        host = self.host(armed.session)
        mono_ns = _ACTS[armed.action](host, armed) or self.clock().mono_ns
        self.engine.fire(armed, mono_ns)
        self._fired(armed, self.clock())

    def _end_at_once(self, armed: Misbehaviour) -> None:
        """Die without a word: with what led to it on the disk, or (`sync` false) even without that."""
        wait_s = armed.number("after_ms", _TIME_TO_ANSWER_MS if armed.on is None else 0) / 1000
        self.engine.fire(armed, self.clock().mono_ns)
        self._fired(armed, self.clock())
        if armed.parameters.get("sync", True):
            self.ledger.after(partial(self._die_after, wait_s, armed))
        else:
            self.die(armed)

    def _die_after(self, wait_s: float, armed: Misbehaviour) -> None:
        self._loop.call_later(wait_s, self.die, armed)

    def _feed_did(self, deed: Deed) -> None:
        """Tell of it in the ledger; it happens while entries become durable, so the entry waits."""
        self._record_later(
            f.MisbehaviourFired(
                mono_ns=deed.fired_mono_ns[-1],
                wall_ns=self.clock().wall_ns,
                id=deed.id,
                action=f"market_data {deed.action}",
                session="",
            )
        )

    def _fired(self, armed: Misbehaviour, now: Now) -> None:
        self.record(
            f.MisbehaviourFired(
                mono_ns=armed.fired_mono_ns[-1],
                wall_ns=now.wall_ns,
                id=armed.id,
                action=armed.action,
                session=armed.session,
                on_seq=armed.on_seq,
            )
        )


def _as_sent(fact: f.ReportSent) -> Message:
    """Give a report as it was handed to its session, from its bytes."""
    message = decode(fact.data)
    _, body = split_header(message.pairs)
    return Message([(35, message.msg_type), *body])


def _disconnect(host: SessionHost, armed: Misbehaviour) -> int:
    conn = host.conn
    cut_ns = host.cut(f"misbehaviour {armed.id}", refuse_ms=armed.number("refuse_ms", 0))
    if conn is not None:
        armed.took_ns = conn.closed_mono_ns - conn.closing_mono_ns
    return cut_ns


def _refuse_logon(host: SessionHost, armed: Misbehaviour) -> int:
    host.refuse_for(armed.number("ms", 1000))
    return 0


def _release(host: SessionHost, _: Misbehaviour) -> int:
    host.release()
    return 0


def _half_open(host: SessionHost, armed: Misbehaviour) -> int:
    host.half_open(armed.number("ms", 30_000))
    return 0


def _slow_read(host: SessionHost, armed: Misbehaviour) -> int:
    host.slow_read(armed.number("bytes_per_s", 1000), armed.number("ms", 1000))
    return 0


def _slow_answers(host: SessionHost, armed: Misbehaviour) -> int:
    host.slow_answers(armed.number("delay_ms", 500), armed.number("ms", 30_000))
    return 0


def _lose_messages(host: SessionHost, armed: Misbehaviour) -> int:
    refuse_ms = armed.number("refuse_ms", 0)
    return host.lose_messages(int(armed.number("n", 1000)), int(armed.number("ahead", 4000)), refuse_ms)


def _freeze(host: SessionHost, armed: Misbehaviour) -> int:
    host.freeze(armed.number("ms", 1000))
    return 0


_ACTS: dict[str, Callable[[SessionHost, Misbehaviour], int]] = {
    "disconnect": _disconnect,
    "refuse_logon": _refuse_logon,
    "release": _release,
    "half_open": _half_open,
    "slow_read": _slow_read,
    "slow_answers": _slow_answers,
    "lose_messages": _lose_messages,
    "freeze": _freeze,
}
