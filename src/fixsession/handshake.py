"""Logon: who is let in, at which numbers, and what is made up for at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession import checks, tags
from fixsession.codec import decode
from fixsession.conversation import State
from fixsession.effects import LoggedOn, LoggedOut, Warning  # noqa: A004
from fixsession.message import number

if TYPE_CHECKING:
    from fixsession.conversation import Conversation
    from fixsession.message import Message
    from fixsession.store import Stored


def on_first_message(c: Conversation, message: Message) -> None:
    """Open the conversation with a sound Logon; anything else is logged and ends the connection."""
    if c.state is State.LOGON_SENT and message.msg_type in (tags.LOGOUT, tags.REJECT):
        text = message.get(tags.TEXT) or ""
        c.effects.append(LoggedOut(text))
        c.disconnect(f"Logon refused: {text}")
        return
    problem = checks.logon_problem(message, c.config, c.now.wall_ns)
    if not problem and c.schedule and not c.schedule.is_open(c.now.wall_ns):
        problem = "outside the session window"
    if problem:
        c.effects.append(Warning(problem))
        c.disconnect(problem)
    elif c.state is State.AWAIT_LOGON:
        _accept_logon(c, message)
    else:
        _complete_logon(c, message)


def _accept_logon(c: Conversation, message: Message) -> None:
    seq_num = int(message.require(tags.MSG_SEQ_NUM))
    asked = message.get(tags.RESET_SEQ_NUM) == "Y"
    reset = asked or c.config.reset_on_logon
    missed = c.reset_numbers() if reset else []
    if reset:
        seq_num = 1
    if not _logon_number_fits(c, message, seq_num, c.store.next_out):
        return
    c.heartbeat_s = int(message.require(tags.HEART_BT_INT))
    high = _place_logon(c, message, seq_num)
    c.state = State.ACTIVE
    before = c.store.next_out
    c.send_logon(reset=reset)
    _begin_active(c, message, high=high, reset=reset, before=before, missed=missed)


def _complete_logon(c: Conversation, message: Message) -> None:
    seq_num = int(message.require(tags.MSG_SEQ_NUM))
    reset = c.reset_asked
    if message.get(tags.RESET_SEQ_NUM) == "Y" and not reset:  # the acceptor's own wish; our Logon was its 1
        c.missed += c.reset_numbers()
        c.store.next_out = 2
        reset = True
    if not _logon_number_fits(c, message, seq_num, c.store.next_out):
        return
    high = _place_logon(c, message, seq_num)
    c.state = State.ACTIVE
    missed, c.missed = c.missed, []
    _begin_active(c, message, high=high, reset=reset, before=c.store.next_out, missed=missed)


def _logon_number_fits(c: Conversation, message: Message, seq_num: int, next_out: int) -> bool:
    expected = number(message.get(tags.NEXT_EXPECTED))
    if seq_num < c.inbound.next_in:
        c.end(f"MsgSeqNum too low, expecting {c.inbound.next_in} but received {seq_num}")
    elif c.config.next_expected and expected and expected > next_out:
        c.end(f"NextExpectedMsgSeqNum too high, expecting {next_out} but received {expected}")
    else:
        return True
    return False


def _place_logon(c: Conversation, message: Message, seq_num: int) -> bool:
    """Count the Logon, or let it wait behind the gap that it shows (True)."""
    if seq_num == c.inbound.next_in:
        c.inbound.next_in += 1
        return False
    c.inbound.keep(seq_num, message)
    return True


def _begin_active(
    c: Conversation, message: Message, *, high: bool, reset: bool, before: int, missed: list[Stored]
) -> None:
    c.effects.append(LoggedOn(reset, c.heartbeat_s))
    for stored in missed:
        again = decode(stored.raw)
        c.send_numbered(again.msg_type, again.pairs)
    expected = number(message.get(tags.NEXT_EXPECTED)) if c.config.next_expected else None
    if expected is not None and expected < before and not reset:
        c.outbound.begin_replay(expected, before - 1, c.now)
        c.advance_replay()
    if not high:
        return
    end = int(message.require(tags.MSG_SEQ_NUM)) - 1
    if expected is None:
        c.request(end)
    else:  # it has our 789 and resends unasked
        c.inbound.expect(end, c.now.mono_ns)


def on_reset_logon(c: Conversation, message: Message) -> None:
    """Begin again at 1 on both sides: a Logon with 141=Y came on a live session."""
    problem = checks.logon_problem(message, c.config, c.now.wall_ns)
    if problem:
        c.end(problem)
        return
    missed = c.reset_numbers()
    c.heartbeat_s = int(message.require(tags.HEART_BT_INT))
    c.inbound.next_in = 2
    c.send_logon(reset=True)
    _begin_active(c, message, high=False, reset=True, before=c.store.next_out, missed=missed)
