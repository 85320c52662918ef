"""A peer without network or clock: one session with an application that echoes orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession.clock import SECOND_NS, Now
from fixsession.codec import split_header
from fixsession.config import Role
from fixsession.effects import Deliver, Disconnect, Transmit
from fixsession.errors import FixError
from fixsession.message import Message
from fixsession.session import Session
from fixsession.store import MemoryStore

if TYPE_CHECKING:
    from fixsession.config import SessionConfig
    from fixsession.effects import Effect
    from fixsession.store import SessionStore

_START_NS = 1_700_000_000 * SECOND_NS
_CLORDID = 11


class MemoryPeer:
    """Plays an acceptor's owner, or an initiator's, in simulated time: waiting costs nothing.

    Application messages come back as they are; one with PossResend (97=Y) and a known ClOrdID (11) does not.
    A second connection for a live session is dropped at once and consumes no number.
    """

    def __init__(self, config: SessionConfig, *, store: SessionStore | None = None) -> None:
        self.session = Session(config, store or MemoryStore())
        self.effects: list[Effect] = []
        self.delivered: list[Deliver] = []
        self._live: str | None = None
        self._outbox: dict[str, bytearray] = {}
        self._closed: set[str] = set()
        self._mono_ns = SECOND_NS
        self._known: set[str] = set()

    def now(self) -> Now:
        """Give the simulated instant."""
        return Now(self._mono_ns, _START_NS + self._mono_ns)

    def wall_ns(self) -> int:
        """Unix time, simulated."""
        return self.now().wall_ns

    def connect(self, name: str, gateway: str = "") -> None:
        """Open a connection; an initiator session logs on over it. There is one gateway only."""
        if gateway:
            raise FixError(f"gateway {gateway!r}: a session in memory has one gateway only")
        self._outbox[name] = bytearray()
        self._closed.discard(name)
        if self.session.is_connected:
            self._closed.add(name)
            return
        self._live = name
        self._carry_out(self.session.connected(self.now()))

    def send(self, name: str, data: bytes) -> None:
        """Hand bytes to the session."""
        if name == self._live:
            self._carry_out(self.session.received(data, self.now()))

    def receive(self, name: str, limit_s: float) -> bytes | None:
        """Give what came; simulated time runs until something does, or the limit."""
        end_ns = self._mono_ns + int(limit_s * SECOND_NS)
        while not self._outbox[name] and name not in self._closed:
            due = self.session.deadline()
            if due is None or due > end_ns:
                self._mono_ns = end_ns
                return None
            self._mono_ns = max(self._mono_ns, due)
            self._carry_out(self.session.tick(self.now()))
        data = bytes(self._outbox[name])
        self._outbox[name].clear()
        return data

    def disconnect(self, name: str) -> None:
        """Close a connection."""
        self._closed.add(name)
        if name == self._live:
            self._live = None
            self._carry_out(self.session.disconnected(self.now()))

    def wait(self, seconds: float) -> None:
        """Let simulated time pass, with all that is due in it."""
        end_ns = self._mono_ns + int(seconds * SECOND_NS)
        while (due := self.session.deadline()) is not None and due <= end_ns:
            self._mono_ns = max(self._mono_ns, due)
            self._carry_out(self.session.tick(self.now()))
        self._mono_ns = end_ns

    def _carry_out(self, effects: list[Effect]) -> None:
        todo = list(effects)
        while todo:
            effect = todo.pop(0)
            self.effects.append(effect)
            if isinstance(effect, Transmit) and self._live is not None:
                self._outbox[self._live] += effect.data
            elif isinstance(effect, Deliver):
                todo += self._echo(effect)
            elif isinstance(effect, Disconnect) and self._live is not None:
                self._closed.add(self._live)
                self._live = None
        self.session.commit(self.now())

    def _echo(self, effect: Deliver) -> list[Effect]:
        self.delivered.append(effect)
        message = effect.message
        order = message.get(_CLORDID) or ""
        if self.session.config.role is Role.INITIATOR or (effect.poss_resend and order in self._known):
            return []
        self._known.add(order)
        _, body = split_header(message.pairs)
        return self.session.send(Message.of(message.msg_type, body), self.now())
