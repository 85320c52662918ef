"""Sessions over asyncio streams, as small as it can be: for tests, and to be copied from."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fixsession.acceptor import Identity, first_frame, identify
from fixsession.clock import SECOND_NS, Now
from fixsession.effects import Deliver, Disconnect, Transmit
from fixsession.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fixsession.effects import Effect
    from fixsession.session import Session


def system_now() -> Now:
    """Read the machine's clocks."""
    return Now(time.monotonic_ns(), time.time_ns())


def silent(_: Deliver) -> Iterable[Message]:
    """Answer nothing."""
    return ()


class Endpoint:
    """One session and the application behind it: `answer` gives what is sent for each delivered message."""

    def __init__(
        self,
        session: Session,
        *,
        answer: Callable[[Deliver], Iterable[Message]] = silent,
        clock: Callable[[], Now] = system_now,
    ) -> None:
        self.session = session
        self.effects: list[Effect] = []
        self._answer = answer
        self._clock = clock
        self._writer: asyncio.StreamWriter | None = None

    async def run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b""
    ) -> None:
        """Carry the session over one connection, until either side closes it."""
        self._writer = writer
        try:
            self._carry_out(self.session.connected(self._clock()))
            if first:
                self._carry_out(self.session.received(first, self._clock()))
            while self.session.is_connected and await self._once(reader):
                await writer.drain()
        except ConnectionError:
            pass  # the same as a close
        finally:
            self._carry_out(self.session.disconnected(self._clock()))
            self._writer = None
            writer.close()

    async def _once(self, reader: asyncio.StreamReader) -> bool:
        """Wait for bytes or for the time of the next tick; whether the connection still stands."""
        due = self.session.deadline()
        limit_s = None if due is None else max(0.0, (due - self._clock().mono_ns) / SECOND_NS)
        try:
            data = await asyncio.wait_for(reader.read(65536), limit_s)
        except TimeoutError:
            self._carry_out(self.session.tick(self._clock()))
            return True
        self._carry_out(self.session.received(data, self._clock()))
        return bool(data)

    def send(self, message: Message) -> None:
        """Send, or keep for the next logon."""
        self._carry_out(self.session.send(message, self._clock()))

    def logout(self, text: str = "") -> None:
        """Begin the Logout handshake."""
        self._carry_out(self.session.logout(text, self._clock()))

    def cut(self) -> None:
        """Break the connection without a word."""
        if self._writer is not None:
            self._writer.transport.abort()

    def _carry_out(self, effects: list[Effect]) -> None:
        todo = list(effects)
        for effect in todo:  # grows while it is walked through
            self.effects.append(effect)
            if isinstance(effect, Deliver):
                for message in self._answer(effect):
                    todo += self.session.send(message, self._clock())
        self.session.commit(self._clock())
        self.session.store.sync()
        if self._writer is not None:
            self._writer.write(b"".join([effect.data for effect in todo if isinstance(effect, Transmit)]))
            if any(isinstance(effect, Disconnect) for effect in todo):
                self._writer.close()


async def accept(
    endpoints: Mapping[Identity, Endpoint], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Find the session of a new connection by its first message; drop it where there is none, or a live one.

    The keys name the counterparty first: (its CompID, ours).
    """
    data = b""
    first = None
    while first is None and (more := await reader.read(65536)):
        data += more
        first = first_frame(data)
    caller = identify(first) if isinstance(first, Message) else None
    endpoint = endpoints.get(caller) if caller else None
    if endpoint is None or endpoint.session.is_connected:
        writer.close()
        return
    await endpoint.run(reader, writer, data)
