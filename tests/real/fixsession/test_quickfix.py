"""A conversation with QuickFIX as the other side, in both roles, over real sockets."""

import asyncio
import socket
import sys
from collections.abc import Callable
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
    Warning,
    format_utc,
)
from fixsession.acceptor import Identity
from fixsession.testing.endpoint import Endpoint, accept, system_now

fix = pytest.importorskip("quickfix")
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


class Application(fix.Application):
    """What QuickFIX saw, in order; callbacks come from its own threads."""

    def __init__(self) -> None:
        super().__init__()
        self.logons = 0
        self.received: list[tuple[str, bool]] = []
        self.problems: list[str] = []
        self.session_id = None

    def onCreate(self, session_id: object) -> None:  # noqa: D102, N802
        self.session_id = session_id

    def onLogon(self, session_id: object) -> None:  # noqa: D102, N802
        self.logons += 1

    def onLogout(self, session_id: object) -> None:  # noqa: D102, N802
        pass

    def toAdmin(self, message: object, session_id: object) -> None:  # noqa: D102, N802
        self._note(message, "sent")

    def fromAdmin(self, message: object, session_id: object) -> None:  # noqa: D102, N802
        self._note(message, "got")

    def toApp(self, message: object, session_id: object) -> None:  # noqa: D102, N802
        pass

    def fromApp(self, message: object, session_id: object) -> None:  # noqa: D102, N802
        text = message.toString()
        key = 17 if "\x0135=8\x01" in text else 11
        duplicate = "\x0143=Y\x01" in text
        self.received.append((text.split(f"\x01{key}=")[1].split("\x01")[0], duplicate))

    def _note(self, message: object, how: str) -> None:
        text = message.toString()
        if "\x0135=3\x01" in text:
            self.problems.append(f"{how} {text}")


class Numbers:
    """Gives the next ExecID."""

    def __init__(self) -> None:
        self.next = 0

    def __call__(self) -> str:
        self.next += 1
        return f"E{self.next}"


def report(order_id: str, exec_id: str) -> Message:
    return Message.of(
        "8",
        [
            (37, "O1"), (11, order_id), (17, exec_id), (150, "0"), (39, "0"), (55, "ALFA"), (54, "1"),
            (38, 100), (44, "10.5"), (151, 100), (14, 0), (6, 0), (60, format_utc(system_now().wall_ns)),
        ],
    )  # fmt: skip


def order(order_id: str) -> Message:
    return Message.of(
        "D",
        [
            (11, order_id), (21, 1), (55, "ALFA"), (54, "1"), (60, format_utc(system_now().wall_ns)),
            (38, 100), (40, "2"), (44, "10.5"), (59, "0"),
        ],
    )  # fmt: skip


def quickfix_message(message: Message) -> object:
    result = fix.Message()
    result.getHeader().setField(fix.StringField(35, message.msg_type))
    for tag, value in message.pairs[1:]:
        result.setField(fix.StringField(tag, value))
    return result


