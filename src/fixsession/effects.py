"""What the session asks its owner to do, in the order in which it is to be done."""

from __future__ import annotations

import msgspec

from fixsession.message import Message  # noqa: TC001  # msgspec reads the annotations


class Transmit(msgspec.Struct, frozen=True, tag=True):
    """Write `data` to the connection. `resend`: it went out before under this number, or fills a gap."""

    data: bytes
    seq_num: int
    msg_type: str
    resend: bool = False


class Deliver(msgspec.Struct, frozen=True, tag=True):
    """Hand an application message to the application; then call `Session.commit`.

    `poss_dup`: PossDupFlag was set; the number is new to this session, but after a crash the application may
    have seen it. `poss_resend`: the sender may have sent it under another number.
    """

    message: Message
    seq_num: int
    poss_dup: bool = False
    poss_resend: bool = False


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The counterparty refused our message `ref_seq_num` with a session Reject (35=3)."""

    ref_seq_num: int | None
    reason: str
    text: str


class LoggedOn(msgspec.Struct, frozen=True, tag=True):
    """The logon handshake is complete. `reset`: both sides began again at 1."""

    reset: bool
    heartbeat_s: int


class LoggedOut(msgspec.Struct, frozen=True, tag=True):
    """The session ended by Logout; `text` is the counterparty's reason or ours."""

    text: str


class Disconnect(msgspec.Struct, frozen=True, tag=True):
    """Close the connection after writing what was transmitted before; nothing more will be."""

    reason: str


class Warning(msgspec.Struct, frozen=True, tag=True):  # noqa: A001  # the field's own word
    """Something to log; nothing is to be done."""

    text: str


class Gap(msgspec.Struct, frozen=True, tag=True):
    """Messages `begin` to `end` are missing and were asked for; what follows them is queued."""

    begin: int
    end: int


Effect = Transmit | Deliver | Rejected | LoggedOn | LoggedOut | Disconnect | Warning | Gap
