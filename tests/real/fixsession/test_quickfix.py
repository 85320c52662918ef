"""A conversation with QuickFIX as the other side, in both roles, over real sockets."""

import asyncio
import importlib.util
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fixsession import (
    Deliver,
    FileStore,
    LoggedOn,
    LoggedOut,
    Message,
    Rejected,
    Role,
    Session,
    SessionConfig,
    Transmit,
    Warning,  # noqa: A004
    format_utc,
)
from fixsession.acceptor import Identity
from fixsession.testing.endpoint import Endpoint, accept, system_now

pytestmark = pytest.mark.skipif(importlib.util.find_spec("quickfix") is None, reason="needs quickfix-py")
DICTIONARY = Path(sys.prefix) / "share" / "quickfix" / "FIX44.xml"
SETTINGS = """[DEFAULT]
ConnectionType={role}
{address}
ReconnectInterval=1
HeartBtInt=5
StartTime=00:00:00
EndTime=00:00:00
UseDataDictionary=Y
DataDictionary={dictionary}
FileStorePath={folder}/store
FileLogPath={folder}/log
{extra}
[SESSION]
BeginString=FIX.4.4
SenderCompID={sender}
TargetCompID={target}
"""


class QuickFix:
    """QuickFIX in its process, and what it told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[dict[str, object]] = []
        self._process = process

    def tell(self, line: str) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def count(self, event: str) -> int:
        """Count the events of a kind."""
        return sum(seen["event"] == event for seen in self.events)

    def received(self) -> list[object]:
        """List the keys of the application messages that it took, in order."""
        return [seen["key"] for seen in self.events if seen["event"] == "received"]

    async def listen(self) -> None:
        """Read what it tells, to the end."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.events.append(json.loads(line))


@asynccontextmanager
async def quickfix(folder: Path, role: str, address: str, *, extra: str = "") -> AsyncIterator[QuickFix]:
    """Run QuickFIX with these settings; it is gone afterwards."""
    sender, target = ("FIRM", "PAPEREX") if role == "initiator" else ("PAPEREX", "FIRM")
    file = folder / "quickfix.cfg"
    values = {"role": role, "address": address, "sender": sender, "target": target, "extra": extra}
    file.write_text(SETTINGS.format(dictionary=DICTIONARY, folder=folder, **values))
    pipe = asyncio.subprocess.PIPE
    program = Path(__file__).with_name("quickfix_peer.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), role, str(file), stdin=pipe, stdout=pipe
    )
    peer = QuickFix(process)
    listening = asyncio.create_task(peer.listen())
    try:
        await until(lambda: peer.count("started") == 1, "started")
        yield peer
    finally:
        process.kill()
        await process.wait()
        await listening


def fields_of(order_id: str) -> list[tuple[int, object]]:
    """List what orders and reports have in common."""
    now = format_utc(system_now().wall_ns)
    return [(11, order_id), (55, "ALFA"), (54, "1"), (60, now), (38, 100), (44, "10.5")]


def report(order_id: str, exec_id: str) -> Message:
    """Make an ExecutionReport that QuickFIX's dictionary accepts."""
    own = [(37, "O1"), (17, exec_id), (150, "0"), (39, "0"), (151, 100), (14, 0), (6, 0)]
    return Message.of("8", [*own, *fields_of(order_id)])


def order(order_id: str) -> Message:
    """Make a limit order that QuickFIX's dictionary accepts."""
    return Message.of("D", [*fields_of(order_id), (21, 1), (40, "2"), (59, "0")])


