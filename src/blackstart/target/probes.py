"""Probes: a question asked every few milliseconds, and a record whenever the answer changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blackstart.contracts import Sample
from blackstart.model.record import ProbeChange
from blackstart.target import http

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.contracts import Clock, Probe, Sink
    from blackstart.model.manifest import ProbeSpec

    Listener = Callable[[Sample, int], None]


class UrlProbe:
    """Does an URL answer 200? One connection is kept.

    `url` is asked for at each connection, because a target may move.
    """

    def __init__(self, name: str, spec: ProbeSpec, url: Callable[[], str], clock: Clock) -> None:
        self.name = name
        self.period_ns = round(spec.period_ms * 1e6)
        self._limit_s = spec.timeout_ms / 1e3
        self._url, self._clock = url, clock
        self._connection: http.Connection | None = None

    async def sample(self) -> Sample:
        """Ask once. Never raises: no answer is the answer no."""
        asked = self._clock.now().mono_ns
        ok, detail = await self._ask()
        return Sample(ok=ok, asked_mono_ns=asked, mono_ns=self._clock.now().mono_ns, detail=detail)

    async def _ask(self) -> tuple[bool, str]:
        try:
            if self._connection is None:
                self._connection = http.Connection(self._url())
            async with asyncio.timeout(self._limit_s):
                answer = await self._connection.request()
        except Exception as error:  # noqa: BLE001 - whatever keeps the answer away is the answer no
            self.close()
            return False, f"{type(error).__name__}: {error}"
        return answer.status == 200, f"HTTP {answer.status}"  # noqa: PLR2004

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class TcpProbe:
    """Ask whether a port accepts connections."""

    def __init__(self, name: str, spec: ProbeSpec, address: Callable[[], str], clock: Clock) -> None:
        self.name = name
        self.period_ns = round(spec.period_ms * 1e6)
        self._limit_s = spec.timeout_ms / 1e3
        self._address, self._clock = address, clock

    async def sample(self) -> Sample:
        """Connect once. Never raises: no answer is the answer no."""
        asked = self._clock.now().mono_ns
        ok, detail = await self._ask()
        return Sample(ok=ok, asked_mono_ns=asked, mono_ns=self._clock.now().mono_ns, detail=detail)

    async def _ask(self) -> tuple[bool, str]:
        try:
            host, _, port = self._address().rpartition(":")
            opened = asyncio.open_connection(host, int(port))
            async with asyncio.timeout(self._limit_s):
                _, writer = await opened
        except Exception as error:  # noqa: BLE001 - whatever keeps the answer away is the answer no
            return False, f"{type(error).__name__}: {error}"
        writer.close()
        return True, "accepts"

    def close(self) -> None:
        """Nothing is kept."""


def make(name: str, spec: ProbeSpec, expand: Callable[[str], str], clock: Clock) -> Probe:
    """Return the probe that a manifest describes."""
    if spec.url is not None:
        url = spec.url
        return UrlProbe(name, spec, lambda: expand(url), clock)
    address = spec.tcp or ""
    return TcpProbe(name, spec, lambda: expand(address), clock)


async def run(probe: Probe, *, clock: Clock, sink: Sink, listener: Listener | None = None) -> None:
    """Ask until cancelled; record the first answer and every change.

    `listener` hears each sample and the interval before it.
    """
    try:
        await _ask_on(probe, clock, sink, listener)
    finally:
        probe.close()


async def _ask_on(probe: Probe, clock: Clock, sink: Sink, listener: Listener | None) -> None:
    last: Sample | None = None
    same = 0
    due = clock.now().mono_ns
    while True:
        sample = await probe.sample()
        # It changed after the question before was asked: that answer still was the other one.
        interval = sample.mono_ns - (last.asked_mono_ns if last else sample.asked_mono_ns)
        same += 1
        if last is None or sample.ok != last.ok:
            sink(_change(probe, sample, interval, same))
            same = 0
        if listener is not None:
            listener(sample, interval)
        last = sample
        due = max(due + probe.period_ns, clock.now().mono_ns)  # never ask in bursts to catch up
        await clock.sleep_until(due)


def _change(probe: Probe, sample: Sample, interval: int, samples: int) -> ProbeChange:
    return ProbeChange(
        probe=probe.name,
        ok=sample.ok,
        mono_ns=sample.mono_ns,
        uncertainty_ns=interval,
        samples=samples,
        detail=sample.detail,
    )
