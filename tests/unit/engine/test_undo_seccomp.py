"""Taking rules for system calls back while who holds them ends."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from blackstart.engine.verbs.seccomp import VERBS


@pytest.mark.parametrize("reads", [True, False])
def test_a_supervisor_that_ends_before_it_answers_is_gone(*, reads: bool) -> None:
    """Killed with Blackstart between question and answer: no rules, and nothing is owed."""
    name = f"blackstart-test-{os.getpid()}-{reads}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"\0{name}")
    listening.listen()

    def end() -> None:
        link, _ = listening.accept()
        if reads:
            link.recv(1000)
        listening.close()
        link.close()

    ending = threading.Thread(target=end)
    ending.start()
    verify = VERBS["seccomp"]({"name": name, "token": "t", "rules": ["r"]}, "")
    done, evidence = verify()
    ending.join()
    assert done
    assert "gone" in evidence["supervisor"]
