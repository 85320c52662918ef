"""What is seen and told: time, events, probes, histories, reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from blackstart.model.record import Record
from blackstart.model.verdict import CheckResult

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.instant import Instant
    from blackstart.model.outcome import Run


class Clock(Protocol):
    """The only source of time. `SystemClock` is real; `SimClock` jumps forward when everybody waits."""

    def now(self) -> Instant:
        """Both clocks, read together."""
        ...

    async def sleep_until(self, mono_ns: int) -> None:
        """Wait until the monotonic clock shows `mono_ns`."""
        ...


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """A stamped event from anywhere: a target's log, the oracle's stream, the workload's ledger."""

    source: str
    event: str
    mono_ns: int
    uncertainty_ns: int = 0
    fields: dict[str, Any] = {}


Sink = Callable[[Record], None]
"""Where adapters put what they see: the recorder of the running trial."""


@runtime_checkable
class Signal(Protocol):
    """Events out of the target or its oracle."""

    name: str

    def events(self) -> AsyncIterator[Observation]:
        """Everything from now on, until cancelled. Raises TargetError when the source is gone for good."""
        ...


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A probe's answer: asked at `asked_mono_ns`, answered at `mono_ns`."""

    ok: bool
    asked_mono_ns: int
    mono_ns: int
    detail: str = ""


@runtime_checkable
class Probe(Protocol):
    """A question with a yes or no, asked again and again."""

    name: str
    period_ns: int

    async def sample(self) -> Sample:
        """Ask once. Never raises: no answer is the answer no."""
        ...

    def close(self) -> None:
        """Let go of what is kept between two questions."""
        ...


class HistoryView(Protocol):
    """A finished history as the checkers see it."""

    folder: Path

    def records(self) -> Sequence[Record]:
        """All records up to the last complete one."""
        ...


Checker = Callable[[HistoryView], CheckResult]
"""Pure: same history, same answer. An exception counts as UNKNOWN."""


@runtime_checkable
class Reporter(Protocol):
    """Turns a run into files or text."""

    name: str

    def render(self, run: Run, folder: Path) -> Sequence[Path]:
        """Write the artefacts into `folder` and return their paths."""
        ...


Progress = Callable[[str, Mapping[str, Any]], Awaitable[None] | None]
"""Told about each step of a run, for live views: an event name and its figures."""
