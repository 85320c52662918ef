"""The session: bytes and instants in, effects out. No sockets, no clock, no threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession import tags, timers
from fixsession.codec import Framer, Garbled, decode
from fixsession.config import Role, SessionConfig
from fixsession.conversation import Conversation, State, text_pair
from fixsession.effects import Effect, Warning  # noqa: A004
from fixsession.errors import FixError
from fixsession.handshake import on_first_message
from fixsession.outbound import everything
from fixsession.receiving import on_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixsession.clock import Now
    from fixsession.message import Message
    from fixsession.schedule import Schedule
    from fixsession.store import SessionStore


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
        self._framer = Framer()
        self._talk = Conversation(config, store, schedule=schedule, may_resend=may_resend)

    # ---- what an owner may look at

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._talk.state

    @property
    def heartbeat_s(self) -> int:
        """HeartBtInt (108) in force; 0: none."""
        return self._talk.heartbeat_s

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._talk.is_connected

    @property
    def logged_on(self) -> bool:
        """Whether messages reach the counterparty now."""
        return self._talk.logged_on

    @property
    def next_out(self) -> int:
        """Number of the next outgoing message."""
        return self.store.next_out

    @property
    def next_in(self) -> int:
        """Number of the next incoming message; what lies between `store.next_in` and it is not committed."""
        return self._talk.inbound.next_in

    @property
    def gap(self) -> tuple[int, int] | None:
        """First and last missing message, or None."""
        missing = self._talk.inbound.missing
        return (self._talk.inbound.next_in, missing.end) if missing else None

    @property
    def sending_skew_ns(self) -> int:
        """What is added to SendingTime (52) of every message: a counterparty with a wrong clock."""
        return self._talk.outbound.sending_skew_ns

    @sending_skew_ns.setter
    def sending_skew_ns(self, value: int) -> None:
        self._talk.outbound.sending_skew_ns = value

    # ---- what an owner does

    def connected(self, now: Now) -> list[Effect]:
        """Take a new connection: an initiator logs on, an acceptor waits for the Logon.

        Raises `FixError` where the session has a connection already: the owner drops the new one.
        """
        talk, config = self._talk, self.config
        if talk.is_connected:
            raise FixError(f"session {config.sender}-{config.target} is live; drop the new connection")
        talk.now = now
        self._framer = Framer()
        timers.start(talk)
        talk.outbound.forget()
        talk.inbound.restart(self.store.next_in)
        talk.reset_asked = config.role is Role.INITIATOR and config.reset_on_logon
        if config.role is Role.ACCEPTOR:
            talk.state = State.AWAIT_LOGON
            return []
        talk.state = State.LOGON_SENT
        talk.heartbeat_s = config.heartbeat_s
        if talk.reset_asked:
            talk.missed += talk.reset_numbers()
        talk.send_logon(reset=talk.reset_asked)
        return talk.leave()

    def received(self, data: bytes, now: Now) -> list[Effect]:
        """Take bytes from the connection, in any portions. After a `Disconnect` the rest is dropped."""
        talk = self._talk
        talk.now = now
        for frame in self._framer.feed(data):
            if talk.state is State.DISCONNECTED:
                break
            if isinstance(frame, Garbled):
                talk.effects.append(Warning(f"garbled: {frame.reason}: {frame.data[:80]!r}"))
            else:
                self._on_frame(talk, frame)
        return talk.leave()

    def send(self, message: Message, now: Now) -> list[Effect]:
        """Send an application message: number it, store it, have it transmitted.

        While nobody is logged on it is only numbered and stored: the counterparty sees the gap at its next
        logon and asks. Raises `FixError` for a session message, a value that cannot be written (no number is
        used then), or a store that fails.
        """
        talk = self._talk
        talk.now = now
        msg_type = message.msg_type
        if not msg_type or msg_type in tags.SESSION_TYPES:
            raise FixError(f"send: MsgType {msg_type!r} is the session's own; send application messages only")
        talk.send_numbered(msg_type, message.pairs)
        return talk.leave()

    def reject(
        self, message: Message, now: Now, *, text: str, reason: int = tags.OTHER, tag: int = 0
    ) -> list[Effect]:
        """Answer a delivered message with a session Reject (35=3); `reason` is 373, `tag` is 371."""
        self._talk.now = now
        self._talk.send_reject(message, (reason, tag, text))
        return self._talk.leave()

    def commit(self, now: Now) -> None:
        """Persist that everything delivered so far has been dealt with. Cheap where nothing is new."""
        next_in = self._talk.inbound.next_in
        if self.store.next_in != next_in:
            self.store.save_in(next_in, now.wall_ns)

    def logout(self, text: str, now: Now) -> list[Effect]:
        """Begin the Logout handshake; before logon, just disconnect."""
        talk = self._talk
        talk.now = now
        if talk.state is State.ACTIVE:
            talk.send_session(tags.LOGOUT, text_pair(text))
            talk.state = State.LOGOUT_SENT
            talk.since_ns = now.mono_ns
        elif talk.is_connected and talk.state is not State.LOGOUT_SENT:
            talk.disconnect(text)
        return talk.leave()

    def disconnected(self, now: Now) -> list[Effect]:
        """Note that the connection is gone; nothing more is sent on it. May be called any number of times.

        Uncommitted incoming messages will be asked for again at the next logon.
        """
        self._talk.now = now
        self._talk.state = State.DISCONNECTED
        self._talk.outbound.forget()
        return self._talk.leave()

    def tick(self, now: Now) -> list[Effect]:
        """Do what time demands: heartbeats, time-outs, slow replays. Due at `deadline` at the latest."""
        self._talk.now = now
        timers.tick(self._talk)
        return self._talk.leave()

    def deadline(self) -> int | None:
        """Monotonic instant at which `tick` must be called next; None: nothing will be due."""
        return timers.deadline(self._talk)

    def _on_frame(self, talk: Conversation, frame: bytes) -> None:
        try:
            message = decode(frame)
        except FixError as error:
            talk.effects.append(Warning(f"garbled: {error}"))
            return
        if message.pairs[2][0] != tags.MSG_TYPE:
            talk.effects.append(Warning("garbled: the third field is not MsgType (35)"))
            return
        talk.last_in_ns = talk.now.mono_ns
        talk.test_sent_ns = 0
        if talk.logged_on:
            on_message(talk, message)
        else:
            on_first_message(talk, message)
