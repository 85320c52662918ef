"""The scripts, against our session; against any acceptor with `FIX_ACCEPTOR=HOST:PORT` in the environment."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fixsession import FixError, MemoryStore, Message, Session, SessionConfig
from fixsession.acceptor import Identity
from fixsession.testing.endpoint import Endpoint, accept
from fixsession.testing.memory import MemoryPeer
from fixsession.testing.player import Player, ScriptFailure, main
from fixsession.testing.script import Script, parse_script, read_script
from fixsession.testing.tcp import TcpPeer

FOLDER = Path(__file__).parent / "scripts"
SCRIPTS = [read_script(path) for path in sorted(FOLDER.glob("*.fixscript"))]
UNCONDITIONAL = [script for script in SCRIPTS if not script.needs]
by_name = pytest.mark.parametrize("script", UNCONDITIONAL, ids=lambda script: script.name)


def config_for(script: Script) -> SessionConfig:
    """Convert the settings that a script needs, as from a file."""
    fields = {"sender": "PAPEREX", "target": "FIRM", **script.needs}
    return msgspec.convert(fields, SessionConfig, strict=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_session_passes_script(script: Script) -> None:
    """Each line of FIX.md's session part holds for our session, played without network in simulated time."""
    Player(MemoryPeer(config_for(script))).play(script)


@pytest.fixture(scope="module")
def acceptor() -> Iterator[tuple[str, int]]:
    """Give an acceptor on a real socket: the one named in the environment, or our session with an echo."""
    if named := os.environ.get("FIX_ACCEPTOR"):
        host, _, port = named.rpartition(":")
        yield host, int(port)
        return
    loop = asyncio.new_event_loop()
    session = Session(SessionConfig(sender="PAPEREX", target="FIRM"), MemoryStore())
    endpoint = Endpoint(session, answer=lambda effect: [Message(list(effect.message.pairs))])
    book = {Identity("FIRM", "PAPEREX"): endpoint}
    start = asyncio.start_server(lambda reader, writer: accept(book, reader, writer), "127.0.0.1", 0)
    server = loop.run_until_complete(start)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(endpoint.cut)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@by_name
def test_acceptor_behind_tcp_passes_script(script: Script, acceptor: tuple[str, int]) -> None:
    """The same lines hold over a real socket in real time."""
    peer = TcpPeer(*acceptor)
    Player(peer, run=f"{script.name[:20]}-{peer.wall_ns()}").play(script)


def test_command_line_plays_and_tells(acceptor: tuple[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    """The command passes what holds, skips what needs other settings, exits 1 on failure, 64 on no script."""
    host, port = acceptor
    names = ["01-logon-is-answered", "09-last-processed"]
    address = [host, str(port)]
    assert main([*address, *(str(FOLDER / f"{name}.fixscript") for name in names)]) == 0
    output = capsys.readouterr().out
    assert "pass  01-logon-is-answered" in output
    assert "SKIP  09-last-processed: needs last_processed=true" in output
    assert "2 scripts: 1 passed, 0 failed, 1 skipped" in output
    lacking = str(FOLDER / "09-last-processed.fixscript")
    if "FIX_ACCEPTOR" not in os.environ:
        assert main([*address, lacking, "--has", "last_processed=true"]) == 1
        assert "field 369 is None" in capsys.readouterr().out
    assert main([*address, "nowhere.fixscript"]) == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expect 0", "another message came"),
        ("expect A 108=31", "field 108 is '30', not '31'"),
        ("expect A 108=!", "field 108"),
        ("expect-disconnect", "a message came instead"),
        ("quiet 1", "a message came"),
        ("expect A\nexpect 1", "nothing came"),
        ("expect A\nexpect-disconnect", "stayed open"),
        ("expect A\nsend 5\nexpect 5\nquiet 1", "the connection was closed"),
    ],
)
def test_player_notices_every_kind_of_difference(text: str, said: str) -> None:
    """A peer that does something else than the script says is never passed."""
    script = parse_script("t", f"connect\nsend A 98=0 108=30 141=Y\n{text}")
    peer = MemoryPeer(SessionConfig(sender="PAPEREX", target="FIRM"))
    with pytest.raises(ScriptFailure, match=said):
        Player(peer).play(script)


@pytest.mark.parametrize("line", ["speak A", "send", "expect A x=1", "raw", 'send A "58=open', "needs x"])
def test_bad_script_is_refused_with_its_line(line: str) -> None:
    """A line that is no step is refused with its number before anything is played."""
    with pytest.raises(FixError, match="t:2: "):
        parse_script("t", f"connect\n{line}")
