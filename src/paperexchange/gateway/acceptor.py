"""Takes connections on a gateway's port and hands each to the session that its Logon names."""

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple

from fixsession.acceptor import BadLogons, first_frame, identify
from fixsession.clock import Now
from fixsession.codec import Garbled
from paperexchange import facts as f
from paperexchange.gateway.host import SessionHost
from paperexchange.gateway.wire import Arrival, Connection, Listener

_LOGON_PATIENCE_S = 10.0


class BadLogonRule(NamedTuple):
    """So many bad logons within `window_s` close the port for `closed_s`."""

    limit: int
    window_s: float
    closed_s: float

    def counter(self) -> BadLogons:
        """Begin to count."""
        return BadLogons(limit=self.limit, window_s=self.window_s)


class Acceptor:
    """One gateway: its listener and the sessions that may log on there."""

    def __init__(
        self,
        gateway: str,
        hosts: dict[str, SessionHost],
        *,
        comp_id: str,
        address: tuple[str, int],
        next_conn: Callable[[], int],
        record: Callable[[f.Fact], None],
        clock: Callable[[], Now],
        bad_logons: BadLogonRule | None = None,
    ) -> None:
        """`hosts` is keyed by the member's CompID."""
        self.gateway = gateway
        self.hosts = hosts
        self._comp_id = comp_id
        self._next_conn = next_conn
        self._record = record
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._rule = bad_logons
        self._bad = bad_logons.counter() if bad_logons else None
        self._pending: dict[Connection, bytes] = {}
        self._up = True
        self._listener = Listener(*address, self._accept)
        self.endpoint = self._listener.endpoint

    def _accept(self, sock: socket.socket) -> None:
        conn = Connection(sock, self._next_conn(), on_data=self._on_data, on_closed=self._on_closed)
        self._pending[conn] = b""
        conn.start()
        self._loop.call_later(_LOGON_PATIENCE_S, self._give_up, conn)

    def _give_up(self, conn: Connection) -> None:
        if conn in self._pending:
            self._refuse(conn, "no Logon within the time limit", bad=False)

    def _on_closed(self, conn: Connection, _: str) -> None:
        self._pending.pop(conn, None)

    def _on_data(self, conn: Connection, data: bytes, arrival: Arrival) -> None:
        now = self._clock()
        self._record(
            f.BytesReceived(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                conn=conn.number,
                data=data,
                received_mono_ns=arrival.mono_ns,
                received_stamp=arrival.stamp,
            )
        )
        self._pending[conn] += data
        message = first_frame(self._pending[conn])
        if message is None:
            return
        identity = None if isinstance(message, Garbled) else identify(message)
        if identity is None:
            self._refuse(conn, "the first message is no Logon")
            return
        host = self.hosts.get(identity.sender)
        if host is None or identity.target != self._comp_id:
            self._refuse(conn, f"unknown CompIDs {identity.sender} to {identity.target}")
        elif host.conn is not None:
            self._refuse(conn, f"session {host.name} is live on connection {host.conn.number}")
        elif now.mono_ns < host.refuse_until_ns:
            self._refuse(conn, "logons are refused by request", bad=False)
        else:
            received = self._pending.pop(conn)
            host.attach(conn, now)
            host.received(received, arrival, now)
            if not host.logged_on:  # the session itself found fault with the Logon
                self._count_bad(now)

    def _refuse(self, conn: Connection, reason: str, *, bad: bool = True) -> None:
        now = self._clock()
        self._record(
            f.ConnectionRefused(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                gateway=self.gateway,
                conn=conn.number,
                reason=reason,
            )
        )
        if bad:
            self._count_bad(now)
        conn.close(reason)

    def _count_bad(self, now: Now) -> None:
        if self._rule is None or self._bad is None or not self._bad.add(now.mono_ns):
            return
        self._listener.close()
        self._bad = self._rule.counter()
        self._loop.call_later(self._rule.closed_s, self._reopen)

    def _reopen(self) -> None:
        if self._up:
            self._listener.reopen()

    def down(self, reason: str) -> None:
        """Accept no more, and cut off whoever is there, until `up`: the gateway is gone."""
        self._up = False
        self._listener.close()
        for conn in list(self._pending):
            conn.close(reason)
        for host in self.hosts.values():
            host.cut(reason)

    def up(self) -> None:
        """Accept again, where it was. Idempotent."""
        self._up = True
        self._listener.reopen()

    def close(self) -> None:
        """Accept no more, drop what has not logged on."""
        self._up = False
        self._listener.close()
        for conn in list(self._pending):
            conn.close("the exchange ends")
