"""Latency of the firm's order path under load, and of its hot failovers: `python bench/firm_path.py --json`.

Starts an exchange and a firm of its own in a temporary folder. `path_ms` is the engine's own stamps (its
metrics): order in -> risk -> journalled and replicated -> router, over its newest 8,192 orders, quotes
included. `answer_ms` is the client's: order written to answer read, which includes the way to the exchange
and back, because the firm promises nothing before the exchange has acknowledged it. The ratio compares the
path with its bare necessities on this machine: one turn to another process and back, and one fdatasync.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from floor import order_path_ms

from paperfirm.http import HttpError, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_LIMIT_S = 30.0
OK = 200
IMMEDIATE_SHARE = 0.5


def command(module: str, *arguments: str) -> list[str]:
    """Run a package's own command line with this interpreter."""
    return [sys.executable, "-c", f"from {module} import main; main()", *arguments]


@contextlib.contextmanager
def running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and end it with SIGTERM."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def wait_for(path: Path, limit_s: float = 15.0) -> dict[str, Any]:
    """Read a JSON file as soon as it is there."""
    until_s = time.monotonic() + limit_s
    while not path.exists():
        if time.monotonic() > until_s:
            raise SystemExit(f"{path} did not appear within {limit_s} s")
        time.sleep(0.02)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@contextlib.contextmanager
def exchange(folder: Path, *extra: str) -> Iterator[dict[str, Any]]:
    """Run a paper exchange."""
    argv = command("paperexchange.cli", "serve", "--dir", str(folder / "exchange"), *extra)
    with running(argv, folder / "exchange.log"):
        yield wait_for(folder / "exchange" / "endpoints.json")


@contextlib.contextmanager
def firm(folder: Path, *extra: str) -> Iterator[dict[str, Any]]:
    """Run a paper firm on that exchange."""
    (folder / "firm" / "endpoints.json").unlink(missing_ok=True)
    market = f"{folder}/exchange/endpoints.json"
    argv = command("paperfirm.cli", "up", "--dir", f"{folder}/firm", "--exchange", market, *extra)
    with running(argv, folder / "firm.log"):
        yield wait_for(folder / "firm" / "endpoints.json")


async def ready(endpoints: dict[str, Any], limit_s: float = READY_LIMIT_S) -> None:
    """Wait until the firm trades."""
    until_s = time.monotonic() + limit_s
    why: object = ""
    while time.monotonic() < until_s:
        with contextlib.suppress(HttpError):
            status, why = await fetch(endpoints["http"] + "/ready", limit_s=2.0)
            if status == OK:
                return
        await asyncio.sleep(0.01)
    raise SystemExit(f"the firm was not ready within {limit_s} s: {why!r}")


