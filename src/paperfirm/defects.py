"""Deliberate recovery defects, off unless the configuration names them (DESIGN section 7).

They serve to test the tester: what a defect did stands in the event log (`defect`), so that whoever asks for
one knows exactly what must be found.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paperfirm.recorder.tables import Batch

RECORDER_SKIPS = "recorder-skips-executions"
KNOWN = {RECORDER_SKIPS: "the recorder acknowledges every 50th execution to the broker without storing it"}
_EVERY = 50


def unknown(names: Iterable[str]) -> list[str]:
    """Return the names that stand for no defect."""
    return [name for name in names if name not in KNOWN]


def recording(names: Iterable[str], emit: Callable[..., int]) -> Callable[[Batch], Batch]:
    """Return what the recorder does to a batch before it stores it: nothing, unless a defect is asked for."""
    if RECORDER_SKIPS not in names:
        return lambda batch: batch
    numbers = itertools.count(1)

    def skip(batch: Batch) -> Batch:
        kept: list[tuple[Any, ...]] = []
        for row in batch.executions:
            if next(numbers) % _EVERY:
                kept.append(row)
            else:
                emit("defect", name=RECORDER_SKIPS, exec_id=row[0])
        return msgspec.structs.replace(batch, executions=kept)

    return skip
