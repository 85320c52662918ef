"""The command that reaches another host, what is sent over it, and what its errors mean."""

from __future__ import annotations

import ast
import shlex
import sys
from pathlib import Path

import pytest

from blackstart.host import growing, procs, ssh, ssh_helper


def test_what_the_manifest_says_comes_before_our_own_options() -> None:
    """`ssh` takes the first value that it hears: the user's."""
    words = ssh.command(address="vm1", options={"ConnectTimeout": "3", "StrictHostKeyChecking": "yes"})
    given = [words[k + 1] for k, word in enumerate(words) if word == "-o"]
    assert "ConnectTimeout=3" in given
    assert not any(one.startswith("ConnectTimeout=10") for one in given)
    assert "BatchMode=yes" in given, "nobody is there to type a password"


def test_an_address_can_never_be_an_option() -> None:
    """What looks like an option of `ssh` stays an address."""
    words = ssh.command(address="-oProxyCommand=x", user="trader", identity="/keys/id", port=2222)
    assert words[-3:-1] == ["--", "-oProxyCommand=x"]
    assert words[words.index("-l") + 1] == "trader"
    assert words[words.index("-i") + 1] == "/keys/id"
    assert words[words.index("-p") + 1] == "2222"


def test_the_interpreter_is_quoted_for_the_shell_there() -> None:
    """A path with a space is one word there, and no package or file of that host is touched."""
    last = ssh.command(address="vm1", python="/opt/my python/bin/python3")[-1]
    assert shlex.split(last)[:3] == ["exec", "/opt/my python/bin/python3", "-ISB"]


def test_an_operator_gets_the_whole_command() -> None:
    """What has to be typed by hand goes the same way as we did."""
    words = ssh.command(address="vm1", user="trader")
    said = shlex.split(ssh.there(words, ("kill", "-CONT", "17")))
    assert said[:-1] == words[:-1]
    assert said[-1] == "kill -CONT 17"


@pytest.mark.parametrize("module", [procs, growing, ssh_helper])
def test_the_helper_is_python_3_9_and_needs_nothing_but_the_standard_library(module: object) -> None:
    """It has to run on whatever the other host has."""
    path = Path(str(getattr(module, "__file__", None)))
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    outside = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert outside <= {"blackstart.host"}


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("No ED25519 host key is known for [h]:22 …\nHost key verification failed.\n", "key"),
        ("trader@vm1: Permission denied (publickey).\n", "authorized_keys"),
        ("ssh: connect to host vm1 port 22: Connection refused\n", "sshd"),
        ("ssh: Could not resolve hostname vm1: Name or service not known\n", "address"),
        ("bash: line 1: exec: python9: not found\n", "python"),
        ("it has Python 3.6.8, and the helper needs 3.9 or newer\n", "newer"),
    ],
)
def test_what_ssh_says_is_told_with_what_to_do(said: str, hint: str) -> None:
    """The line that matters, and the next step."""
    what, advice = ssh.explain(said, 255)
    assert what in said
    assert what
    assert hint in advice


def test_a_connection_that_ends_without_a_word_is_told_as_that() -> None:
    """No empty error."""
    assert ssh.explain("", None)[0]
