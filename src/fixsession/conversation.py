"""One conversation: where it stands, and what is said in it. Shared by the parts of the session."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from fixsession import tags
from fixsession.clock import SECOND_NS, Now
from fixsession.config import OnReset, SessionConfig
from fixsession.effects import Disconnect, Effect, Gap, LoggedOut, Transmit
from fixsession.inbound import Inbound
from fixsession.outbound import Outbound

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixsession.checks import Problem
    from fixsession.message import Message, Pair
    from fixsession.schedule import Schedule
    from fixsession.store import SessionStore, Stored


class State(Enum):
    """Where the conversation stands."""

    DISCONNECTED = auto()
    AWAIT_LOGON = auto()
    LOGON_SENT = auto()
    ACTIVE = auto()
    LOGOUT_SENT = auto()


class Conversation:
    """State, and the ways to say something; every change happens at the instant `now`."""

    def __init__(
        self,
        config: SessionConfig,
        store: SessionStore,
        *,
        schedule: Schedule | None,
        may_resend: Callable[[Message], bool],
    ) -> None:
        self.config = config
        self.store = store
        self.schedule = schedule
        self.state = State.DISCONNECTED
        self.heartbeat_s = config.heartbeat_s
        self.outbound = Outbound(config, store, may_resend=may_resend)
        self.inbound = Inbound(store.next_in, chunk=config.request_chunk, max_queue=config.max_queue)
        self.effects: list[Effect] = []
        self.now = Now(0, 0)
        self.reset_asked = False
        self.missed: list[Stored] = []  # to be sent anew once a reset is agreed
        # Monotonic instants; 0 means "not running" for the last two.
        self.since_ns = self.last_in_ns = self.last_out_ns = self.test_sent_ns = self.closes_ns = 0

    @property
    def logged_on(self) -> bool:
        """Whether messages reach the counterparty now."""
        return self.state is State.ACTIVE or self.state is State.LOGOUT_SENT

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self.state is not State.DISCONNECTED

    def leave(self) -> list[Effect]:
        """Hand over the effects collected so far."""
        effects, self.effects = self.effects, []
        return effects

    def send_session(self, msg_type: str, pairs: list[Pair]) -> None:
        """Send a session message of ours."""
        self._let_out(self.outbound.issue(msg_type, pairs, self.now, self.inbound.next_in))

    def send_numbered(self, msg_type: str, pairs: list[Pair]) -> None:
        """Send what may be resent; while nobody is logged on it only takes its number."""
        if self.logged_on:
            self._let_out(self.outbound.issue(msg_type, pairs, self.now, self.inbound.next_in))
            return
        if not self.store.unsent_from:
            self.store.unsent_from = self.store.next_out
        self.outbound.issue(msg_type, pairs, self.now, self.inbound.next_in)

    def _let_out(self, transmit: Transmit) -> None:
        self.last_out_ns = self.now.mono_ns
        if self.outbound.replay is None or self.config.live_during_resend or transmit.msg_type == tags.LOGOUT:
            self.effects.append(transmit)
        else:
            self.outbound.held.append(transmit)

    def send_logon(self, *, reset: bool) -> None:
        """Send a Logon with what the configuration asks for."""
        pairs = [(tags.ENCRYPT_METHOD, "0"), (tags.HEART_BT_INT, str(self.heartbeat_s))]
        if reset:
            pairs.append((tags.RESET_SEQ_NUM, "Y"))
        if self.config.next_expected:
            pairs.append((tags.NEXT_EXPECTED, str(self.inbound.next_in)))
        self.send_session(tags.LOGON, pairs)

    def send_reject(self, message: Message, problem: Problem) -> None:
        """Answer a message with a session Reject."""
        reason, tag, text = problem
        pairs = [(tags.REF_SEQ_NUM, str(message.seq_num or 0))]
        if tag:
            pairs.append((tags.REF_TAG, str(tag)))
        pairs += [(tags.REF_MSG_TYPE, message.msg_type), (tags.REJECT_REASON, str(reason)), (tags.TEXT, text)]
        self.send_numbered(tags.REJECT, pairs)

    def request(self, end: int) -> None:
        """Ask for everything from the number expected up to `end`."""
        self.ask(self.inbound.request(end, self.now.mono_ns))

    def ask(self, asked: tuple[int, int]) -> None:
        """Send the ResendRequest for a range that `Inbound` has noted."""
        begin, to = asked
        missing = self.inbound.missing
        assert missing is not None
        self.effects.append(Gap(begin, missing.end))
        self.send_session(tags.RESEND_REQUEST, [(tags.BEGIN_SEQ_NO, str(begin)), (tags.END_SEQ_NO, str(to))])

    def advance_replay(self) -> None:
        """Send the next part of a resend, if it is due."""
        if self.outbound.replay is None:
            return
        sent = self.outbound.advance(self.now, self.inbound.next_in)
        if sent:
            self.effects.extend(sent)
            self.last_out_ns = self.now.mono_ns

    def end(self, text: str) -> None:
        """Logout with a text and disconnect at once."""
        self.send_session(tags.LOGOUT, text_pair(text))
        self.effects.append(LoggedOut(text))
        self.disconnect(text)

    def disconnect(self, reason: str) -> None:
        """Have the connection closed; from here on nothing is sent."""
        self.state = State.DISCONNECTED
        self.outbound.forget()
        self.effects.append(Disconnect(reason))

    def reset_numbers(self) -> list[Stored]:
        """Begin at 1 on both sides; gives what was never offered to the other and is to be sent anew."""
        store = self.store
        missed: list[Stored] = []
        self.outbound.forget()
        if self.config.on_reset is OnReset.RENUMBER and store.unsent_from:
            missed = list(store.load_out(store.unsent_from, store.next_out - 1))
        store.reset(self.now.wall_ns)
        self.inbound.restart(1)
        return missed


def text_pair(text: str) -> list[Pair]:
    """Give Text (58), or nothing where there is nothing to say."""
    return [(tags.TEXT, text)] if text else []


def nanoseconds(seconds: float) -> int:
    """Convert a setting to the clock's unit."""
    return int(seconds * SECOND_NS)
