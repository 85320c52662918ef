"""FIX 4.4 session layer without I/O: bytes and clock in, bytes and events out."""

from fixsession.acceptor import BadLogons, Identity, first_frame, identify
from fixsession.clock import Now, format_utc, parse_utc
from fixsession.codec import Framer, Garbled, decode, encode
from fixsession.config import OnReset, OverLimit, Refusal, Role, SessionConfig
from fixsession.conversation import State
from fixsession.effects import (
    Deliver,
    Disconnect,
    Effect,
    Gap,
    LoggedOn,
    LoggedOut,
    Rejected,
    Transmit,
    Warning,  # noqa: A004  # the field's own word
)
from fixsession.errors import FixError
from fixsession.filestore import FileStore, Fsync
from fixsession.message import Message
from fixsession.schedule import Schedule
from fixsession.session import Session
from fixsession.store import MemoryStore, SessionStore, StoreControls, Stored

__all__ = [
    "BadLogons",
    "Deliver",
    "Disconnect",
    "Effect",
    "FileStore",
    "FixError",
    "Framer",
    "Fsync",
    "Gap",
    "Garbled",
    "Identity",
    "LoggedOn",
    "LoggedOut",
    "MemoryStore",
    "Message",
    "Now",
    "OnReset",
    "OverLimit",
    "Refusal",
    "Rejected",
    "Role",
    "Schedule",
    "Session",
    "SessionConfig",
    "SessionStore",
    "State",
    "StoreControls",
    "Stored",
    "Transmit",
    "Warning",
    "decode",
    "encode",
    "first_frame",
    "format_utc",
    "identify",
    "parse_utc",
]
