"""How an engine ends that is fenced off: by its own exit status, whatever its connections still bring."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from paperfirm.engine.engine import FENCED
from paperfirm.engine.errors import EngineError
from paperfirm.engine.lead import Lead

ENDS = """
import asyncio, sys, types, uvloop
import paperfirm.engine.__main__ as program

class Ends:
    def __init__(self, firm, name, *, events, stop):
        self.events = events

    async def run(self):
        asyncio.get_running_loop().call_soon(self.answer)
        return int(sys.argv[1])

    def answer(self):
        raise RuntimeError("the journal is closed")

program.Engine = Ends
events = types.SimpleNamespace(emit=lambda *_, **__: 0)
sys.exit(uvloop.run(program.run(None, "engine-a", events)))
"""


def ends(status: int) -> int:
    """Run an engine's process whose engine ends with a status while a connection brings something more."""
    done = subprocess.run((sys.executable, "-c", ENDS, str(status)), capture_output=True, check=False)
    return done.returncode


def test_a_fenced_engine_answers_nobody_any_more() -> None:
    """What a fenced engine's connections bring after its end is not answered, so nothing fails over it."""
    assert FENCED == 75
    assert ends(FENCED) == FENCED


def test_any_other_end_does_not_hide_a_failure() -> None:
    """After a stop in good order nobody may come any more: a callback that fails then is a failure."""
    assert ends(0) == 70


def test_fenced_comes_before_what_failed_by_it() -> None:
    """When a task fails in the moment in which the engine is fenced off, fenced is what is said."""

    async def fails() -> None:
        raise EngineError("the peer is gone")

    async def both(*, fenced: bool) -> str | None:
        lead = Lead.__new__(Lead)
        lead._over = asyncio.get_running_loop().create_future()
        lead._tasks = [asyncio.ensure_future(fails())]
        await asyncio.wait(lead._tasks)
        if fenced:
            lead._over.set_result("epoch 2")
        return lead._fenced_off()

    assert asyncio.run(both(fenced=True)) == "epoch 2"
    with pytest.raises(EngineError, match="the peer is gone"):
        asyncio.run(both(fenced=False))
