"""FIX.md, line by line, over TCP against the real exchange: the session scripts of fixsession and our own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixsession.testing.player import Player
from fixsession.testing.script import Script, read_script
from fixsession.testing.tcp import TcpPeer
from paperexchange.testing import Running, running

HERE = Path(__file__).parent
SCRIPTS = [
    read_script(path)
    for room in (HERE.parent / "fixsession", HERE)
    for path in sorted((room / "scripts").glob("*.fixscript"))
]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One exchange with an empty book for all scripts that need no settings of their own."""
    with running(tmp_path_factory.mktemp("exchange"), "--participants", "0") as made:
        yield made


def play(exchange: Running, script: Script) -> None:
    """Play a script over TCP."""
    endpoint = exchange.endpoints["fix"]
    Player(TcpPeer(endpoint["host"], endpoint["port"], limit_s=10), run=script.name[:24]).play(script)


@pytest.mark.parametrize("script", [s for s in SCRIPTS if not s.needs], ids=lambda script: script.name)
def test_exchange_passes_script(exchange: Running, script: Script) -> None:
    """The exchange as it comes answers as the line of FIX.md says."""
    play(exchange, script)


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.needs], ids=lambda script: script.name)
def test_exchange_with_settings_passes_script(tmp_path: Path, script: Script) -> None:
    """Session settings of an account, from the configuration, have the effect that the script expects."""
    config = tmp_path / "exchange.toml"
    settings = "\n".join(f'{name} = "{value}"' for name, value in script.needs.items())
    config.write_text(f"[accounts.FIRM.session]\n{settings}\n")
    with running(tmp_path / "x", "--participants", "0", "--config", str(config)) as exchange:
        play(exchange, script)
