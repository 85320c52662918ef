"""The router between one bound engine and the exchange. Sockets stay outside.

Bytes and frames in, bytes and frames out.

Everything that arrives in one turn of the event loop is made durable by one flush: inbound messages are on
disk before the FIX session commits their numbers and before an engine sees them; outbound messages are in the
FIX store before they are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from fixsession.codec import decode
from fixsession.config import Role, SessionConfig
from fixsession.effects import (
    Deliver,
    Disconnect,
    Effect,
    Gap,
    LoggedOn,
    LoggedOut,
    Rejected,
    Transmit,
)
from fixsession.effects import Warning as Notice
from fixsession.errors import FixError
from fixsession.session import Session
from paperfirm.alerts import Alerts
from paperfirm.router import doubt, fix
from paperfirm.router.gateways import BACKUP, PRIMARY, Gateways
from paperfirm.wire import (
    Beat,
    Bind,
    BindDone,
    BindRefused,
    Cancel,
    Inbound,
    Known,
    KnownAnswer,
    Message,
    Send,
    SessionDown,
    SessionUp,
    StatusRequest,
    Unsent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixsession.clock import Now
    from fixsession.message import Message as FixMessage
    from paperfirm.frames import Link
    from paperfirm.quarantine import Action, Quarantine
    from paperfirm.router.fence import Fence
    from paperfirm.router.inbound import InboundLog
    from paperfirm.router.sent import RememberingStore
    from paperfirm.wire import Report

    Emit = Callable[..., int]
    Request = Send | Cancel | StatusRequest

SECOND_NS = 1_000_000_000
LATE_NS = SECOND_NS
"""An order older than this is not sent any more."""
PAUSE_NS = 800_000_000
"""A loop that stood still for longer cannot say how old the frames are that waited meanwhile."""
BACKLOG_BYTES = 256 << 10
NOT_AVAILABLE = "4"
"""BusinessRejectReason (380): application not available."""


class Wire(Protocol):
    """The connection to the exchange, as far as the router needs it."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def close(self) -> None:
        """Close after what is queued."""

    def discard(self) -> None:
        """Cut at once; what is queued must not arrive later."""

    def backlog(self) -> int:
        """Return how many bytes the exchange has not taken yet."""


class Counters(msgspec.Struct):
    """What passed since the start."""

    sent: int = 0
    unsent: int = 0
    inbound: int = 0
    late: int = 0
    sessions: int = 0
    untranslatable: int = 0


