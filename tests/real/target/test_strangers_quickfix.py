"""A QuickFIX client under a kill, done right and in two ways that go wrong: what is lost, what comes twice.

The counts are our own: from the exchange's raw ledger and the client's raw list of fills.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from strangers_kit import FAIL, PASS, SCENARIOS, named, needing, run

if TYPE_CHECKING:
    from pathlib import Path

AWAY = SCENARIOS / "fills-while-away.toml"


def filled(folder: Path) -> dict[str, str]:
    """Return ExecID and ClOrdID of every fill that the exchange gave the client."""
    lines = (folder / "exchange" / "ledger.jsonl").read_text().splitlines()
    facts = [json.loads(line.partition(" ")[2]) for line in lines]
    return {
        fact["exec_id"]: fact["cl_ord_id"]
        for fact in facts
        if fact["kind"] == "fill" and fact["account"] == "FIRM"
    }


def booked(folder: Path) -> Counter[str]:
    """Return how often the client has each ExecID in its list."""
    lines = (folder / "client" / "fills.jsonl").read_text().splitlines()
    return Counter(json.loads(line)["exec_id"] for line in lines)


@needing("quickfix", "quickfix")
def test_fills_of_the_outage_come_by_resend(tmp_path: Path) -> None:
    """With sequence numbers on disk, everything filled while the client was dead is booked, once."""
    status, trial, folder = run(tmp_path, AWAY, "quickfix")
    assert (status, trial["verdict"]) == (PASS, "PASS")
    assert booked(folder) == Counter(filled(folder).keys())
    assert list(filled(folder).values()).count("1-LARGE") == 10


@needing("quickfix-reset", "quickfix")
def test_a_reset_at_logon_loses_the_fills_of_the_outage(tmp_path: Path) -> None:
    """With ResetOnLogon=Y nobody asks for what was missed: FAIL names exactly those ExecIDs."""
    status, trial, folder = run(tmp_path, AWAY, "quickfix-reset")
    assert (status, trial["verdict"]) == (FAIL, "FAIL")
    fills = filled(folder)
    lost = fills.keys() - booked(folder).keys()
    assert named(folder, "executions", "lost") == lost
    assert trial["rpo"]["streams"]["executions"]["counts"]["lost"] == len(lost)
    assert [fills[one] for one in lost].count("1-LARGE") >= 3
    assert named(folder, "executions", "duplicated") == set()


@needing("quickfix-forgetful", "quickfix")
def test_a_fill_that_is_delivered_again_is_booked_twice(tmp_path: Path) -> None:
    """A callback that dies after booking gets the fill again, and looks at no ExecID: FAIL names it."""
    status, trial, folder = run(tmp_path, "R24", "quickfix-forgetful")
    assert (status, trial["verdict"]) == (FAIL, "FAIL")
    twice = {exec_id for exec_id, times in booked(folder).items() if times > 1}
    assert len(twice) == 1
    assert named(folder, "executions", "duplicated") == twice
    assert filled(folder).keys() == booked(folder).keys()
