"""What time does to a conversation: heartbeats, time-outs, slow replays, the end of the session window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixsession import tags
from fixsession.conversation import State, nanoseconds
from fixsession.effects import LoggedOut

if TYPE_CHECKING:
    from fixsession.conversation import Conversation

_PATIENCE = 1.2  # "HeartBtInt plus some reasonable transmission time"


def start(c: Conversation) -> None:
    """Start the clocks of a new connection; begin at 1 where the store is new or of an earlier window."""
    store, schedule, now = c.store, c.schedule, c.now
    c.since_ns = c.last_in_ns = c.last_out_ns = now.mono_ns
    c.test_sent_ns = c.closes_ns = 0
    created = store.created_wall_ns
    unused = created == 0 and store.next_in == store.next_out == 1
    if unused or (schedule and created and schedule.is_stale(created, now.wall_ns)):
        store.reset(now.wall_ns)
    if schedule:
        c.closes_ns = max(1, now.mono_ns + schedule.end_ns(now.wall_ns) - now.wall_ns)


def tick(c: Conversation) -> None:
    """Do what is due now."""
    if c.state is State.ACTIVE:
        _tick_active(c, c.now.mono_ns)
        return
    due = deadline(c)
    if due is None or c.now.mono_ns < due:
        return
    if c.state is State.LOGOUT_SENT:
        c.effects.append(LoggedOut("no answer to Logout"))
        c.disconnect("no answer to Logout within the time limit")
    else:
        c.disconnect("no Logon within the time limit")


def deadline(c: Conversation) -> int | None:
    """When `tick` is due."""
    if c.state is State.DISCONNECTED:
        return None
    if c.state is State.LOGOUT_SENT:
        return c.since_ns + nanoseconds(c.config.logout_timeout_s)
    if c.state is not State.ACTIVE:
        return c.since_ns + nanoseconds(c.config.logon_timeout_s)
    return min(_active_deadlines(c), default=None)


def _active_deadlines(c: Conversation) -> list[int]:
    found = [c.closes_ns] if c.closes_ns else []
    if c.heartbeat_s:
        found.append(c.last_out_ns + nanoseconds(c.heartbeat_s))
        found.append((c.test_sent_ns or c.last_in_ns) + nanoseconds(c.heartbeat_s * _PATIENCE))
    if c.outbound.replay:
        found.append(c.outbound.replay.due_ns)
    if c.inbound.missing and c.config.request_again_s:
        found.append(c.inbound.missing.since_ns + nanoseconds(c.config.request_again_s))
    return found


def _tick_active(c: Conversation, now_ns: int) -> None:
    if c.closes_ns and now_ns >= c.closes_ns:
        c.end("session window closed")
        return
    if c.heartbeat_s and not _counterparty_lives(c, now_ns):
        c.effects.append(LoggedOut("heartbeat time-out"))
        c.disconnect("no answer to TestRequest within the time limit")
        return
    c.advance_replay()
    missing, again_ns = c.inbound.missing, nanoseconds(c.config.request_again_s)
    if missing and again_ns and now_ns >= missing.since_ns + again_ns:
        c.request(missing.end)
    if c.heartbeat_s and now_ns >= c.last_out_ns + nanoseconds(c.heartbeat_s):
        c.send_session(tags.HEARTBEAT, [])


def _counterparty_lives(c: Conversation, now_ns: int) -> bool:
    """Whether it was heard, or may still answer a TestRequest."""
    patience = nanoseconds(c.heartbeat_s * _PATIENCE)
    if c.test_sent_ns:
        return now_ns < c.test_sent_ns + patience
    if now_ns >= c.last_in_ns + patience:
        c.test_sent_ns = now_ns
        c.send_session(tags.TEST_REQUEST, [(tags.TEST_REQ_ID, f"T{c.store.next_out}")])
    return True