class Client:
    """Sends limit orders at a steady rate to whichever engine is primary, and remembers every outcome."""

    def __init__(
        self, endpoints: dict[str, Any], symbols: list[str], prices: dict[str, int], seed: int
    ) -> None:
        self._addresses = [one.rsplit(":", 1) for one in endpoints["order_entry"]]
        self._symbols = symbols
        self._prices = prices
        self._random = random.Random(seed)
        self._number = 0
        self._prefix = f"b{os.getpid()}-"
        self.sent: dict[str, int] = {}
        self.accepted: dict[str, tuple[int, str]] = {}
        self.rejected: dict[str, str] = {}

    async def run(self, rate: float, seconds: float) -> None:
        """Send for that long; a lost connection is made again, on the other engine if need be."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while loop.time() < end_s:
            for host, port in self._addresses:
                try:
                    reader, writer = await asyncio.open_connection(host, int(port))
                except OSError:
                    await asyncio.sleep(0.002)
                    continue
                reading = asyncio.ensure_future(self._read(reader))
                await self._write(writer, reading, rate, end_s)
                if not reading.done():
                    await asyncio.wait([reading], timeout=1.0)
                reading.cancel()
                writer.close()
                if loop.time() >= end_s:
                    return

    async def _write(self, writer: Any, reading: Any, rate: float, end_s: float) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while not reading.done() and loop.time() < end_s:
            while next_s <= loop.time() and not writer.is_closing():
                writer.write(self._order())
                next_s += 1 / rate
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    def _order(self) -> bytes:
        self._number += 1
        symbol = self._random.choice(self._symbols)
        side = self._random.choice(("buy", "sell"))
        name = f"{self._prefix}{self._number}"
        order = {
            "client_order_id": name,
            "symbol": symbol,
            "side": side,
            "quantity": self._random.randint(1, 5),
            "price": self._prices[symbol] + (300 if side == "buy" else -300),
            "tif": "ioc" if self._random.random() < IMMEDIATE_SHARE else "day",
        }
        self.sent[name] = time.monotonic_ns()
        return json.dumps({"new": order}).encode() + b"\n"

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        now_ns = time.monotonic_ns()
        if "accepted" in message:
            self.accepted[message["accepted"]] = (now_ns, message["cl_ord_id"])
        elif "rejected" in message:
            self.rejected[message["rejected"]] = message["reason"]

    def latencies_ms(self) -> list[float]:
        """Order written to answer read."""
        return sorted((at - self.sent[one]) / 1e6 for one, (at, _) in self.accepted.items())


async def prices(endpoints: dict[str, Any]) -> dict[str, int]:
    """Mid prices of the exchange, on the grid."""
    _, body = await fetch(endpoints["http"] + "/market_data/snapshot")
    books = json.loads(body)["books"]
    return {
        symbol: (book["bids"][0][0] + book["asks"][0][0]) // 200 * 100
        for symbol, book in books.items()
        if book["bids"] and book["asks"]
    }


def quantile(values: list[float], part: float) -> float:
    """Of sorted values."""
    return round(values[min(int(len(values) * part), len(values) - 1)], 3) if values else float("nan")


async def failovers(ends: dict[str, Any], client: Client, count: int, folder: Path) -> list[dict[str, float]]:
    """Kill the primary `count` times; time until the client's next acceptance."""
    results = []
    for _ in range(count):
        await settled(ends)
        _, body = await fetch(ends["http"] + "/components")
        found = json.loads(body)
        pid = found["components"][found["primary"]]["pid"]
        at_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        while True:
            later = [got for got, _ in list(client.accepted.values())[-200:] if got > at_ns + 2_000_000]
            if later:
                break
            await asyncio.sleep(0.001)
        results.append({"primary": found["primary"], "outage_ms": round((min(later) - at_ns) / 1e6, 1)})
        results[-1] |= stages(folder, at_ns)
    return results


def stages(folder: Path, at_ns: int) -> dict[str, float]:
    """Milliseconds after the kill of each step, from the event logs."""
    wanted = ("peer_lost", "promotion_started", "reconciliation_started", "engine_ready", "state_validated")
    found: dict[str, float] = {}
    for path in (folder / "firm" / "events").glob("engine-*.jsonl"):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event["mono_ns"] > at_ns and event["event"] in (*wanted, "trading_started"):
                found.setdefault(event["event"], round((event["mono_ns"] - at_ns) / 1e6, 1))
    return found


async def settled(ends: dict[str, Any]) -> None:
    """Wait until both engines are ready: the primary trades, the standby is in step."""
    urls = [ends["components"][one]["http"] for one in ("engine-a", "engine-b")]
    until_s = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < until_s:
        with contextlib.suppress(HttpError):
            answers = [(await fetch(url + "/ready", limit_s=1.0))[0] for url in urls]
            if answers == [200, 200]:
                await asyncio.sleep(0.5)
                return
        await asyncio.sleep(0.05)
    raise SystemExit(f"both engines were not ready within {READY_LIMIT_S} s")


