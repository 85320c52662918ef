"""Takes connections on a gateway's port and hands each to the session that its Logon names."""

import asyncio
import socket
from collections.abc import Callable

from fixsession.acceptor import BadLogons, first_frame, identify
from fixsession.clock import Now
from fixsession.codec import Garbled
from paperexchange import facts as f
from paperexchange.gateway.host import SessionHost
from paperexchange.gateway.wire import Arrival, Connection, Listener

_LOGON_PATIENCE_S = 10.0
_CLOSED_S = 60.0


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
        bad_logon_limit: int = 0,
    ) -> None:
        """`hosts` is keyed by the member's CompID."""
        self.gateway = gateway
        self.hosts = hosts
        self._comp_id = comp_id
        self._next_conn = next_conn
        self._record = record
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._bad = BadLogons(limit=bad_logon_limit) if bad_logon_limit else None
        self._pending: dict[Connection, bytes] = {}
        self._closed = False
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
        if bad and self._bad is not None and self._bad.add(now.mono_ns):
            self._listener.close()
            self._loop.call_later(_CLOSED_S, self._reopen)
        conn.close(reason)

    def _reopen(self) -> None:
        if not self._closed:
            self._listener = Listener(*self.endpoint, self._accept)

    def close(self) -> None:
        """Accept no more, drop what has not logged on."""
        self._closed = True
        self._listener.close()
        for conn in list(self._pending):
            conn.close("the exchange ends")