async def until(condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    """Poll until the condition holds."""
    for _ in range(int(limit_s * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not within {limit_s} s: {what}")


def delivered(endpoint: Endpoint, tag: int) -> list[str]:
    """List what came to our application, each number once, in order."""
    found: dict[int, str] = {}
    for effect in endpoint.effects:
        if isinstance(effect, Deliver):
            found.setdefault(effect.seq_num, effect.message.require(tag))
    assert list(found) == sorted(found)
    return list(found.values())


def nothing_was_wrong(endpoint: Endpoint, peer: QuickFix) -> None:
    """Neither side rejected anything, and ours warned of nothing."""
    assert [event for event in peer.events if event["event"] == "problem"] == []
    assert [effect for effect in endpoint.effects if isinstance(effect, Rejected | Warning)] == []


@pytest.mark.parametrize("next_expected", [False, True], ids=["resend request", "789"])
def test_quickfix_trades_with_our_acceptor(tmp_path: Path, next_expected: bool) -> None:
    """Logon, orders, a cut with messages from both sides meanwhile, resend with gap fill, logout."""
    asyncio.run(quickfix_as_initiator(tmp_path, next_expected=next_expected))


async def quickfix_as_initiator(tmp_path: Path, *, next_expected: bool) -> None:
    """Play the conversation with QuickFIX as the initiator."""
    exec_ids = (f"E{number}" for number in range(1, 99))
    store = FileStore(tmp_path / "ours")
    session = Session(SessionConfig(sender="PAPEREX", target="FIRM", next_expected=next_expected), store)
    endpoint = Endpoint(session, answer=lambda effect: [report(effect.message.require(11), next(exec_ids))])
    book = {Identity("FIRM", "PAPEREX"): endpoint}
    server = await asyncio.start_server(lambda reader, writer: accept(book, reader, writer), "127.0.0.1", 0)
    address = f"SocketConnectHost=127.0.0.1\nSocketConnectPort={server.sockets[0].getsockname()[1]}"
    extra = "SendNextExpectedMsgSeqNum=Y" if next_expected else ""
    async with quickfix(tmp_path, "initiator", address, extra=extra) as peer:
        await until(lambda: peer.count("logon") == 1, "logon")
        for text in ("a", "b", "c"):
            peer.tell(f"order {text}")
        await until(lambda: len(peer.received()) == 3, "three reports")
        endpoint.cut()
        await until(lambda: not session.is_connected, "cut")
        endpoint.send(report("a", next(exec_ids)))
        endpoint.send(report("b", next(exec_ids)))
        peer.tell("order d")
        peer.tell("order e")
        await until(lambda: peer.count("logon") == 2, "second logon")
        peer.tell("order f")
        await until(lambda: len(set(peer.received())) == 8, "what was missed")
        assert delivered(endpoint, 11) == ["a", "b", "c", "d", "e", "f"]
        assert peer.received() == [f"E{number}" for number in range(1, 9)]
        assert {"E4", "E5"} <= {event["key"] for event in peer.events if event.get("duplicate")}
        resent = [effect for effect in endpoint.effects if isinstance(effect, Transmit) and effect.resend]
        fills = [effect for effect in resent if effect.msg_type == "4"]
        assert bool(fills) is not next_expected, "with a request, the Logon among the resent is gap-filled"
        nothing_was_wrong(endpoint, peer)
        peer.tell("logout enough")
        await until(lambda: LoggedOut("enough") in endpoint.effects, "logout")
    server.close()
    endpoint.cut()
    await until(lambda: not session.is_connected, "closed")
    store.close()


def test_our_initiator_trades_with_quickfix(tmp_path: Path) -> None:
    """The same with QuickFIX as the acceptor: it asks and we resend, we ask and it resends, we log out."""
    asyncio.run(quickfix_as_acceptor(tmp_path))


async def quickfix_as_acceptor(tmp_path: Path) -> None:
    """Play the conversation with QuickFIX as the acceptor."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"SocketAcceptPort={port}\nSocketAcceptAddress=127.0.0.1\nSocketReuseAddress=Y"
    store = FileStore(tmp_path / "ours")
    endpoint = Endpoint(Session(SessionConfig(sender="FIRM", target="PAPEREX", role=Role.INITIATOR), store))
    async with quickfix(tmp_path, "acceptor", address) as peer:
        first = asyncio.create_task(endpoint.run(*await asyncio.open_connection("127.0.0.1", port)))
        await until(lambda: endpoint.session.logged_on and peer.count("logon") == 1, "logon")
        for text in ("a", "b", "c"):
            endpoint.send(order(text))
        await until(lambda: len(peer.received()) == 3, "three orders")
        peer.tell("report E1")
        await until(lambda: delivered(endpoint, 17) == ["E1"], "a report")
        endpoint.cut()
        await first
        endpoint.send(order("d"))
        endpoint.send(order("e"))
        await until(lambda: peer.count("logout") == 1, "noticed")
        peer.tell("report E2")
        peer.tell("report E3")
        second = asyncio.create_task(endpoint.run(*await asyncio.open_connection("127.0.0.1", port)))
        await until(lambda: peer.count("logon") == 2, "second logon")
        peer.tell("report E4")
        endpoint.send(order("f"))
        await until(lambda: len(set(peer.received())) == 6, "missed orders")
        await until(lambda: delivered(endpoint, 17) == ["E1", "E2", "E3", "E4"], "missed reports")
        assert peer.received() == ["a", "b", "c", "d", "e", "f"]
        assert sum(isinstance(effect, LoggedOn) for effect in endpoint.effects) == 2
        nothing_was_wrong(endpoint, peer)
        endpoint.logout("good night")
        await asyncio.wait_for(second, 10)
        assert any(isinstance(effect, LoggedOut) for effect in endpoint.effects)
    store.close()
