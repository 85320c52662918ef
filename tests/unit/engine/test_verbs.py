"""What an operator is told when an undo fails."""

from __future__ import annotations

import shlex

import pytest

from blackstart.engine import journal, verbs

ARGUMENTS = {
    "kill": {"pid": 7},
    "continue": {"pid": 7},
    "http": {"url": "http://127.0.0.1:1/x?a=1&b"},
    "unlink": {"path": "/tmp/a file"},
    "rmtree": {"path": "/tmp/a file"},
    "restore": {"saved": "/tmp/a file", "path": "/tmp/b", "offset": 3},
}


@pytest.mark.parametrize("action", sorted(ARGUMENTS))
def test_every_command_is_one_line_that_a_shell_can_read(action: str) -> None:
    """Paths and addresses are quoted: what is copied does what it says."""
    words = shlex.split(verbs.by_hand(action, ARGUMENTS[action], "/runs/x"))
    assert len(words) > 1
    for value in ARGUMENTS[action].values():
        assert any(str(value) in word for word in words)


def test_an_operator_is_told_how_to_do_it_on_the_other_host() -> None:
    """The same way as we went, and what has to be said there."""
    command = ["ssh", "-p", "22", "--", "vm1", "exec python3 -c x"]
    arguments = {"command": command, "by_hand": ["kill", "-CONT", "7"]}
    said = verbs.by_hand("remote", arguments, "/runs/x")
    assert said == "ssh -p 22 -- vm1 'kill -CONT 7'"


@pytest.mark.parametrize("action", sorted(verbs.VERBS))
def test_every_verb_has_an_answer(action: str) -> None:
    """A verb without a command of its own, or with arguments of another version, still names a way."""
    assert "/runs/x" in verbs.by_hand(action, {}, "/runs/x") or verbs.by_hand(action, {}, "/runs/x")


def test_an_outcome_that_failed_says_what_to_do(tmp_path: object) -> None:
    """The journal's outcome carries the command, so that every report can show it."""
    entry = {"id": "x", "action": "rmtree", "arguments": {"path": "/"}}
    (outcome,) = journal.pay(str(tmp_path), [entry], by="test")
    assert outcome["verified"] is False
    assert outcome["evidence"]["by_hand"] == "rm -r /"
