"""Alerts, and an event log that outlives a full disk."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

from paperfirm.alerts import Alerts
from paperfirm.eventlog import EventLog
from paperfirm.http import render_metrics

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_alert_is_told_once_and_its_end_once() -> None:
    """A trouble that lasts is one event, however often it is seen; keys tell troubles of one code apart."""
    told: list[tuple[str, dict[str, Any]]] = []

    def emit(event: str, **detail: Any) -> int:
        told.append((event, detail))
        return len(told)

    alerts = Alerts(emit)
    for _ in range(3):
        alerts.sound("position_corrupt", "row of ALFA", key="ALFA", symbol="ALFA")
    alerts.sound("position_corrupt", "row of BRAVO", key="BRAVO", symbol="BRAVO", severity="warning")
    assert alerts.clear("position_corrupt", "ALFA", source="exchange")
    assert not alerts.clear("position_corrupt", "ALFA")
    assert told == [
        (
            "alert",
            {"code": "position_corrupt", "severity": "critical", "text": "row of ALFA", "symbol": "ALFA"},
        ),
        (
            "alert",
            {"code": "position_corrupt", "severity": "warning", "text": "row of BRAVO", "symbol": "BRAVO"},
        ),
        ("alert_cleared", {"code": "position_corrupt", "symbol": "ALFA", "source": "exchange"}),
    ]
    assert [one.key for one in alerts.active] == ["BRAVO"]
    assert alerts.metrics() == {
        'alerts_total{code="position_corrupt"}': 2.0,
        'alerts_active{code="position_corrupt"}': 1.0,
    }


def test_events_wait_in_order_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No event is lost, none is torn, and nothing fails while the disk takes nothing or half a line."""
    log = EventLog(tmp_path / "events" / "x.jsonl", "x")
    log.emit("before")
    real, room = os.write, [7]

    def full(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data[: room.pop()]))

    monkeypatch.setattr(os, "write", full)
    log.emit("first")
    log.emit("second")
    assert not log.write_waiting()
    monkeypatch.setattr(os, "write", real)
    log.emit("third")
    log.close()
    lines = (tmp_path / "events" / "x.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["before", "first", "second", "third"]


def test_metrics_of_one_name_stand_together() -> None:
    """Prometheus accepts one TYPE line a name, with all its samples after it."""
    text = render_metrics({'a_total{x="1"}': 1.0, "b": 2.0, 'a_total{x="2"}': 3.0}, prefix="p")
    assert text.splitlines() == [
        "# TYPE p_a_total counter",
        'p_a_total{x="1"} 1.0',
        'p_a_total{x="2"} 3.0',
        "# TYPE p_b gauge",
        "p_b 2.0",
    ]
