"""Public kit: scripted conversations against any FIX acceptor, and a session without a network."""

from fixsession.testing.memory import MemoryPeer
from fixsession.testing.player import Peer, Player, ScriptFailure
from fixsession.testing.script import Script, read_script
from fixsession.testing.tcp import TcpPeer

__all__ = ["MemoryPeer", "Peer", "Player", "Script", "ScriptFailure", "TcpPeer", "read_script"]
