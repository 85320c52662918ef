"""What distinguishes one session from another."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fixsession.errors import FixError


class Role(StrEnum):
    """Who sends the first Logon."""

    ACCEPTOR = "acceptor"
    INITIATOR = "initiator"


class Refusal(StrEnum):
    """How a ResendRequest is refused."""

    NO = "no"
    REJECT = "reject"  # session Reject: the requester knows
    GAP_FILL = "gap_fill"  # one SequenceReset-GapFill over the range: the messages are lost
    IGNORE = "ignore"


class OverLimit(StrEnum):
    """What a ResendRequest for more than `max_resend` messages gets."""

    REJECT = "reject"
    PARTIAL = "partial"  # the first `max_resend`; the requester has to ask again


class OnReset(StrEnum):
    """What becomes of messages numbered while nobody was logged on, when the counterparty resets (141=Y)."""

    DROP = "drop"
    RENUMBER = "renumber"


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one session; the figures in brackets of FIX.md are the defaults."""

    sender: str
    """Our CompID: 49 of what we send, 56 of what we receive."""
    target: str
    role: Role = Role.ACCEPTOR
    begin_string: str = "FIX.4.4"
    heartbeat_s: int = 5
    """HeartBtInt (108) that an initiator proposes; an acceptor adopts the initiator's. 0: none."""
    reset_on_logon: bool = False
    """Initiator: log on with 141=Y. Acceptor: answer every Logon with 141=Y, from 1 on both sides."""
    on_reset: OnReset = OnReset.DROP
    next_expected: bool = False
    """Send and honour NextExpectedMsgSeqNum (789)."""
    last_processed: bool = False
    """Send LastMsgSeqNumProcessed (369) on every message."""
    logon_timeout_s: float = 10.0
    logout_timeout_s: float = 2.0
    sending_time_tolerance_s: float = 120.0
    """Largest difference of 52 to our clock; 0 switches the check off."""
    max_resend: int = 2500
    """Most messages that one ResendRequest is served with; 0: no limit."""
    over_limit: OverLimit = OverLimit.REJECT
    resend_window_s: float = 172_800.0
    """Older messages are gap-filled instead of resent; 0: no limit."""
    refuse_resend: Refusal = Refusal.NO
    resend_batch: int = 0
    """Slow replay: that many messages every `resend_interval_s`; 0: all at once."""
    resend_interval_s: float = 0.05
    live_during_resend: bool = True
    """Whether new messages go out in between a slow replay, or after it."""
    request_chunk: int = 2500
    """A larger gap is asked for in pieces of this size; the last piece with 16=0. 0: never in pieces."""
    request_again_s: float = 10.0
    """Ask again when a gap made no progress for so long; 0: never."""
    max_queue: int = 100_000
    """Messages kept behind a gap; later ones are dropped and asked for when the gap is closed."""

    def __post_init__(self) -> None:
        """Refuse settings with which no session can work."""
        if not self.sender or not self.target or "\x01" in self.sender + self.target:
            raise FixError(
                "SessionConfig: sender and target must be CompIDs; give both, without control characters"
            )
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise FixError(f"SessionConfig: {name} is negative; give 0 or more")


_NOT_NEGATIVE = (
    "heartbeat_s",
    "logon_timeout_s",
    "logout_timeout_s",
    "sending_time_tolerance_s",
    "max_resend",
    "resend_window_s",
    "resend_batch",
    "resend_interval_s",
    "request_chunk",
    "request_again_s",
    "max_queue",
)
