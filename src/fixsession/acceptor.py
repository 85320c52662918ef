"""What a listening socket needs before the session is known: who calls, and how often in vain."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from fixsession import tags
from fixsession.clock import SECOND_NS
from fixsession.codec import Framer, Garbled, decode
from fixsession.errors import FixError

if TYPE_CHECKING:
    from fixsession.message import Message


class Identity(NamedTuple):
    """The CompIDs of a first message: its SenderCompID (49) and TargetCompID (56)."""

    sender: str
    target: str


def first_frame(data: bytes) -> Message | Garbled | None:
    """Find the first message in what a new connection sent so far; None: wait for more.

    The session that is found with it is then given all of `data`.
    """
    for frame in Framer().feed(data):
        if isinstance(frame, Garbled):
            return frame
        try:
            return decode(frame)
        except FixError as error:
            return Garbled(str(error), frame)
    return None


def identify(message: Message) -> Identity | None:
    """Who calls, if this is a Logon that names both sides; else the connection is to be dropped."""
    sender, target = message.get(tags.SENDER), message.get(tags.TARGET)
    if message.msg_type != tags.LOGON or not sender or not target:
        return None
    return Identity(sender, target)


class BadLogons:
    """Counts bad logons; too many within the window close the port (FIX.md item 12: five in 60 s)."""

    def __init__(self, *, limit: int = 5, window_s: float = 60.0) -> None:
        self._window_ns = int(window_s * SECOND_NS)
        self._at: deque[int] = deque(maxlen=limit)

    def add(self, mono_ns: int) -> bool:
        """Note a bad logon; whether the port is to be closed."""
        self._at.append(mono_ns)
        return self.closed(mono_ns)

    def closed(self, mono_ns: int) -> bool:
        """Whether the port stays closed: the latest `limit` bad logons began within the window before now."""
        full = len(self._at) == self._at.maxlen
        return full and mono_ns - self._at[0] < self._window_ns
