"""Pure checks of a received message against the session's settings; each says what is wrong, if anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession import tags
from fixsession.clock import SECOND_NS, parse_utc
from fixsession.message import number

if TYPE_CHECKING:
    from fixsession.config import SessionConfig
    from fixsession.message import Message

Problem = tuple[int, int, str]  # SessionRejectReason (373), RefTagID (371) or 0, text


def identity_problem(message: Message, config: SessionConfig) -> str:
    """Whether the CompIDs are those of this session."""
    sender, target = message.get(tags.SENDER), message.get(tags.TARGET)
    if sender == config.target and target == config.sender:
        return ""
    return f"CompID problem: expected {config.target} to {config.sender}, received {sender} to {target}"


def time_problem(message: Message, config: SessionConfig, wall_ns: int) -> Problem | None:
    """Whether SendingTime (52) is there and near enough to our clock."""
    text = message.get(tags.SENDING_TIME)
    if text is None:
        return tags.REQUIRED_MISSING, tags.SENDING_TIME, "required tag missing"
    tolerance_ns = config.sending_time_tolerance_s * SECOND_NS
    if not tolerance_ns:
        return None
    sent = parse_utc(text)
    if sent is None or abs(sent - wall_ns) > tolerance_ns:
        return tags.SENDING_TIME_PROBLEM, tags.SENDING_TIME, "SendingTime accuracy problem"
    return None


def duplicate_problem(message: Message) -> Problem | None:
    """Whether a message with 43=Y has an OrigSendingTime (122) not later than its SendingTime (52)."""
    original = message.get(tags.ORIG_SENDING_TIME)
    if original is None:
        if message.msg_type == tags.SEQUENCE_RESET:
            return None
        return tags.REQUIRED_MISSING, tags.ORIG_SENDING_TIME, "required tag missing"
    first, sent = parse_utc(original), parse_utc(message.get(tags.SENDING_TIME) or "")
    if first is None or sent is None or first > sent:
        return tags.SENDING_TIME_PROBLEM, tags.ORIG_SENDING_TIME, "OrigSendingTime is later than SendingTime"
    return None


def value_problem(message: Message) -> Problem | None:
    """Whether every field has a value."""
    if b"=\x01" in message.raw:
        for tag, value in message.pairs:
            if not value:
                return tags.NO_VALUE, tag, "tag specified without a value"
    return None


def logon_problem(message: Message, config: SessionConfig, wall_ns: int) -> str:
    """Why this first message does not open the session; empty where it does."""
    if message.msg_type != tags.LOGON:
        return f"first message is of type {message.msg_type!r}, not a Logon"
    if message.get(tags.BEGIN_STRING) != config.begin_string:
        return f"BeginString is {message.get(tags.BEGIN_STRING)}, not {config.begin_string}"
    time = time_problem(message, config, wall_ns)
    text = identity_problem(message, config) or (time[2] if time else "")
    return text or _logon_field_problem(message)


def _logon_field_problem(message: Message) -> str:
    if message.seq_num is None:
        return "Logon without MsgSeqNum (34)"
    if number(message.get(tags.HEART_BT_INT), minimum=0) is None:
        return "Logon without a HeartBtInt (108) of 0 or more"
    if message.get(tags.ENCRYPT_METHOD) not in (None, "0"):
        return "Logon asks for encryption (98); only 0 is supported"
    if message.get(tags.RESET_SEQ_NUM) == "Y" and message.seq_num != 1:
        return "Logon with ResetSeqNumFlag (141=Y) must have MsgSeqNum (34) 1"
    return ""
