from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from paperfirm.recorder.tables import columns, decode, instant
from paperfirm.wire import SUBJECT_EXECUTIONS, SUBJECT_ORDERS, ExecutionRow, OrderRow

EXECUTION = ExecutionRow(
    "E1", "1-C1", "ALFA", "buy", 5, 1_000_500, 1_700_000_000_123_456_789, late=True, epoch=2, seq=7
)
SECOND_NS = 1_000_000_000
ORDER = OrderRow(
    "1-C1", "mine", "O1", "client", "ALFA", "buy", "market", "ioc", None, 5, 5, "filled", "", SECOND_NS
)  # fmt: skip


def test_rows_keep_every_field() -> None:
    """What the engine published is what the tables get, to the microsecond."""
    pack = msgspec.msgpack.encode
    batch = decode([(SUBJECT_EXECUTIONS, pack(EXECUTION)), (SUBJECT_ORDERS, pack(ORDER))])
    booked = datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)
    assert batch.executions == [("E1", "1-C1", "ALFA", "buy", 5, 1_000_500, booked, True, 2, 7)]
    assert batch.orders[0][:9] == ("1-C1", "mine", "O1", "client", "ALFA", "buy", "market", "ioc", None)
    assert batch.orders[0][9:13] == (5, 5, "filled", "")
    assert not batch.refused


def test_what_cannot_be_decoded_is_named_and_does_not_hold_up_the_rest() -> None:
    """One poisoned message costs itself, not its batch."""
    good = msgspec.msgpack.encode(EXECUTION)
    batch = decode([(SUBJECT_EXECUTIONS, b"\x00"), (SUBJECT_EXECUTIONS, good), ("firm.else", good)])
    assert len(batch.executions) == 1
    assert len(batch.refused) == 2
    assert batch.refused[1] == "unknown subject firm.else"


def test_columns_are_rows_turned() -> None:
    """A batch becomes one list a column, in order."""
    assert columns([(1, "a"), (2, "b")]) == [[1, 2], ["a", "b"]]
    assert instant(999).microsecond == 0