async def until(condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


def delivered(endpoint: Endpoint, tag: int) -> list[str]:
    """What came to our application, each number once, in order."""
    found: dict[int, str] = {}
    for effect in endpoint.effects:
        if isinstance(effect, Deliver):
            found.setdefault(effect.seq_num, effect.message.require(tag))
    assert list(found) == sorted(found)
    return list(found.values())


def settings(folder: Path, role: str, address: str, sender: str, target: str, extra: str = "") -> object:
    file = folder / "quickfix.cfg"
    file.write_text(
        SETTINGS.format(
            role=role, address=address, dictionary=DICTIONARY, folder=folder, sender=sender, target=target, extra=extra
        )
    )
    return fix.SessionSettings(str(file))


def nothing_was_wrong(endpoint: Endpoint, application: Application) -> None:
    assert application.problems == []
    assert [effect for effect in endpoint.effects if isinstance(effect, Rejected | Warning)] == []


@pytest.mark.parametrize("next_expected", [False, True], ids=["resend request", "789"])
def test_quickfix_trades_with_our_acceptor(tmp_path: Path, next_expected: bool) -> None:
    """Logon, orders, a cut in the middle with messages from both sides meanwhile, resend with gap fill, logout."""
    asyncio.run(quickfix_as_initiator(tmp_path, next_expected=next_expected))


async def quickfix_as_initiator(tmp_path: Path, *, next_expected: bool) -> None:
    exec_id = Numbers()
    store = FileStore(tmp_path / "ours")
    config = SessionConfig(sender="PAPEREX", target="FIRM", next_expected=next_expected)
    endpoint = Endpoint(
        Session(config, store), answer=lambda effect: [report(effect.message.require(11), exec_id())]
    )
    server = await asyncio.start_server(
        lambda r, w: accept({Identity("FIRM", "PAPEREX"): endpoint}, r, w), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    application = Application()
    address = f"SocketConnectHost=127.0.0.1\nSocketConnectPort={port}"
    extra = "SendNextExpectedMsgSeqNum=Y" if next_expected else ""
    options = settings(tmp_path, "initiator", address, "FIRM", "PAPEREX", extra)
    factories = fix.FileStoreFactory(options), fix.FileLogFactory(options)
    initiator = fix.SocketInitiator(application, factories[0], options, factories[1])
    initiator.start()
    try:
        await until(lambda: application.logons == 1, "logon")
        send = lambda text: fix.Session.sendToTarget(quickfix_message(order(text)), application.session_id)  # noqa: E731
        for text in ("a", "b", "c"):
            send(text)
        await until(lambda: len(application.received) == 3, "three reports")
        endpoint.cut()
        await until(lambda: not endpoint.session.is_connected, "cut")
        endpoint.send(report("a", exec_id()))
        endpoint.send(report("b", exec_id()))
        send("d")
        send("e")
        await until(lambda: application.logons == 2, "second logon")
        send("f")
        await until(lambda: len({key for key, _ in application.received}) == 8, "what was missed")
        assert delivered(endpoint, 11) == ["a", "b", "c", "d", "e", "f"]
        assert [key for key, _ in application.received] == [f"E{i}" for i in range(1, 9)]
        assert {"E4", "E5"} <= {key for key, duplicate in application.received if duplicate}
        fills = [e for e in endpoint.effects if isinstance(e, Transmit) and e.resend and e.msg_type == "4"]
        assert bool(fills) is not next_expected, "with a request, the Logon among the resent is gap-filled"
        nothing_was_wrong(endpoint, application)
        initiator.getSession(application.session_id).logout("enough") if hasattr(initiator, "getSession") else (
            fix.Session.lookupSession(application.session_id).logout("enough")
        )
        await until(lambda: any(isinstance(e, LoggedOut) and e.text == "enough" for e in endpoint.effects), "logout")
    finally:
        await asyncio.to_thread(initiator.stop)
        server.close()
        store.close()


def test_our_initiator_trades_with_quickfix(tmp_path: Path) -> None:
    """The same with QuickFIX as the acceptor: it asks, we resend; we ask, it resends and gap-fills; we log out."""
    asyncio.run(quickfix_as_acceptor(tmp_path))


async def quickfix_as_acceptor(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    application = Application()
    address = f"SocketAcceptPort={port}\nSocketAcceptAddress=127.0.0.1\nSocketReuseAddress=Y"
    options = settings(tmp_path, "acceptor", address, "PAPEREX", "FIRM")
    factories = fix.FileStoreFactory(options), fix.FileLogFactory(options)
    acceptor = fix.SocketAcceptor(application, factories[0], options, factories[1])
    acceptor.start()
    store = FileStore(tmp_path / "ours")
    endpoint = Endpoint(Session(SessionConfig(sender="FIRM", target="PAPEREX", role=Role.INITIATOR), store))
    send = lambda key: fix.Session.sendToTarget(quickfix_message(report("a", key)), application.session_id)  # noqa: E731
    try:
        first = asyncio.create_task(endpoint.run(*await asyncio.open_connection("127.0.0.1", port)))
        await until(lambda: endpoint.session.logged_on and application.logons == 1, "logon")
        for text in ("a", "b", "c"):
            endpoint.send(order(text))
        await until(lambda: len(application.received) == 3, "three orders")
        send("E1")
        await until(lambda: delivered(endpoint, 17) == ["E1"], "a report")
        endpoint.cut()
        await first
        endpoint.send(order("d"))
        endpoint.send(order("e"))
        await until(lambda: not fix.Session.lookupSession(application.session_id).isLoggedOn(), "noticed")
        send("E2")
        send("E3")
        second = asyncio.create_task(endpoint.run(*await asyncio.open_connection("127.0.0.1", port)))
        await until(lambda: application.logons == 2, "second logon")
        send("E4")
        endpoint.send(order("f"))
        await until(lambda: len({key for key, _ in application.received}) == 6, "missed orders")
        await until(lambda: delivered(endpoint, 17) == ["E1", "E2", "E3", "E4"], "missed reports")
        assert [key for key, _ in application.received] == ["a", "b", "c", "d", "e", "f"]
        assert sum(isinstance(effect, LoggedOn) for effect in endpoint.effects) == 2
        nothing_was_wrong(endpoint, application)
        endpoint.logout("good night")
        await asyncio.wait_for(second, 10)
        assert any(isinstance(effect, LoggedOut) for effect in endpoint.effects)
    finally:
        await asyncio.to_thread(acceptor.stop)
        store.close()
