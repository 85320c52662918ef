from pathlib import Path

import msgspec
import pytest

from fixsession import SessionConfig
from fixsession.testing import MemoryPeer, Player, Script, read_script

SCRIPTS = [read_script(path) for path in sorted((Path(__file__).parent / "scripts").glob("*.fixscript"))]


def config_for(script: Script) -> SessionConfig:
    """The settings that a script needs, converted as they would be from a file."""
    return msgspec.convert(
        {"sender": "PAPEREX", "target": "FIRM", **script.needs}, SessionConfig, strict=False
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_session_passes_script(script: Script) -> None:
    """Each line of FIX.md's session part holds for our session, played without a network in simulated time."""
    Player(MemoryPeer(config_for(script))).play(script)
