"""One TCP connection: reads with the kernel's receive stamp, ordered writes, and its bad manners.

Reading with `recvmsg` keeps the time at which the bytes reached the host apart from the time at which this
process found leisure to read them; order flow is timed by the former.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from paperexchange import clock

_SO_TIMESTAMPNS: Final = 35
_READ: Final = 1 << 18
_TIMESPEC: Final = struct.Struct("qq")
_SECOND_NS: Final = 1_000_000_000


class Arrival(NamedTuple):
    """When bytes arrived, on CLOCK_MONOTONIC, and who says so.

    One read can hold several messages; the stamp is that of the last segment.
    """

    mono_ns: int
    stamp: Literal["kernel", "user"]


OnData = Callable[["Connection", bytes, Arrival], None]
OnClosed = Callable[["Connection", str], None]


class Connection:
    """`number` grows by one for each connection of an exchange, over restarts too."""

    def __init__(self, sock: socket.socket, number: int, *, on_data: OnData, on_closed: OnClosed) -> None:
        """Take over `sock`; nothing is read before `start`."""
        self.sock = sock
        self.number = number
        self.on_data = on_data
        self.on_closed = on_closed
        self.closing_mono_ns = 0  # the close took place between this and `closed_mono_ns`
        self.closed_mono_ns = 0
        self.bytes_per_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._reading = False
        self._close_when_sent = ""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # not Linux: stamps come from user space
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    @property
    def open(self) -> bool:
        """Whether the socket is still ours."""
        return not self.closed_mono_ns

    def start(self) -> None:
        """Read from now on."""
        if self.open and not self._reading:
            self._reading = True
            self._loop.add_reader(self.sock, self._readable)

    def pause(self) -> None:
        """Leave what comes in the kernel's buffer."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.sock)

    def throttle(self, bytes_per_s: float) -> None:
        """Read no faster than that; 0 lifts the limit."""
        self.bytes_per_s = bytes_per_s
        if not bytes_per_s:
            self.start()

    def _readable(self) -> None:
        size = _READ if not self.bytes_per_s else max(1, int(self.bytes_per_s / 20))
        try:
            data, ancillary, _, _ = self.sock.recvmsg(size, 64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"read failed: {error.strerror or error}")
            return
        if not data:
            self.close("closed by the member")
            return
        if self.bytes_per_s:
            self.pause()
            self._loop.call_later(len(data) / self.bytes_per_s, self.start)
        self.on_data(self, data, arrival(ancillary))

    def write(self, data: bytes) -> None:
        """Send in order; what the kernel does not take now follows when it can."""
        if not self.open:
            return
        if not self._unsent:
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self.close(f"write failed: {error.strerror or error}")
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self.sock, self._writable)
        self._unsent += data

    def _writable(self) -> None:
        try:
            sent = self.sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"write failed: {error.strerror or error}")
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self.sock)
            if self._close_when_sent:
                self.close(self._close_when_sent)

    def close_when_sent(self, reason: str) -> None:
        """Close as soon as everything written is with the kernel."""
        if self._unsent:
            self._close_when_sent = reason
        else:
            self.close(reason)

    def close(self, reason: str) -> int:
        """Close now; the CLOCK_MONOTONIC at which the socket was closed. Idempotent."""
        if self.closed_mono_ns:
            return self.closed_mono_ns
        self.pause()
        if self._unsent:
            self._loop.remove_writer(self.sock)
        with contextlib.suppress(OSError):
            # Unread bytes would turn the close into a reset, which can destroy what was sent before it.
            while self.sock.recv(_READ):
                pass
        self.closing_mono_ns = time.monotonic_ns()
        self.sock.close()
        self.closed_mono_ns = time.monotonic_ns()
        self.on_closed(self, reason)
        return self.closed_mono_ns


def arrival(ancillary: list[tuple[int, int, bytes]]) -> Arrival:
    """Move the kernel's stamp to CLOCK_MONOTONIC by the clocks' distance right now."""
    now = clock.now()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
            age_ns = now.wall_ns - (seconds * _SECOND_NS + nanoseconds)
            if 0 <= age_ns < 3600 * _SECOND_NS:
                return Arrival(now.mono_ns - age_ns, "kernel")
    return Arrival(now.mono_ns, "user")


class Listener:
    """Accepts connections; `endpoint` is where."""

    def __init__(self, host: str, port: int, on_accept: Callable[[socket.socket], None]) -> None:
        """Bind at once, so that a port in use shows before anything else happens (OSError)."""
        self._on_accept = on_accept
        self._loop = asyncio.get_running_loop()
        self.endpoint = (host, port)
        self._listen()

    def _listen(self) -> None:
        host, port = self.endpoint
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.setblocking(False)
        try:
            self.sock.bind((host, port))
        except OSError:
            self.sock.close()
            raise
        self.sock.listen(64)
        self.endpoint = self.sock.getsockname()[:2]
        self._loop.add_reader(self.sock, self._acceptable)

    def reopen(self) -> None:
        """Accept again at the same place; nothing where it does already."""
        if self.sock.fileno() < 0:
            self._listen()

    def _acceptable(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            self._on_accept(sock)

    def close(self) -> None:
        """Accept no more."""
        if self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock)
            self.sock.close()
