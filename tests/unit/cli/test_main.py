from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from blackstart.cli import main
from blackstart.errors import PermitError, TargetError

if TYPE_CHECKING:
    from pathlib import Path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Call the command line in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["blackstart", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        ("suite", "--no-such-option"),
        ("run",),
        ("no-such-command",),
        ("suite", "--repeat", "0"),
        ("suite", "--all", "--only", "R1"),
        ("suite", "--seed", "seven"),
        (),
    ],
)
def test_wrong_usage_is_64_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """Status 2 means UNKNOWN here, so usage errors are 64, and their message shows the right usage."""
    assert call(monkeypatch, *arguments) == 64
    said = capsys.readouterr()
    assert "blackstart" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("validate", "-t", "redi"), "did you mean `redis`"),
        (("run", "R99", "-t", "redis"), "no such scenario"),
        (("run", "R7", "-t", "redis"), "only an exchange can disconnect"),
        (("audit", "nowhere.jsonl", "nothing.jsonl"), "nowhere.jsonl"),
        (("recheck", "nowhere"), "no history here"),
        (("diff", "a.json", "b.json"), "a.json"),
        (("run", "nope.toml", "-t", "redis"), "nope.toml: cannot be read: No such file or directory"),
        (("init", "nodir/x.toml", "--yes"), "nodir/x.toml: cannot be written: No such file or directory"),
    ],
)
def test_what_the_user_can_mend_is_told_in_three_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str
) -> None:
    """An error says what, where and what to do, in at most three lines and without a traceback."""
    assert call(monkeypatch, *arguments) == 64
    lines = capsys.readouterr().err.splitlines()
    assert what in " ".join(lines)
    assert len(lines) <= 3
    assert lines[0].startswith("blackstart: ")


@pytest.mark.parametrize(("error", "expected"), [(PermitError("no"), 3), (TargetError("no"), 2)])
def test_an_error_brings_its_own_status(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not permitted is 3; a target that does not come up leaves everything unknown, 2."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr("blackstart.cli.halt.halt", fail)
    assert call(monkeypatch, "halt") == expected
    assert capsys.readouterr().err.startswith("blackstart: no")


def test_a_bug_gives_a_file_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What nobody foresaw ends with a short message and a file that has the traceback."""

    def fail(*_: object) -> int:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("blackstart.cli.halt.halt", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert call(monkeypatch, "halt") == 70
    said = capsys.readouterr().err
    (file,) = tmp_path.iterdir()
    assert str(file) in said
    assert "Traceback" not in said
    assert "ZeroDivisionError: by nothing" in file.read_text(encoding="utf-8")


def test_ctrl_c_is_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C outside a run ends quietly with the usual status."""

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("blackstart.cli.halt.halt", interrupt)
    assert call(monkeypatch, "halt") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`blackstart suite --json | head`: whatever was found, nobody has read it; never 0."""
    with (tmp_path / "out").open("w") as out:

        def gone(*_: object) -> int:
            raise BrokenPipeError

        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr("blackstart.cli.halt.halt", gone)
        assert call(monkeypatch, "halt") == 2


def test_what_breaks_only_when_it_is_flushed_is_no_pass_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little text lies in the buffer until the end: there nobody is left to read it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as out:
        os.close(reading)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr("blackstart.cli.halt.halt", lambda *_: print("done") or 0)
        assert call(monkeypatch, "halt") == 2


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints one line and ends well."""
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("blackstart 0.")


def test_help_names_every_command_and_every_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads the help finds all commands, no description cut off, and the exit statuses."""
    assert call(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    commands = "suite run validate up down snapshot diff audit recheck doctor calibrate init halt"
    assert all(f"\n  {name} " in text for name in commands.split())
    assert "..." not in text.replace("[ARGS]...", "")
    assert "64 usage, 70 a bug" in " ".join(text.split())
    assert call(monkeypatch, "chaos", "--help") == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in ("run", "start", "replay", "status", "stop"))
    assert "..." not in text.replace("[ARGS]...", "")


def test_help_needs_nothing_heavy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line starts without the engine, DuckDB, Jinja or rich: commands import them when called."""
    import subprocess  # noqa: PLC0415

    code = "import sys, blackstart.cli.main as m; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "blackstart.cli.main" in loaded
    assert not loaded & {"duckdb", "jinja2", "rich.console", "asyncio", "psutil", "blackstart.engine"}
