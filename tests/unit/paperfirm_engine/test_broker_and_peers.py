"""What a primary does about a stuck broker and a silent peer (R9, R29, R77)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from paperfirm import wire
from paperfirm.engine import outbox as outbox_module
from paperfirm.engine.commit import Committer
from paperfirm.engine.journal import Journal
from paperfirm.engine.links import Peer
from paperfirm.engine.outbox import Outbox
from paperfirm.engine.state import State

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECOND_NS = 1_000_000_000


class Log:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **detail: Any) -> int:
        """Take an event."""
        self.events.append((event, detail))
        return len(self.events)

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return the details of all events of a name."""
        return [detail for event, detail in self.events if event == name]


class Client:
    """A broker's client that is connected, and whose broker answers pings or does not."""

    is_connected = True

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 - as the real one has it
        """Ping."""
        del timeout
        if not self.answers:
            raise TimeoutError


def test_only_a_broker_that_answers_and_stores_nothing_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JetStream after a full disk: alive, refusing; a broker that is paused or gone is left alone."""
    monkeypatch.setattr(outbox_module, "STUCK_S", 0.02)
    asked: list[str] = []

    async def restart(reason: str) -> None:
        asked.append(reason)

    async def scenario(*, answers: bool) -> Log:
        log = Log()
        state, loop = State(), asyncio.get_running_loop()
        commit = Committer(
            state,
            Journal(tmp_path / str(answers), last_seq=0),
            clock=(lambda: 1, lambda: 2),
            soon=loop.call_soon,
        )
        box = Outbox(commit, "nats://x", emit=log, clock=lambda: 1, restart=restart)

        rounds = asyncio.Semaphore(0)

        async def refuse() -> Any:
            rounds.release()
            box._client = Client(answers=answers)
            raise TimeoutError("nats: timeout")

        monkeypatch.setattr(box, "_connect", refuse)
        work = asyncio.create_task(box.run())
        async with asyncio.timeout(20):
            for _ in range(4):  # each a fifth of a second after the one before
                await rounds.acquire()
        work.cancel()
        return log

    log = asyncio.run(scenario(answers=False))
    assert asked == []
    assert [alert["code"] for alert in log.of("alert")] == ["broker_lost"]
    asyncio.run(scenario(answers=True))
    assert asked
    assert "stores nothing" in asked[0]


class Link:
    """A connection that remembers what was sent and whether it was cut."""

    def __init__(self) -> None:
        self.sent: list[wire.Message] = []
        self.error: Exception | None = None
        self.cut = False

    def send(self, message: wire.Message) -> None:
        """Remember."""
        self.sent.append(message)

    def abort(self) -> None:
        """Cut."""
        self.cut = True


def test_a_peer_that_says_nothing_is_cut_off_and_one_that_answers_is_not() -> None:
    """Half a second without a word, seen twice, ends the connection with the reason; any word begins anew."""
    now = [100 * SECOND_NS]
    peer = Peer("risk", 1, emit=Log(), clock=lambda: now[0])
    link: Any = Link()
    peer._opened(link)
    for _ in range(20):
        now[0] += SECOND_NS // 10
        peer.beat()
        peer._message(link, wire.Beat(0))
    assert not link.cut
    assert all(isinstance(message, wire.Beat) for message in link.sent)
    for _ in range(7):
        now[0] += SECOND_NS // 10
        peer.beat()
    assert link.cut
    assert "silent for" in str(link.error)
