"""What a FIX message costs the session layer: CPU per message sent, and received and committed.

With the store in memory and in a file that is synced in batches. The clock is the process's own CPU time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import TYPE_CHECKING

from fixsession import (
    FileStore,
    MemoryStore,
    Message,
    Now,
    Role,
    Session,
    SessionConfig,
    Transmit,
    format_utc,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixsession import SessionStore


def now() -> Now:
    """Read both clocks."""
    return Now(time.monotonic_ns(), time.time_ns())


def order() -> Message:
    """Make an ordinary order."""
    fields = [(11, "abc"), (1, "FIRM"), (55, "ALFA"), (54, 1), (38, 100), (40, 2), (44, "100.05"), (59, 0)]
    return Message.of("D", [*fields, (60, format_utc(time.time_ns()))])


def logged_on(make: Callable[[str], SessionStore]) -> tuple[Session, Session]:
    """Return acceptor and initiator after their logons."""
    acceptor = Session(SessionConfig(sender="PAPEREX", target="FIRM"), make("acceptor"))
    initiator = Session(
        SessionConfig(sender="FIRM", target="PAPEREX", role=Role.INITIATOR), make("initiator")
    )
    acceptor.connected(now())
    sides, turn, effects = (acceptor, initiator), 0, initiator.connected(now())
    while effects:
        sent = [effect for effect in effects if isinstance(effect, Transmit)]
        effects = [answer for effect in sent for answer in sides[turn % 2].received(effect.data, now())]
        turn += 1
    return acceptor, initiator


def cost(make: Callable[[str], SessionStore], messages: int) -> dict[str, float]:
    """Send and receive; microseconds of CPU a message."""
    acceptor, initiator = logged_on(make)
    began = time.process_time()
    sent = [effect for _ in range(messages) for effect in initiator.send(order(), now())]
    middle = time.process_time()
    for effect in sent:
        assert isinstance(effect, Transmit)
        acceptor.received(effect.data, now())
        acceptor.commit(now())
    ended = time.process_time()
    return {
        "send_us": round((middle - began) / messages * 1e6, 1),
        "receive_us": round((ended - middle) / messages * 1e6, 1),
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blackstart-bench-") as folder:
        figures = {
            "messages": options.messages,
            "memory": cost(lambda _: MemoryStore(), options.messages),
            "file": cost(lambda name: FileStore(f"{folder}/{name}", fsync="batch"), options.messages),
        }
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
