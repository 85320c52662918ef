"""What `blackstart audit` answers when there was little or nothing to compare."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from blackstart.check.ledgers import DamagedLedgerError
from blackstart.cli.audit import audit
from blackstart.errors import BlackstartError

if TYPE_CHECKING:
    from pathlib import Path

FULL = '{"key": "a", "seq": 1, "content": "x"}\n{"key": "b", "seq": 2, "content": "y"}\n'


def status(folder: Path, ledger: str, held: str) -> int:
    """Audit two texts and return the exit status."""
    (folder / "l.jsonl").write_text(ledger, encoding="utf-8")
    (folder / "h.jsonl").write_text(held, encoding="utf-8")
    return audit(folder / "l.jsonl", folder / "h.jsonl", lists=None, listed=10, memory="100MB", as_json=False)


@pytest.mark.parametrize("ledger", ["", '{"key": "a", "outcome": "info"}\n'])
def test_an_audit_of_nothing_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ledger: str
) -> None:
    """Where nothing was acknowledged nothing was compared: status 2, and that is said."""
    assert status(tmp_path, ledger, "") == 2
    assert "nothing was acknowledged: nothing was compared" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["content", "seq"])
def test_what_one_side_alone_states_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    """Content or order on one side only could not be compared: status 2; on neither side it is 0."""
    bare = FULL.replace(f'"{field}"', '"other"')
    for pair in ((FULL, bare), (bare, FULL)):
        assert status(tmp_path, *pair) == 2
        assert f"unknown: {field} of 2 events stands on one side only" in capsys.readouterr().out
    assert status(tmp_path, bare, bare) == 0
    kind = "corrupted" if field == "content" else "reordered"
    assert f"{kind:13} not checked" in capsys.readouterr().out
    assert status(tmp_path, FULL, FULL) == 0


@pytest.mark.parametrize(
    ("seqs", "code", "told"), [((3, 2, 1), 2, "unknown: 2"), ((2, 1, 3), 0, "remark: 1")]
)
def test_an_order_that_is_excused_by_late_alone_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seqs: tuple[int, ...], code: int, told: str
) -> None:
    """What the target calls late may be out of order; where that is most of it, status 2."""
    ledger = "".join(f'{{"key": "{key}", "seq": {seq}}}\n' for key, seq in zip("abc", (1, 2, 3), strict=True))
    held = "".join(f'{{"key": "{k}", "seq": {s}, "late": true}}\n' for k, s in zip("abc", seqs, strict=True))
    assert status(tmp_path, ledger, held) == code
    assert f"{told} are held in a wrong order" in capsys.readouterr().out


def test_a_loss_is_worse_than_what_could_not_be_compared(tmp_path: Path) -> None:
    """FAIL goes before UNKNOWN."""
    assert status(tmp_path, FULL, '{"key": "a"}\n') == 1


def test_a_key_acknowledged_twice_is_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two acknowledgements of one key count once and are told; a retry after no answer is not remarkable."""
    assert status(tmp_path, FULL + FULL.splitlines()[0] + "\n", FULL) == 0
    assert "remark: 1 keys are acknowledged more than once" in capsys.readouterr().out
    tried = '{"key": "a", "seq": 1, "content": "x", "outcome": "info"}\n'
    assert status(tmp_path, tried + FULL, FULL) == 0
    assert "remark" not in capsys.readouterr().out


@pytest.mark.parametrize("at", [-6, 14])
def test_packed_data_that_is_damaged_is_refused(tmp_path: Path, at: int) -> None:
    """A wrong checksum, and a broken stream, of a .jsonl.gz are damage: status 2, with the file's name."""
    whole, bad = tmp_path / "whole.jsonl.gz", tmp_path / "bad.jsonl.gz"
    data = bytearray(gzip.compress(FULL.encode()))
    whole.write_bytes(data)
    data[at] ^= 0xFF
    bad.write_bytes(data)
    for pair in ((bad, whole), (whole, bad)):
        with pytest.raises(DamagedLedgerError) as caught:
            audit(*pair, lists=None, listed=1, memory="100MB", as_json=False)
        assert caught.value.where == str(bad)
        assert caught.value.exit_status == 2


def test_wrong_options_are_the_users_to_mend(tmp_path: Path) -> None:
    """No amount of memory, and a folder that cannot be, are told as errors of usage."""
    file = tmp_path / "l.jsonl"
    file.write_text(FULL, encoding="utf-8")
    with pytest.raises(BlackstartError, match="`lots` is no amount of memory"):
        audit(file, file, lists=None, listed=1, memory="lots", as_json=False)
    with pytest.raises(BlackstartError, match=r"(?s)cannot be written.*--lists"):
        audit(file, file, lists=file / "below", listed=1, memory="100MB", as_json=False)


@pytest.mark.parametrize(("held", "code"), [("x", 2), ("y", 2), ("z", 1)])
def test_a_key_acknowledged_with_different_contents_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], held: str, code: int
) -> None:
    """Either of two acknowledged contents may be the right one: status 2; one that nobody sent is 1."""
    ledger = '{"key": "a", "seq": 1, "content": "x"}\n{"key": "a", "seq": 2, "content": "y"}\n'
    assert status(tmp_path, ledger, f'{{"key": "a", "seq": 1, "content": "{held}"}}\n') == code
    assert "unknown: 1 keys are acknowledged with different content" in capsys.readouterr().out


def test_an_overwrite_without_an_answer_may_be_there_or_not(tmp_path: Path) -> None:
    """Whichever is held, the acknowledged content or that of the later attempt, nothing is wrong."""
    tried = '{"key": "a", "seq": 3, "content": "z", "outcome": "info"}\n'
    for content in "xz":
        assert status(tmp_path, FULL + tried, FULL.replace('"x"', f'"{content}"')) == 0
