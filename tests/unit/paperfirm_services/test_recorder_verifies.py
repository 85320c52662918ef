from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from paperfirm.recorder.__main__ import Recorder
from paperfirm.recorder.stream import Stream as JetStream
from paperfirm.wire import SUBJECT_EXECUTIONS, SUBJECT_ORDERS, ExecutionRow, OrderRow

FILL = ExecutionRow("E9", "1-C1-x", "ALFA", "buy", 1, 2, 3, late=False)
ORDER = OrderRow(
    "1-C1-x", "x", "O1", "client", "ALFA", "buy", "limit", "day", 2, 1, 1, "filled", "", 3
)  # fmt: skip
LETTERS = {SUBJECT_EXECUTIONS: FILL, SUBJECT_ORDERS: ORDER}


class Stream:
    """A stream that has this message as the last one acknowledged."""

    def __init__(self, last: tuple[str, bytes] | None) -> None:
        self.last = last
        self.rewound = 0

    async def last_acknowledged(self) -> tuple[str, bytes] | None:
        """Return it."""
        return self.last

    async def rewind(self) -> None:
        """Count."""
        self.rewound += 1


class Tables:
    """A connection to tables that hold these keys."""

    on_connected: Any = None

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    async def fetchval(self, query: str, key: str) -> bool:
        """Answer the query for one key; an execution is looked up as one, an order as one."""
        assert ("exec_id" in query) == (key == FILL.exec_id)
        return key in self.keys


def verify(last: tuple[str, bytes] | None, *keys: str) -> tuple[list[str], Stream]:
    """Let a recorder connect to tables with these keys; returns its events and the stream."""
    events: list[str] = []
    stream, tables = Stream(last), Tables(*keys)
    recorder = Recorder(stream, tables, lambda event, **_: events.append(event) or 0)  # type: ignore[arg-type, func-returns-value]
    asyncio.run(tables.on_connected(tables))
    assert tables.on_connected == recorder.verify
    return events, stream


@pytest.mark.parametrize("subject", LETTERS)
def test_acknowledged_and_stored_is_valid(subject: str) -> None:
    """A database that holds what was acknowledged last is called validated, and nothing comes again."""
    message = (subject, msgspec.msgpack.encode(LETTERS[subject]))
    events, stream = verify(message, "E9", "1-C1-x")
    assert (events, stream.rewound) == (["state_validated"], 0)


@pytest.mark.parametrize("subject", LETTERS)
def test_acknowledged_but_not_stored_is_stored_again(subject: str) -> None:
    """A database that lacks it (an older copy) is no valid state: the whole stream comes once more."""
    events, stream = verify((subject, msgspec.msgpack.encode(LETTERS[subject])))
    assert (events, stream.rewound) == (["validation_failed"], 1)


def test_nothing_acknowledged_is_nothing_to_validate() -> None:
    """A first start has checked nothing and says nothing."""
    events, stream = verify(None)
    assert (events, stream.rewound) == ([], 0)


@pytest.mark.parametrize(("last_seq", "event"), [(7, "state_validated"), (6, "validation_failed")])
def test_a_broker_that_comes_back_must_hold_what_was_acknowledged(last_seq: int, event: str) -> None:
    """Seven messages were acknowledged: a stream that ends before that has lost something."""
    events: list[str] = []
    stream = JetStream("nats://nowhere", lambda event, **_: events.append(event) or 0)  # type: ignore[func-returns-value]
    message: Any = SimpleNamespace(metadata=SimpleNamespace(sequence=SimpleNamespace(stream=7)))

    async def ack() -> None:
        pass

    async def main() -> None:
        message.ack = ack
        await stream.acknowledge([message])
        stream._verify(last_seq)

    asyncio.run(main())
    assert events == [event]


def test_what_a_returned_broker_delivers_is_stored_after_it_was_verified() -> None:
    """It can come back under a fetch that waits already: what that fetch gets has to wait for the check."""
    events: list[str] = []
    stream = JetStream("nats://nowhere", lambda event, **_: events.append(event) or 0)  # type: ignore[func-returns-value]
    message: Any = SimpleNamespace(metadata=SimpleNamespace(num_pending=0))

    async def fetch(*_: Any, **__: Any) -> list[Any]:
        await stream._on_restored()
        return [message]

    class Broker:
        """Holds nine messages."""

        def jetstream(self) -> Broker:
            return self

        async def stream_info(self, _name: str) -> Any:
            return SimpleNamespace(state=SimpleNamespace(last_seq=9))

        async def pull_subscribe(self, *_: Any, **__: Any) -> Any:
            return SimpleNamespace(fetch=fetch)

    stream._client = Broker()  # type: ignore[assignment]
    stream._subscription = SimpleNamespace(fetch=fetch)
    assert asyncio.run(stream.fetch()) == [message]
    assert events == ["queue_restored", "state_validated"]
