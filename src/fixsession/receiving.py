"""What a received message does to a conversation that is logged on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession import checks, tags
from fixsession.config import OverLimit, Refusal
from fixsession.conversation import State
from fixsession.effects import Deliver, LoggedOut, Rejected, Warning  # noqa: A004
from fixsession.handshake import on_reset_logon
from fixsession.message import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixsession.checks import Problem
    from fixsession.conversation import Conversation
    from fixsession.message import Message


def on_message(c: Conversation, message: Message) -> None:
    """Check what every message must have, then deal with it."""
    problem = checks.time_problem(message, c.config, c.now.wall_ns)
    identity = checks.identity_problem(message, c.config)
    seq_num = message.seq_num
    if message.get(tags.BEGIN_STRING) != c.config.begin_string:
        c.end(f"incorrect BeginString {message.get(tags.BEGIN_STRING)}")
    elif seq_num is None:
        c.end("received a message without MsgSeqNum")
    elif identity or problem:
        _count(c, seq_num)
        found = (tags.COMP_ID_PROBLEM, 0, identity) if identity or not problem else problem
        c.send_reject(message, found)
        c.end(found[2])
    else:
        _on_sound_message(c, message, message.msg_type, seq_num)


def _count(c: Conversation, seq_num: int) -> None:
    """Count a message that is dealt with out of order, if it is its turn."""
    if seq_num == c.inbound.next_in:
        c.inbound.next_in += 1


def _on_sound_message(c: Conversation, message: Message, msg_type: str, seq_num: int) -> None:
    inbound = c.inbound
    if msg_type == tags.SEQUENCE_RESET and message.get(tags.GAP_FILL) != "Y":
        _on_reset(c, message)
    elif msg_type == tags.LOGOUT:
        _on_logout(c, message, seq_num)
    elif msg_type == tags.LOGON and message.get(tags.RESET_SEQ_NUM) == "Y":
        on_reset_logon(c, message)
    elif seq_num == inbound.next_in:
        _process(c, message, msg_type, seq_num)
    elif seq_num < inbound.next_in:
        _on_too_low(c, message, seq_num)
    else:
        _on_too_high(c, message, msg_type, seq_num)
    if inbound.queue or inbound.missing:
        _catch_up(c)


def _process(c: Conversation, message: Message, msg_type: str, seq_num: int) -> None:
    """Deal with the message whose turn it is."""
    if msg_type == tags.SEQUENCE_RESET:
        _on_gap_fill(c, message, seq_num)
        return
    c.inbound.next_in = seq_num + 1
    poss_dup = message.poss_dup
    problem = checks.value_problem(message) or (checks.duplicate_problem(message) if poss_dup else None)
    if problem:
        c.send_reject(message, problem)
        if problem[0] == tags.SENDING_TIME_PROBLEM:
            c.end(problem[2])
    elif msg_type in tags.SESSION_TYPES:
        _HANDLERS[msg_type](c, message)
    else:
        c.effects.append(Deliver(message, seq_num, poss_dup, message.poss_resend))


def _catch_up(c: Conversation) -> None:
    """Process what waited, and ask for the next piece or the next gap."""
    inbound = c.inbound
    while c.is_connected and (message := inbound.take()):
        msg_type = message.msg_type
        if msg_type in _SERVED_AT_ONCE:
            inbound.next_in += 1
        else:
            _process(c, message, msg_type, inbound.next_in)
    if c.is_connected and (asked := inbound.due_request(c.now.mono_ns)):
        c.ask(asked)


def _on_too_low(c: Conversation, message: Message, seq_num: int) -> None:
    if not message.poss_dup:
        c.end(f"MsgSeqNum too low, expecting {c.inbound.next_in} but received {seq_num}")
        return
    problem = checks.duplicate_problem(message)
    if problem:
        c.send_reject(message, problem)
        if problem[0] == tags.SENDING_TIME_PROBLEM:
            c.end(problem[2])


def _on_too_high(c: Conversation, message: Message, msg_type: str, seq_num: int) -> None:
    if msg_type == tags.RESEND_REQUEST:  # waiting for each other would last for ever
        _on_resend_request(c, message)
    c.inbound.keep(seq_num, message)
    if c.inbound.missing is None:
        c.request(seq_num - 1)


def _on_test_request(c: Conversation, message: Message) -> None:
    test_id = message.get(tags.TEST_REQ_ID)
    if test_id is None:
        c.send_reject(message, (tags.REQUIRED_MISSING, tags.TEST_REQ_ID, "required tag missing"))
    else:
        c.send_session(tags.HEARTBEAT, [(tags.TEST_REQ_ID, test_id)])


def _on_reject(c: Conversation, message: Message) -> None:
    ref = number(message.get(tags.REF_SEQ_NUM))
    reason, text = message.get(tags.REJECT_REASON) or "", message.get(tags.TEXT) or ""
    c.effects.append(Rejected(ref, reason, text))


def _on_second_logon(c: Conversation, message: Message) -> None:
    c.send_reject(message, (tags.OTHER, 0, "Logon on a session that is logged on"))


def _on_logout(c: Conversation, message: Message, seq_num: int) -> None:
    _count(c, seq_num)
    if c.state is State.ACTIVE:
        c.send_session(tags.LOGOUT, [])
    c.effects.append(LoggedOut(message.get(tags.TEXT) or ""))
    c.disconnect("Logout")


def _on_resend_request(c: Conversation, message: Message) -> None:
    begin = number(message.get(tags.BEGIN_SEQ_NO))
    end = number(message.get(tags.END_SEQ_NO), minimum=0)
    if begin is None or end is None:
        tag = tags.BEGIN_SEQ_NO if begin is None else tags.END_SEQ_NO
        c.send_reject(message, (tags.REQUIRED_MISSING, tag, "required tag missing or no number"))
        return
    last = c.store.next_out - 1
    end = min(end, last) if end else last
    refusal = c.config.refuse_resend
    if refusal is Refusal.IGNORE:
        c.effects.append(Warning(f"ResendRequest {begin}-{end} ignored by configuration"))
    elif problem := _resend_problem(c, begin, end, refusal):
        c.send_reject(message, problem)
    else:
        if c.config.max_resend:
            end = min(end, begin + c.config.max_resend - 1)
        c.outbound.begin_replay(begin, end, c.now)
        c.advance_replay()


def _resend_problem(c: Conversation, begin: int, end: int, refusal: Refusal) -> Problem | None:
    if refusal is Refusal.REJECT:
        return tags.OTHER, 0, "ResendRequest refused"
    if end < begin:
        return tags.VALUE_INCORRECT, tags.BEGIN_SEQ_NO, f"nothing to resend from {begin}"
    limit = c.config.max_resend
    if limit and end - begin + 1 > limit and c.config.over_limit is OverLimit.REJECT:
        return tags.VALUE_INCORRECT, tags.END_SEQ_NO, f"at most {limit} messages per ResendRequest"
    return None


def _on_gap_fill(c: Conversation, message: Message, seq_num: int) -> None:
    new = number(message.get(tags.NEW_SEQ_NO))
    if new is None:
        c.send_reject(message, (tags.REQUIRED_MISSING, tags.NEW_SEQ_NO, "required tag missing"))
    elif new <= seq_num:
        text = f"attempt to lower sequence number, invalid value NewSeqNo={new}"
        c.send_reject(message, (tags.VALUE_INCORRECT, tags.NEW_SEQ_NO, text))
    else:
        c.inbound.jump(new)


def _on_reset(c: Conversation, message: Message) -> None:
    """Obey a SequenceReset-Reset, whose own number does not matter."""
    new, expected = number(message.get(tags.NEW_SEQ_NO)), c.inbound.next_in
    if new is None:
        c.send_reject(message, (tags.REQUIRED_MISSING, tags.NEW_SEQ_NO, "required tag missing"))
    elif new < expected:
        text = f"attempt to lower sequence number, invalid value NewSeqNo={new}"
        c.send_reject(message, (tags.VALUE_INCORRECT, tags.NEW_SEQ_NO, text))
    elif new == expected:
        c.effects.append(Warning(f"SequenceReset to {new}, which is expected anyway"))
    else:
        c.inbound.jump(new)


def _ignore(_: Conversation, __: Message) -> None:
    """Do nothing: a Heartbeat has done its work by arriving."""


_SERVED_AT_ONCE = frozenset({tags.RESEND_REQUEST, tags.LOGON})
_HANDLERS: dict[str, Callable[[Conversation, Message], None]] = {
    tags.HEARTBEAT: _ignore,
    tags.LOGON: _on_second_logon,
    tags.TEST_REQUEST: _on_test_request,
    tags.RESEND_REQUEST: _on_resend_request,
    tags.REJECT: _on_reject,
}