async def executions(url: str) -> list[str]:
    """All ExecIDs, page by page."""
    found: list[str] = []
    since = 0
    while True:
        status, body = await fetch(f"{url}?since={since}&limit=10000", limit_s=20)
        page = json.loads(body)
        if status != OK:
            raise SystemExit(f"{url}: {page}")
        found += [one["exec_id"] for one in page["executions"]]
        if page["next"] >= page["last"]:
            return found
        since = page["next"]


async def audit(market: dict[str, Any], ends: dict[str, Any], client: Client) -> dict[str, Any]:
    """Compare what the exchange and the clients know with what the firm knows."""
    theirs = await executions(f"{market['http']}/accounts/FIRM/executions")
    ours = await executions(f"{ends['http']}/state/executions")
    _, body = await fetch(f"{ends['http']}/state/orders?all=1", limit_s=20)
    known = {one["client_order_id"]: one["status"] for one in json.loads(body)["orders"]}
    return {
        "executions": len(theirs),
        "lost": len(set(theirs) - set(ours)),
        "phantom": len(set(ours) - set(theirs)),
        "duplicated": len(ours) - len(set(ours)),
        "accepted": len(client.accepted),
        "accepted_lost": sum(one not in known for one in client.accepted),
        "pending": sum(status.startswith("pending") for status in known.values()),
    }


async def means(ends: dict[str, Any]) -> dict[str, float]:
    """Mean times inside the present primary, in milliseconds, from its metrics."""
    _, body = await fetch(ends["http"] + "/components")
    _, text = await fetch(ends["components"][json.loads(body)["primary"]]["http"] + "/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    found = {name.removeprefix("paperfirm_engine_"): float(value) for name, value in values.items()}
    sent, batches = max(found["orders_accepted_total"], 1), max(found["commit_batches_total"], 1)
    return {
        **{part: round(found[f"order_path_ns_{part}"] / 1e6, 3) for part in ("p50", "p90", "p99")},
        "order_in_to_router": round(found["orders_path_ns_total"] / sent / 1e6, 3),
        "risk": round(found["orders_risk_wait_ns_total"] / sent / 1e6, 3),
        "journal": round(found["commit_sync_ns_total"] / max(found["commit_syncs_total"], 1) / 1e6, 3),
        "standby": round(found["commit_standby_ns_total"] / batches / 1e6, 3),
        "batches": batches,
    }


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the load and return the figures."""
    with exchange(folder) as market, firm(folder) as ends:
        await ready(ends)
        client = Client(ends, market["symbols"], await prices(market), options.seed)
        if options.failovers:
            load = asyncio.ensure_future(client.run(options.rate, 1e9))
            await asyncio.sleep(2.0)
            results = await failovers(ends, client, options.failovers, folder)
            await settled(ends)
            load.cancel()
        else:
            results = []
            await client.run(options.rate, options.seconds)
        await asyncio.sleep(1.5)
        values = client.latencies_ms()
        inside = await means(ends)
        floor_ms = await order_path_ms(folder, rate=options.rate)
        path_ms = {part: inside.pop(part) for part in ("p50", "p90", "p99")}
        outages = sorted(one["outage_ms"] for one in results)
        return {
            "rate": options.rate,
            "sent": len(client.sent),
            "accepted": len(client.accepted),
            "rejected": len(client.rejected),
            "reasons": sorted(set(client.rejected.values()))[:5],
            "path_ms": path_ms,
            "floor_ms": round(floor_ms, 3),
            "ratio_to_floor": round(path_ms["p50"] / floor_ms, 2),
            "answer_ms": {
                "p50": quantile(values, 0.5),
                "p90": quantile(values, 0.9),
                "p99": quantile(values, 0.99),
            },
            "engine_mean_ms": inside,
            "failover_ms": {"p50": quantile(outages, 0.5), "max": outages[-1]} if outages else None,
            "failovers": results,
            "audit": await audit(market, ends, client),
        }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="orders a second")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--failovers", type=int, default=0, help="kill the primary so many times instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="use and keep this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="firm-path-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        result = uvloop.run(measure(options, folder))
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