class Router:
    """One FIX session and at most one bound engine.

    `soon` runs a callable at the end of the present loop turn.
    """

    def __init__(
        self,
        *,
        identity: tuple[str, str],
        account: str,
        store: RememberingStore,
        log: InboundLog,
        fence: Fence,
        emit: Emit,
        now: Callable[[], Now],
        soon: Callable[[Callable[[], None]], object],
        alerts: Alerts | None = None,
        quarantine: Quarantine | None = None,
        symbols: frozenset[str] = frozenset(),
        gateways: Gateways | None = None,
        backup_store: RememberingStore | None = None,
    ) -> None:
        self._config = SessionConfig(
            sender=identity[0], target=identity[1], role=Role.INITIATOR, heartbeat_s=1, logon_timeout_s=2.0
        )
        self._account = account
        self._stores = {PRIMARY: store, BACKUP: backup_store or store}
        self._store, self._log, self._fence = store, log, fence
        self._emit, self._now, self._soon = emit, now, soon
        self._alerts = alerts or Alerts(emit)
        self._quarantine = quarantine
        self._symbols = symbols
        self.counters = Counters()
        self.session = Session(self._config, store, may_resend=self._may_resend)
        self.session_up = False
        self.since_ns = now().mono_ns
        """Since when the session is up or down."""
        self.gateways = gateways or Gateways()
        self.gateway = PRIMARY
        # The exchange may remember numbers that a store lost: a cold start resets both sides.
        self._resets = {name for name, kept in self._stores.items() if kept.next_in == kept.next_out == 1}
        self._wire: Wire | None = None
        self._engine: Link | None = None
        self._out: list[bytes] = []
        self._fresh: list[Inbound] = []
        self._flush_due = self._close_due = self._resending = False
        self._alive_ns = self.since_ns
        self._stalled_since_ns = 0
        self._leaving = False
        self._probe = ""
        self._proved = self._unwelcome = False

    @property
    def reset_asked(self) -> bool:
        """Whether the next logon starts both sides at 1 (141=Y)."""
        return self.gateway in self._resets

    def ask_reset(self) -> None:
        """Start both sides at 1 at the next logon, whichever gateway that is at."""
        self._resets = set(self._stores)

    @property
    def quarantined(self) -> int:
        """How many messages were put aside."""
        return self._quarantine.count if self._quarantine is not None else 0

    # ---- the exchange's side

    def exchange_connected(self, wire: Wire, gateway: str = PRIMARY) -> None:
        """Log on over a fresh connection; with 141=Y if an operator asked for it."""
        self.gateway, self._store = gateway, self._stores[gateway]
        self._probe = ""
        self._proved = self._unwelcome = False
        config = msgspec.structs.replace(self._config, reset_on_logon=self.reset_asked)
        self.session = Session(config, self._store, may_resend=self._may_resend)
        self._wire = wire
        self._stalled_since_ns = 0
        self._carry_out(self.session.connected(self._now()))

    def exchange_data(self, data: bytes) -> None:
        """Take bytes of the exchange."""
        self._carry_out(self.session.received(data, self._now()))

    def exchange_lost(self, reason: str) -> None:
        """Note that the connection is gone."""
        self._wire = None
        self._carry_out(self.session.disconnected(self._now()))
        self.flush()
        self._went_down(reason)

    def logout(self) -> None:
        """Begin the clean end of the session."""
        self._leaving = True
        self._carry_out(self.session.logout("the firm stops", self._now()))

    def tick(self) -> None:
        """Do what time demands: heartbeats, time-outs, a stalled exchange, a pause of our own.

        Call every 50 ms or less.
        """
        now = self._now()
        self._notice_pause(now.mono_ns)
        due_ns = self.session.deadline()
        if due_ns is not None and now.mono_ns >= due_ns:
            self._carry_out(self.session.tick(now))
        self._notice_stall(now.mono_ns)

    def _notice_stall(self, now_ns: int) -> None:
        """Cut off an exchange that does not read: it must not get stale orders when it reads again."""
        if self._wire is None or not self._wire.backlog():
            self._stalled_since_ns = 0
        elif not self._stalled_since_ns:
            self._stalled_since_ns = now_ns
        elif now_ns - self._stalled_since_ns > LATE_NS:
            self._stalled_since_ns = 0
            self._wire.discard()

    def _notice_pause(self, now_ns: int) -> bool:
        """After a pause of this process the engine's waiting frames are of unknown age.

        Bind anew, ask what is known.
        """
        paused = now_ns - self._alive_ns > PAUSE_NS
        if paused:
            self._emit("paused", ms=(now_ns - self._alive_ns) // 1_000_000)
            if self._engine is not None:
                self._engine.abort()
                self._engine = None
        self._alive_ns = now_ns
        return paused

    def _may_resend(self, message: FixMessage) -> bool:
        """Let cancels be sent again, orders never: nothing may trade before the state is validated.

        A resend would reach the exchange on logon, before that. The order's number is gap-filled instead,
        and the engine learns by order status whether it had arrived the first time.
        """
        return message.msg_type == "F"

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Transmit):
                self._out.append(effect.data)
            elif isinstance(effect, Deliver):
                resent = effect.poss_dup or effect.poss_resend
                self._deliver(effect.message, effect.seq_num, resent=resent)
            elif isinstance(effect, Rejected):
                self._record(fix.session_reject(self._refused(effect), effect.text), fix_seq=0, resent=False)
            else:
                self._note(effect)
        self._judge()
        self._flush_later()

    def _note(self, effect: LoggedOn | LoggedOut | Disconnect | Notice | Gap) -> None:
        if isinstance(effect, LoggedOn):
            self._resets.discard(self.gateway)
            self.counters.sessions += 1
            self._emit(
                "session_logged_on",
                reset=effect.reset,
                next_out=self.session.next_out,
                next_in=self.session.next_in,
            )
        elif isinstance(effect, Gap):
            self._resending = True
            self._emit("resend_requested", begin=effect.begin, end=effect.end)
        elif isinstance(effect, LoggedOut):
            self._emit("session_logged_out", text=effect.text)
        elif isinstance(effect, Disconnect):
            self._close_due = True
            self._emit("session_ending", reason=effect.reason)
        else:
            self._emit("session_warning", text=effect.text)

    def _judge(self) -> None:
        """Report a finished resend; call the session up once logged on with nothing missing."""
        missing = self.session.gap is not None
        if self._resending and self.session.logged_on and not missing:
            self._resending = False
            self._emit("resend_complete", next_in=self.session.next_in)
        if self.session.logged_on and not missing and not self.session_up:
            if self.gateway != PRIMARY and not self._proved:
                self._ask_whether_in_force()
                return
            self.session_up = True
            if self.gateways.established(self.gateway):
                self._emit("gateway_changed", gateway=self.gateway)
            self.since_ns = self._emit("session_established", next_in=self.session.next_in)
            self._alerts.clear("exchange_lost")
            self.flush()
            self._tell(SessionUp(self.since_ns))
        elif not self.session.logged_on:
            self._went_down("logged out")

    def _went_down(self, reason: str) -> None:
        if not self.session_up:
            return
        self.session_up = self._resending = False
        self.since_ns = self._emit("session_lost", reason=reason)
        self.gateways.lost(self._now().mono_ns)
        if not self._leaving:
            text = f"no session with the exchange: {reason}; connected again, reconciled, then traded"
            self._alerts.sound("exchange_lost", text, reason=reason)
        self._tell(SessionDown(self.since_ns, reason))

    def _ask_whether_in_force(self) -> None:
        """Send a harmless application message: a backup that is not promoted rejects it (35=j)."""
        if self._probe:
            return
        self._probe = f"PROBE-{self._now().wall_ns}"
        request = StatusRequest(self._probe, min(self._symbols, default="PROBE"), "buy")
        for effect in self.session.send(fix.status_request(request, self._account), self._now()):
            assert isinstance(effect, Transmit)
            self._out.append(effect.data)

    def _answers_probe(self, message: FixMessage) -> bool:
        """Take the answer to our question; the engine asked none."""
        if not self._probe or self._probe not in {message.get(11), message.get(379)}:
            return False
        if message.msg_type == "j":
            self._not_in_force(message)
        else:
            self._proved = True
        return True

    def _not_in_force(self, message: FixMessage) -> None:
        """Leave a gateway that takes no orders now; the other one may."""
        if self._unwelcome:
            return
        self._unwelcome = True
        self.gateways.not_in_force(self.gateway)
        self._emit("gateway_not_in_force", gateway=self.gateway, text=message.get(58) or "")
        self._carry_out(self.session.logout("this gateway is not in force", self._now()))

    def _deliver(self, message: FixMessage, fix_seq: int, *, resent: bool) -> None:
        if self.gateways.has_backup:
            if self._answers_probe(message):
                return
            if message.msg_type == "j" and message.get(380) == NOT_AVAILABLE and not resent:
                self._not_in_force(message)
        try:
            report = fix.report(message)
        except fix.TranslationError as error:
            self._refuse(message, str(error))
            return
        if report is None:
            return
        wrong = doubt.of_numbers(report, self._symbols)
        if wrong is not None:
            self._refuse(message, wrong)
            return
        wrong = doubt.of_time(message, self._now().wall_ns)
        if wrong is not None and report.exec_type in doubt.FILLS:
            self._refuse(message, wrong)
            return
        if wrong is not None:  # an answer to an order is none the less one: we go by our own time
            self._hold(message, wrong, "kept")
        self._record(report, fix_seq=fix_seq, resent=resent)

    def _refuse(self, message: FixMessage, reason: str) -> None:
        """Do not act on it: what really was filled is asked of the exchange by the engine, once a second."""
        self.counters.untranslatable += 1
        self._hold(message, reason, "fetched again")

    def _hold(self, message: FixMessage, reason: str, action: Action) -> None:
        if self._quarantine is not None:
            self._quarantine.keep("exchange session", reason, str(message), action=action)

    def _record(self, report: Report, *, fix_seq: int, resent: bool) -> None:
        entry = self._log.append(fix_seq=fix_seq, wall_ns=self._now().wall_ns, resent=resent, report=report)
        self.counters.inbound += 1
        self.counters.late += resent
        self._fresh.append(Inbound(entry.router_seq, resent, report))

    def _refused(self, effect: Rejected) -> FixMessage | None:
        if effect.ref_seq_num is None:
            return None
        stored = next(iter(self._store.load_out(effect.ref_seq_num, effect.ref_seq_num)), None)
        return decode(stored.raw) if stored else None

    # ---- the engine's side

    def engine_message(self, link: Link, message: Message) -> None:
        """Take one frame of an engine."""
        if self._notice_pause(self._now().mono_ns) and not isinstance(message, Bind):
            link.abort()
        elif isinstance(message, Beat):
            link.send(message)
        elif isinstance(message, Bind):
            self._bind(link, message)
        elif link is not self._engine:
            self._refuse_unbound(link, message)
        elif isinstance(message, Send | Cancel | StatusRequest):
            self._send(message)
        elif isinstance(message, Known):
            link.send(KnownAnswer(message.request, self._known(message.cl_ord_ids)))

    def engine_closed(self, link: Link, _error: Exception | None) -> None:
        """Forget a lost engine; what arrives meanwhile waits in the log."""
        if link is self._engine:
            self._engine = None
            self._emit("engine_unbound", epoch=self._fence.holder.epoch, engine=self._fence.holder.engine)

    @property
    def bound(self) -> str | None:
        """Name of the engine that is bound now."""
        return self._fence.holder.engine if self._engine is not None else None

    def _bind(self, link: Link, bind: Bind) -> None:
        refusal = self._fence.refusal(bind.engine, bind.epoch)
        if refusal is not None:
            self._fence_off(link, bind.engine, bind.epoch, refusal)
            return
        former = self._engine
        if former is not None and former is not link:
            holder = self._fence.holder
            self._engine = None
            self._fence_off(former, holder.engine, holder.epoch, f"{bind.engine} bound epoch {bind.epoch}")
        self._fence.admit(bind.engine, bind.epoch)
        self.flush()
        since = bind.since if bind.log_id == self._log.log_id else 0
        for entry in self._log.since(since):
            link.send(Inbound(entry.router_seq, True, entry.report))
        self._engine = link
        known = self._known(bind.ask) if bind.ask else []
        link.send(BindDone(self._log.last_seq, self._log.log_id, known, self.session_up))
        self._emit("engine_bound", epoch=bind.epoch, engine=bind.engine, since=since, last=self._log.last_seq)

    def _known(self, cl_ord_ids: list[str]) -> list[str]:
        """Return those of the ids that ever reached the store of any gateway, in the order asked."""
        found = {known for store in set(self._stores.values()) for known in store.known(cl_ord_ids)}
        return [asked for asked in cl_ord_ids if asked in found]

    def _fence_off(self, link: Link, engine: str, epoch: int, reason: str) -> None:
        self._emit("engine_fenced", epoch=epoch, engine=engine, reason=reason)
        link.send(BindRefused(self._fence.holder.epoch, reason))
        link.close()

    def _refuse_unbound(self, link: Link, message: Message) -> None:
        if isinstance(message, Send | Cancel | StatusRequest):
            self._emit("engine_fenced", reason="order without a binding", cl_ord_id=message.cl_ord_id)
            link.send(Unsent(message.cl_ord_id, "this engine is not bound to the router"))

    def _send(self, request: Request) -> None:
        obstacle = self._obstacle()
        if obstacle is not None:
            self._unsent(request.cl_ord_id, obstacle)
            return
        now = self._now()
        try:
            effects = self.session.send(self._translate(request, now.wall_ns), now)
        except (FixError, KeyError) as error:
            self._unsent(request.cl_ord_id, f"cannot be written as FIX: {error}")
            return
        self.counters.sent += 1
        for effect in effects:
            assert isinstance(effect, Transmit)
            self._out.append(effect.data)
        self._flush_later()

    def _obstacle(self) -> str | None:
        if self._wire is None or not self.session_up:
            return "the FIX session is down"
        if self._unwelcome:
            return "this gateway is not in force"
        return "the exchange does not read" if self._wire.backlog() > BACKLOG_BYTES else None

    def _unsent(self, cl_ord_id: str, reason: str) -> None:
        self.counters.unsent += 1
        self._tell(Unsent(cl_ord_id, reason))

    def _translate(self, request: Request, wall_ns: int) -> FixMessage:
        if isinstance(request, Send):
            return fix.new_order(request, self._account, wall_ns)
        if isinstance(request, Cancel):
            return fix.cancel_request(request, self._account, wall_ns)
        return fix.status_request(request, self._account)

    def _tell(self, message: Message) -> None:
        if self._engine is not None:
            self._engine.send(message)

    # ---- durability

    def _flush_later(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._soon(self.flush)

    def flush(self) -> None:
        """Make everything of this turn durable, then let it out. An error here ends the process.

        Nothing was let out.
        """
        self._flush_due = False
        self._log.sync()
        self.session.commit(self._now())
        fresh, self._fresh = self._fresh, []
        for inbound in fresh:
            self._tell(inbound)
        if self._out:
            self._store.sync()
            data, self._out = b"".join(self._out), []
            if self._wire is not None:
                self._wire.write(data)
        if self._close_due:
            self._close_due = False
            if self._wire is not None:
                self._wire.close()
