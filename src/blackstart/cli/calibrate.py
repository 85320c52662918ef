"""`blackstart calibrate`: how wrong a measured RTO is, and how soon a death is noticed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import msgspec
import uvloop
from rich.table import Table

from blackstart.calibration.bench import opened
from blackstart.calibration.result import Calibration, summarise
from blackstart.cli.folder import made
from blackstart.engine import leftovers
from blackstart.report.terminal import console

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from blackstart.calibration.result import Spread


def calibrate(*, outages: int, kills: int, seed: int, out: Path, as_json: bool) -> int:
    """Calibrate and print; status 1 when it misses what it must reach, 2 when it could not measure."""
    leftovers.clear(made(out))
    folder = out / f"calibration-{os.urandom(2).hex()}"
    folder.mkdir(parents=True)
    found = uvloop.run(_measure(folder, outages, kills, seed))
    (folder / "calibration.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    else:
        _print(found, console(sys.stdout))
    return 2 if found.unmeasured else 1 if found.misses else 0


async def _measure(folder: Path, outages: int, kills: int, seed: int) -> Calibration:
    async with opened(folder) as bench:
        async with bench.loaded():
            deaths = await bench.deaths(kills, _teller("kills", kills))
            moments = await bench.outages(outages, seed, _teller("outages", outages))
        return summarise(seed, bench.compare(moments), deaths)


class _teller:  # noqa: N801  # used as a function
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total

    def __call__(self, done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == self._total else ""
            print(f"\r{done} of {self._total} {self._what}", end=end, file=sys.stderr, flush=True)


def _print(found: Calibration, out: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "n", "median", "p99", "max", "must reach"):
        table.add_column(name, justify="left" if name in ("", "must reach") else "right", no_wrap=True)
    _row(table, "RTO error", found.error, "median \u2264 1 ms, p99 \u2264 5 ms")
    _row(table, "worst stamp error", found.phase_error, "")
    _row(table, "stated uncertainty", found.uncertainty, "no error outside it")
    _row(table, "death noticed", found.death_notice, "median \u2264 0.3 ms")
    out.print(table)
    out.print(
        f"{found.outages} programmed outages: {found.unmeasured} not measured, "
        f"{found.outside} outside the stated uncertainty, "
        f"{found.outages - found.phases_not_summing} with phases that sum to the nanosecond",
        soft_wrap=True,
    )
    for miss in found.misses:
        out.print(f"[bold red]MISSED[/] {miss}", soft_wrap=True)


def _row(table: Table, name: str, spread: Spread | None, goal: str) -> None:
    if spread is not None:
        figures = (f"{value:.3f} ms" for value in (spread.median_ms, spread.p99_ms, spread.max_ms))
        table.add_row(name, str(spread.count), *figures, goal)
