"""The session: bytes and instants in, effects out. No sockets, no clock, no threads."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from fixsession import checks, tags
from fixsession.clock import SECOND_NS, Now
from fixsession.codec import Framer, Garbled, decode
from fixsession.config import OnReset, OverLimit, Refusal, Role, SessionConfig
from fixsession.effects import Deliver, Disconnect, Effect, Gap, LoggedOn, LoggedOut, Rejected, Warning
from fixsession.errors import FixError
from fixsession.inbound import Inbound
from fixsession.message import Message, number
from fixsession.outbound import Outbound, everything
from fixsession.store import Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixsession.checks import Problem
    from fixsession.message import Pair
    from fixsession.schedule import Schedule
    from fixsession.store import SessionStore

_PATIENCE = 1.2  # "HeartBtInt plus some reasonable transmission time"


class State(Enum):
    """Where the conversation stands."""

    DISCONNECTED = auto()
    AWAIT_LOGON = auto()
    LOGON_SENT = auto()
    ACTIVE = auto()
    LOGOUT_SENT = auto()


class Session:
    """One FIX 4.4 session, acceptor or initiator, over any number of successive connections.

    Every method takes `now` and returns effects in the order in which the owner must carry them out. Incoming
    numbers are persisted only by `commit`, which the owner calls after it has dealt with what was delivered:
    what was not committed is delivered again after a crash or a reconnection (at least once).

    `may_resend` lets an application keep stale messages from being resent; they are gap-filled.
    """

    def __init__(
        self,
        config: SessionConfig,
        store: SessionStore,
        *,
        schedule: Schedule | None = None,
        may_resend: Callable[[Message], bool] = everything,
    ) -> None:
        self.config = config
        self.store = store
        self.heartbeat_s = config.heartbeat_s
        self.state = State.DISCONNECTED
        self._schedule = schedule
        self._framer = Framer()
        self._outbound = Outbound(config, store, may_resend=may_resend)
        self._inbound = Inbound(store.next_in, chunk=config.request_chunk, max_queue=config.max_queue)
        self._effects: list[Effect] = []
        self._now = Now(0, 0)
        self._reset_asked = False
        # Monotonic instants; 0 means "not running" for the last two.
        self._since_ns = self._last_in_ns = self._last_out_ns = self._test_sent_ns = self._closes_ns = 0
        self._handlers: dict[str, Callable[[Message], None]] = {
            tags.HEARTBEAT: _ignore,
            tags.LOGON: self._on_second_logon,
            tags.TEST_REQUEST: self._on_test_request,
            tags.RESEND_REQUEST: self._on_resend_request,
            tags.REJECT: self._on_reject,
        }

    # ---- what an owner may look at

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self.state is not State.DISCONNECTED

    @property
    def logged_on(self) -> bool:
        """Whether messages reach the counterparty now."""
        return self.state is State.ACTIVE or self.state is State.LOGOUT_SENT

    @property
    def next_out(self) -> int:
        """Number of the next outgoing message."""
        return self.store.next_out

    @property
    def next_in(self) -> int:
        """Number of the next incoming message; what lies between `store.next_in` and it is not committed."""
        return self._inbound.next_in

    @property
    def gap(self) -> tuple[int, int] | None:
        """First and last missing message, or None."""
        missing = self._inbound.missing
        return (self._inbound.next_in, missing.end) if missing else None

    @property
    def sending_skew_ns(self) -> int:
        """Added to SendingTime (52) of every message: a counterparty with a wrong clock."""
        return self._outbound.sending_skew_ns

    @sending_skew_ns.setter
    def sending_skew_ns(self, value: int) -> None:
        self._outbound.sending_skew_ns = value

    # ---- what an owner does

    def connected(self, now: Now) -> list[Effect]:
        """A connection stands. An initiator logs on; an acceptor waits for the Logon.

        Raises `FixError` where the session has a connection already: the owner drops the new one.
        """
        if self.is_connected:
            raise FixError(
                f"session {self.config.sender}-{self.config.target} is live; drop the new connection"
            )
        self._now = now
        self._framer = Framer()
        self._outbound.forget()
        self._begin_numbering(now)
        self._inbound.restart(self.store.next_in)
        self._since_ns = self._last_in_ns = self._last_out_ns = now.mono_ns
        self._test_sent_ns = 0
        self._reset_asked = False
        if self.config.role is Role.ACCEPTOR:
            self.state = State.AWAIT_LOGON
            return []
        self.state = State.LOGON_SENT
        self.heartbeat_s = self.config.heartbeat_s
        if self.config.reset_on_logon:
            self._reset_numbers()
            self._reset_asked = True
        self._send_logon(reset=self._reset_asked)
        return self._leave()

    def received(self, data: bytes, now: Now) -> list[Effect]:
        """Bytes from the connection, in any portions. After a `Disconnect` effect the rest is not looked at."""
        self._now = now
        for frame in self._framer.feed(data):
            if self.state is State.DISCONNECTED:
                break
            if isinstance(frame, Garbled):
                self._effects.append(Warning(f"garbled: {frame.reason}: {frame.data[:80]!r}"))
            else:
                self._on_frame(frame)
        return self._leave()

    def send(self, message: Message, now: Now) -> list[Effect]:
        """Number, store and send an application message.

        While nobody is logged on it is only numbered and stored: the counterparty sees the gap at its next logon and
        asks. Raises `FixError` for a session message or a value that cannot be written; no number is used then.
        """
        self._now = now
        msg_type = message.msg_type
        if not msg_type or msg_type in tags.SESSION_TYPES:
            raise FixError(f"send: MsgType {msg_type!r} is the session's own; send application messages only")
        self._send_numbered(msg_type, message.pairs)
        return self._leave()

    def reject(
        self, message: Message, now: Now, *, text: str, reason: int = tags.OTHER, tag: int = 0
    ) -> list[Effect]:
        """Answer a delivered message with a session Reject (35=3); `reason` is 373, `tag` is 371."""
        self._now = now
        self._send_reject(message, (reason, tag, text))
        return self._leave()

    def commit(self, now: Now) -> None:
        """Persist that everything delivered so far has been dealt with. Cheap where nothing is new."""
        if self.store.next_in != self._inbound.next_in:
            self.store.save_in(self._inbound.next_in, now.wall_ns)

    def logout(self, text: str, now: Now) -> list[Effect]:
        """Begin the Logout handshake; before logon, just disconnect."""
        self._now = now
        if self.state is State.ACTIVE:
            self._send_session(tags.LOGOUT, _text(text))
            self.state = State.LOGOUT_SENT
            self._since_ns = now.mono_ns
        elif self.state is not State.LOGOUT_SENT and self.is_connected:
            self._disconnect(text)
        return self._leave()

    def disconnected(self, now: Now) -> list[Effect]:
        """The connection is gone; nothing more is sent on it. May be called any number of times.

        Uncommitted incoming messages will be asked for again at the next logon.
        """
        self._now = now
        self.state = State.DISCONNECTED
        self._outbound.forget()
        return self._leave()

    def tick(self, now: Now) -> list[Effect]:
        """Time has passed: heartbeats, time-outs, slow replays. To be called at `deadline` at the latest."""
        self._now = now
        if self.state is State.AWAIT_LOGON or self.state is State.LOGON_SENT:
            if now.mono_ns >= self._since_ns + _ns(self.config.logon_timeout_s):
                self._disconnect("no Logon within the time limit")
        elif self.state is State.LOGOUT_SENT:
            if now.mono_ns >= self._since_ns + _ns(self.config.logout_timeout_s):
                self._effects.append(LoggedOut("no answer to Logout"))
                self._disconnect("no answer to Logout within the time limit")
        elif self.state is State.ACTIVE:
            self._tick_active()
        return self._leave()

    def deadline(self) -> int | None:
        """Monotonic instant at which `tick` must be called next, or None while there is no connection."""
        if self.state is State.DISCONNECTED:
            return None
        if self.state is State.LOGOUT_SENT:
            return self._since_ns + _ns(self.config.logout_timeout_s)
        if self.state is not State.ACTIVE:
            return self._since_ns + _ns(self.config.logon_timeout_s)
        return min(self._active_deadlines(), default=None)

    # ---- time

    def _active_deadlines(self) -> list[int]:
        found = [self._closes_ns] if self._closes_ns else []
        if self.heartbeat_s:
            patience = _ns(self.heartbeat_s * _PATIENCE)
            found.append(self._last_out_ns + _ns(self.heartbeat_s))
            found.append((self._test_sent_ns or self._last_in_ns) + patience)
        if self._outbound.replay:
            found.append(self._outbound.replay.due_ns)
        if self._inbound.missing and self.config.request_again_s:
            found.append(self._inbound.missing.since_ns + _ns(self.config.request_again_s))
        return found

    def _tick_active(self) -> None:
        now_ns = self._now.mono_ns
        if self._closes_ns and now_ns >= self._closes_ns:
            self._end("session window closed")
            return
        if self.heartbeat_s and not self._counterparty_lives(now_ns):
            self._effects.append(LoggedOut("heartbeat time-out"))
            self._disconnect("no answer to TestRequest within the time limit")
            return
        self._advance_replay()
        missing = self._inbound.missing
        again_ns = _ns(self.config.request_again_s)
        if missing and again_ns and now_ns >= missing.since_ns + again_ns:
            self._request(missing.end)
        if self.heartbeat_s and now_ns >= self._last_out_ns + _ns(self.heartbeat_s):
            self._send_session(tags.HEARTBEAT, [])

    def _counterparty_lives(self, now_ns: int) -> bool:
        """Whether it was heard, or may still answer a TestRequest."""
        patience = _ns(self.heartbeat_s * _PATIENCE)
        if self._test_sent_ns:
            return now_ns < self._test_sent_ns + patience
        if now_ns >= self._last_in_ns + patience:
            self._test_sent_ns = now_ns
            self._send_session(tags.TEST_REQUEST, [(tags.TEST_REQ_ID, f"T{self.store.next_out}")])
        return True

    def _begin_numbering(self, now: Now) -> None:
        """Begin at 1 where the store is new or belongs to an earlier session window."""
        store, schedule = self.store, self._schedule
        created = store.created_wall_ns
        unused = created == 0 and store.next_in == store.next_out == 1
        if unused or (schedule and created and schedule.is_stale(created, now.wall_ns)):
            store.reset(now.wall_ns)
        self._closes_ns = 0
        if schedule:
            self._closes_ns = max(1, now.mono_ns + schedule.end_ns(now.wall_ns) - now.wall_ns)

    # ---- sending

    def _leave(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _send_session(self, msg_type: str, pairs: list[Pair]) -> None:
        self._effects.append(self._outbound.issue(msg_type, pairs, self._now, self._inbound.next_in))
        self._last_out_ns = self._now.mono_ns

    def _send_numbered(self, msg_type: str, pairs: list[Pair]) -> None:
        if not self.logged_on and not self.store.unsent_from:
            self.store.unsent_from = self.store.next_out
        transmit = self._outbound.issue(msg_type, pairs, self._now, self._inbound.next_in)
        if not self.logged_on:
            return
        if self._outbound.replay and not self.config.live_during_resend:
            self._outbound.held.append(transmit)
            return
        self._effects.append(transmit)
        self._last_out_ns = self._now.mono_ns

    def _send_logon(self, *, reset: bool) -> None:
        pairs = [(tags.ENCRYPT_METHOD, "0"), (tags.HEART_BT_INT, str(self.heartbeat_s))]
        if reset:
            pairs.append((tags.RESET_SEQ_NUM, "Y"))
        if self.config.next_expected:
            pairs.append((tags.NEXT_EXPECTED, str(self._inbound.next_in)))
        self._send_session(tags.LOGON, pairs)

    def _send_reject(self, message: Message, problem: Problem) -> None:
        reason, tag, text = problem
        pairs = [(tags.REF_SEQ_NUM, str(message.seq_num or 0))]
        if tag:
            pairs.append((tags.REF_TAG, str(tag)))
        pairs += [(tags.REF_MSG_TYPE, message.msg_type), (tags.REJECT_REASON, str(reason)), (tags.TEXT, text)]
        self._send_numbered(tags.REJECT, pairs)

    def _request(self, end: int) -> None:
        self._ask(self._inbound.request(end, self._now.mono_ns))

    def _ask(self, asked: tuple[int, int]) -> None:
        begin, to = asked
        missing = self._inbound.missing
        assert missing is not None
        self._effects.append(Gap(begin, missing.end))
        self._send_session(tags.RESEND_REQUEST, [(tags.BEGIN_SEQ_NO, str(begin)), (tags.END_SEQ_NO, str(to))])

    def _advance_replay(self) -> None:
        if self._outbound.replay is None:
            return
        sent = self._outbound.advance(self._now, self._inbound.next_in)
        if sent:
            self._effects.extend(sent)
            self._last_out_ns = self._now.mono_ns

    def _end(self, text: str) -> None:
        """Logout with a text and disconnect at once."""
        self._send_session(tags.LOGOUT, _text(text))
        self._effects.append(LoggedOut(text))
        self._disconnect(text)

    def _disconnect(self, reason: str) -> None:
        self.state = State.DISCONNECTED
        self._outbound.forget()
        self._effects.append(Disconnect(reason))

    # ---- receiving

    def _on_frame(self, frame: bytes) -> None:
        try:
            message = decode(frame)
        except FixError as error:
            self._effects.append(Warning(f"garbled: {error}"))
            return
        if message.pairs[2][0] != tags.MSG_TYPE:
            self._effects.append(Warning("garbled: the third field is not MsgType (35)"))
            return
        self._last_in_ns = self._now.mono_ns
        self._test_sent_ns = 0
        if self.logged_on:
            self._on_message(message)
        else:
            self._on_first_message(message)

    def _on_message(self, message: Message) -> None:
        problem = checks.time_problem(message, self.config, self._now.wall_ns)
        identity = checks.identity_problem(message, self.config)
        seq_num = message.seq_num
        if message.get(tags.BEGIN_STRING) != self.config.begin_string:
            self._end(f"incorrect BeginString {message.get(tags.BEGIN_STRING)}")
        elif seq_num is None:
            self._end("received a message without MsgSeqNum")
        elif identity or problem:
            self._count(seq_num)
            self._send_reject(
                message, problem if problem and not identity else (tags.COMP_ID_PROBLEM, 0, identity)
            )
            self._end(identity or (problem[2] if problem else ""))
        else:
            self._on_sound_message(message, message.msg_type, seq_num)

    def _count(self, seq_num: int) -> None:
        """A message that is dealt with here, if it is its turn."""
        if seq_num == self._inbound.next_in:
            self._inbound.next_in += 1

    def _on_sound_message(self, message: Message, msg_type: str, seq_num: int) -> None:
        inbound = self._inbound
        if msg_type == tags.SEQUENCE_RESET and message.get(tags.GAP_FILL) != "Y":
            self._on_reset(message)
        elif msg_type == tags.LOGOUT:
            self._on_logout(message, seq_num)
        elif msg_type == tags.LOGON and message.get(tags.RESET_SEQ_NUM) == "Y":
            self._on_reset_logon(message)
        elif seq_num == inbound.next_in:
            self._process(message, msg_type, seq_num)
        elif seq_num < inbound.next_in:
            self._on_too_low(message, seq_num)
        else:
            self._on_too_high(message, msg_type, seq_num)
        if inbound.queue or inbound.missing:
            self._catch_up()

    def _process(self, message: Message, msg_type: str, seq_num: int) -> None:
        """It is this message's turn."""
        if msg_type == tags.SEQUENCE_RESET:
            self._on_gap_fill(message, seq_num)
            return
        self._inbound.next_in = seq_num + 1
        poss_dup = message.poss_dup
        problem = checks.value_problem(message) or (checks.duplicate_problem(message) if poss_dup else None)
        if problem:
            self._send_reject(message, problem)
            if problem[0] == tags.SENDING_TIME_PROBLEM:
                self._end(problem[2])
        elif msg_type in tags.SESSION_TYPES:
            self._handlers[msg_type](message)
        else:
            self._effects.append(Deliver(message, seq_num, poss_dup, message.poss_resend))

    def _catch_up(self) -> None:
        """Process what waited, and ask for the next piece or the next gap."""
        inbound = self._inbound
        while self.is_connected and (message := inbound.take()):
            msg_type = message.msg_type
            if msg_type == tags.RESEND_REQUEST or msg_type == tags.LOGON:  # served when they came
                inbound.next_in += 1
            else:
                self._process(message, msg_type, inbound.next_in)
        if self.is_connected and (asked := inbound.due_request(self._now.mono_ns)):
            self._ask(asked)

    def _on_too_low(self, message: Message, seq_num: int) -> None:
        if not message.poss_dup:
            self._end(f"MsgSeqNum too low, expecting {self._inbound.next_in} but received {seq_num}")
            return
        problem = checks.duplicate_problem(message)
        if problem:
            self._send_reject(message, problem)
            if problem[0] == tags.SENDING_TIME_PROBLEM:
                self._end(problem[2])

    def _on_too_high(self, message: Message, msg_type: str, seq_num: int) -> None:
        if msg_type == tags.RESEND_REQUEST:  # waiting for each other would last for ever
            self._on_resend_request(message)
        self._inbound.keep(seq_num, message)
        if self._inbound.missing is None:
            self._request(seq_num - 1)

    # ---- session messages

    def _on_test_request(self, message: Message) -> None:
        test_id = message.get(tags.TEST_REQ_ID)
        if test_id is None:
            self._send_reject(message, (tags.REQUIRED_MISSING, tags.TEST_REQ_ID, "required tag missing"))
        else:
            self._send_session(tags.HEARTBEAT, [(tags.TEST_REQ_ID, test_id)])

    def _on_reject(self, message: Message) -> None:
        ref = number(message.get(tags.REF_SEQ_NUM))
        reason, text = message.get(tags.REJECT_REASON) or "", message.get(tags.TEXT) or ""
        self._effects.append(Rejected(ref, reason, text))

    def _on_second_logon(self, message: Message) -> None:
        self._send_reject(message, (tags.OTHER, 0, "Logon on a session that is logged on"))

    def _on_logout(self, message: Message, seq_num: int) -> None:
        self._count(seq_num)
        if self.state is State.ACTIVE:
            self._send_session(tags.LOGOUT, [])
        self._effects.append(LoggedOut(message.get(tags.TEXT) or ""))
        self._disconnect("Logout")

    def _on_resend_request(self, message: Message) -> None:
        begin = number(message.get(tags.BEGIN_SEQ_NO))
        end = number(message.get(tags.END_SEQ_NO), minimum=0)
        if begin is None or end is None:
            tag = tags.BEGIN_SEQ_NO if begin is None else tags.END_SEQ_NO
            self._send_reject(message, (tags.REQUIRED_MISSING, tag, "required tag missing or no number"))
            return
        last = self.store.next_out - 1
        end = min(end, last) if end else last
        refusal = self.config.refuse_resend
        if refusal is Refusal.IGNORE:
            self._effects.append(Warning(f"ResendRequest {begin}-{end} ignored by configuration"))
        elif problem := self._resend_problem(begin, end, refusal):
            self._send_reject(message, problem)
        else:
            if self.config.max_resend:
                end = min(end, begin + self.config.max_resend - 1)
            self._outbound.begin_replay(begin, end, self._now)
            self._advance_replay()

    def _resend_problem(self, begin: int, end: int, refusal: Refusal) -> Problem | None:
        if refusal is Refusal.REJECT:
            return tags.OTHER, 0, "ResendRequest refused"
        if end < begin:
            return tags.VALUE_INCORRECT, tags.BEGIN_SEQ_NO, f"nothing to resend from {begin}"
        limit = self.config.max_resend
        if limit and end - begin + 1 > limit and self.config.over_limit is OverLimit.REJECT:
            return tags.VALUE_INCORRECT, tags.END_SEQ_NO, f"at most {limit} messages per ResendRequest"
        return None

    def _on_gap_fill(self, message: Message, seq_num: int) -> None:
        new = number(message.get(tags.NEW_SEQ_NO))
        if new is None:
            self._send_reject(message, (tags.REQUIRED_MISSING, tags.NEW_SEQ_NO, "required tag missing"))
        elif new <= seq_num:
            text = f"attempt to lower sequence number, invalid value NewSeqNo={new}"
            self._send_reject(message, (tags.VALUE_INCORRECT, tags.NEW_SEQ_NO, text))
        else:
            self._inbound.jump(new)

    def _on_reset(self, message: Message) -> None:
        """SequenceReset-Reset: its own number does not matter."""
        new, expected = number(message.get(tags.NEW_SEQ_NO)), self._inbound.next_in
        if new is None:
            self._send_reject(message, (tags.REQUIRED_MISSING, tags.NEW_SEQ_NO, "required tag missing"))
        elif new < expected:
            text = f"attempt to lower sequence number, invalid value NewSeqNo={new}"
            self._send_reject(message, (tags.VALUE_INCORRECT, tags.NEW_SEQ_NO, text))
        elif new == expected:
            self._effects.append(Warning(f"SequenceReset to {new}, which is expected anyway"))
        else:
            self._inbound.jump(new)

    # ---- logon

    def _on_first_message(self, message: Message) -> None:
        if self.state is State.LOGON_SENT and message.msg_type in (tags.LOGOUT, tags.REJECT):
            text = message.get(tags.TEXT) or ""
            self._effects.append(LoggedOut(text))
            self._disconnect(f"Logon refused: {text}")
            return
        problem = checks.logon_problem(message, self.config, self._now.wall_ns)
        if not problem and self._schedule and not self._schedule.is_open(self._now.wall_ns):
            problem = "outside the session window"
        if problem:
            self._effects.append(Warning(problem))
            self._disconnect(problem)
        elif self.state is State.AWAIT_LOGON:
            self._accept_logon(message)
        else:
            self._complete_logon(message)

    def _accept_logon(self, message: Message) -> None:
        seq_num = int(message.require(tags.MSG_SEQ_NUM))
        asked = message.get(tags.RESET_SEQ_NUM) == "Y"
        reset = asked or self.config.reset_on_logon
        missed = self._reset_numbers() if reset else []
        if reset:
            seq_num = 1
        if not self._logon_number_fits(message, seq_num, self.store.next_out):
            return
        self.heartbeat_s = int(message.require(tags.HEART_BT_INT))
        high = self._place_logon(message, seq_num)
        self.state = State.ACTIVE
        before = self.store.next_out
        self._send_logon(reset=reset)
        self._begin_active(message, high=high, reset=reset, before=before, missed=missed)

    def _complete_logon(self, message: Message) -> None:
        seq_num = int(message.require(tags.MSG_SEQ_NUM))
        reset, missed = self._reset_asked, list[Stored]()
        if (
            message.get(tags.RESET_SEQ_NUM) == "Y" and not reset
        ):  # the acceptor's own wish; our Logon was its 1
            missed = self._reset_numbers()
            self.store.next_out = 2
            reset = True
        if not self._logon_number_fits(message, seq_num, self.store.next_out):
            return
        high = self._place_logon(message, seq_num)
        self.state = State.ACTIVE
        self._begin_active(message, high=high, reset=reset, before=self.store.next_out, missed=missed)

    def _logon_number_fits(self, message: Message, seq_num: int, next_out: int) -> bool:
        expected = number(message.get(tags.NEXT_EXPECTED))
        if seq_num < self._inbound.next_in:
            self._end(f"MsgSeqNum too low, expecting {self._inbound.next_in} but received {seq_num}")
        elif self.config.next_expected and expected and expected > next_out:
            self._end(f"NextExpectedMsgSeqNum too high, expecting {next_out} but received {expected}")
        else:
            return True
        return False

    def _place_logon(self, message: Message, seq_num: int) -> bool:
        """Count the Logon, or let it wait behind the gap that it shows (True)."""
        if seq_num == self._inbound.next_in:
            self._inbound.next_in += 1
            return False
        self._inbound.keep(seq_num, message)
        return True

    def _begin_active(
        self, message: Message, *, high: bool, reset: bool, before: int, missed: list[Stored]
    ) -> None:
        self._effects.append(LoggedOn(reset, self.heartbeat_s))
        for stored in missed:
            again = decode(stored.raw)
            self._send_numbered(again.msg_type, again.pairs)
        expected = number(message.get(tags.NEXT_EXPECTED)) if self.config.next_expected else None
        if expected is not None and expected < before and not reset:
            self._outbound.begin_replay(expected, before - 1, self._now)
            self._advance_replay()
        if not high:
            return
        end = int(message.require(tags.MSG_SEQ_NUM)) - 1
        if expected is None:
            self._request(end)
        else:  # it has our 789 and resends unasked
            self._inbound.request(end, self._now.mono_ns)

    def _on_reset_logon(self, message: Message) -> None:
        """Logon with 141=Y on a live session: both sides begin again at 1."""
        problem = checks.logon_problem(message, self.config, self._now.wall_ns)
        if problem:
            self._end(problem)
            return
        missed = self._reset_numbers()
        self.heartbeat_s = int(message.require(tags.HEART_BT_INT))
        self._inbound.next_in = 2
        self._send_logon(reset=True)
        self._begin_active(message, high=False, reset=True, before=self.store.next_out, missed=missed)

    def _reset_numbers(self) -> list[Stored]:
        """Both numbers to 1; gives what was never offered to the counterparty, where it is to be sent anew."""
        store, missed = self.store, list[Stored]()
        if self.config.on_reset is OnReset.RENUMBER and store.unsent_from:
            missed = list(store.load_out(store.unsent_from, store.next_out - 1))
        store.reset(self._now.wall_ns)
        self._outbound.forget()
        self._inbound.restart(1)
        return missed


def _ignore(_: Message) -> None:
    """A Heartbeat has done its work by arriving."""


def _text(text: str) -> list[Pair]:
    return [(tags.TEXT, text)] if text else []


def _ns(seconds: float) -> int:
    return int(seconds * SECOND_NS)
