"""A whole firm on an exchange of its own, a client that trades.

And the audit of what everybody knows afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 60.0


def get(url: str) -> Any:
    """Read a JSON document."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Poll a condition; its first true value is returned."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            found = condition()
            if found:
                return found
        time.sleep(0.02)
    pytest.fail(f"not within {limit_s} s: {what}")


def program(module: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """Start one of the command lines."""
    argv = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
    with log.open("ab") as file:
        return subprocess.Popen(argv, stdout=file, stderr=file)


class Client:
    """Trades in a thread, steadily, with whichever engine is primary, and remembers every answer."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.accepted: dict[str, str] = {}
        self.rejected: dict[str, str] = {}
        self.number = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: len(self.accepted) > 20, "the client trades")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def new_acceptances(self, count: int) -> None:
        """Wait until so many more orders are accepted."""
        target = len(self.accepted) + count
        until(lambda: len(self.accepted) >= target, f"{count} more orders are accepted")

    def _run(self) -> None:
        while not self._over.is_set():
            for address in self.system.order_entry:
                with contextlib.suppress(OSError):
                    self._trade(address)

    def _trade(self, address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=5) as connection, connection.makefile("rwb") as stream:
            while not self._over.is_set():
                self.number += 1
                name = f"t{os.getpid()}-{self.number}"
                stream.write(json.dumps({"new": self.system.order(name, self.number)}).encode() + b"\n")
                stream.flush()
                if not self._answered(stream, name):
                    return
                time.sleep(0.004)

    def _answered(self, stream: Any, name: str) -> bool:
        """Read until the order's answer; False when the connection is over."""
        while line := stream.readline():
            message = json.loads(line)
            if message.get("accepted") == name:
                self.accepted[name] = message["cl_ord_id"]
                return True
            if message.get("rejected") == name:
                self.rejected[name] = message["reason"]
                return True
            if "error" in message:
                return False
        return False


class System:
    """The running exchange and firm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.market_process = program(
            "paperexchange.cli", "serve", "--dir", str(folder / "exchange"), log=folder / "exchange.log"
        )
        self.market = self._endpoints("exchange")
        self.start()
        books = get(self.market["http"] + "/market_data/snapshot")["books"]
        self.mids = {name: book["bids"][0][0] for name, book in books.items()}

    def start(self) -> None:
        """Bring the firm up and wait until it trades with a standby in step."""
        (self.folder / "firm" / "endpoints.json").unlink(missing_ok=True)
        self.process = program(
            "paperfirm.cli",
            "up",
            "--dir",
            str(self.folder / "firm"),
            "--exchange",
            str(self.folder / "exchange" / "endpoints.json"),
            log=self.folder / "firm.log",
        )
        self.ends = self._endpoints("firm")
        self.settled()

    def _endpoints(self, name: str) -> dict[str, Any]:
        path = self.folder / name / "endpoints.json"
        found: dict[str, Any] = until(
            lambda: path.exists() and json.loads(path.read_text()), f"{path} is there"
        )
        return found

    @property
    def order_entry(self) -> list[tuple[str, int]]:
        """Addresses of both engines."""
        pairs = (one.rsplit(":", 1) for one in self.ends["order_entry"])
        return [(host, int(port)) for host, port in pairs]

    def order(self, name: str, number: int) -> dict[str, Any]:
        """Build an order that trades or rests."""
        symbol = sorted(self.mids)[number % len(self.mids)]
        side = "buy" if number % 3 else "sell"
        price = self.mids[symbol] + (500 if side == "buy" else -500) * (1 if number % 2 else -10)
        return {
            "client_order_id": name,
            "symbol": symbol,
            "side": side,
            "quantity": number % 7 + 1,
            "price": price,
        }

    def components(self) -> dict[str, Any]:
        """Return what the supervisor says."""
        found: dict[str, Any] = get(self.ends["http"] + "/components")
        return found

    def primary(self) -> tuple[str, str]:
        """Names of primary and standby."""
        primary: str = until(lambda: self.components()["primary"], "there is a primary")
        return primary, "engine-b" if primary == "engine-a" else "engine-a"

    def kill(self, name: str) -> int:
        """SIGKILL a component; returns the time (monotonic ns)."""
        pid = until(lambda: self.components()["components"][name]["pid"], f"{name} runs")
        at_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        return at_ns

    def settled(self) -> None:
        """Wait until both engines are ready: the primary trades, the standby is in step."""
        until(
            lambda: all(
                get(self.ends["components"][name]["http"] + "/ready")["ready"]
                for name in ("engine-a", "engine-b")
            ),
            "both engines are ready",
        )
        until(lambda: get(self.ends["http"] + "/ready")["ready"], "the firm is ready")

    def state(self, path: str) -> Any:
        """Return a state document of the primary."""
        return until(lambda: get(f"{self.ends['http']}/state/{path}"), f"state {path}")

    def events(self, *components: str) -> list[dict[str, Any]]:
        """Events of these components in order of time."""
        found = []
        for name in components:
            text = (self.folder / "firm" / "events" / f"{name}.jsonl").read_text()
            found += [json.loads(line) for line in text.splitlines()]
        return sorted(found, key=lambda event: event["mono_ns"])

    def audit(self, client: Client) -> None:
        """Hold what clients, exchange and firm know against each other."""
        until(self._agree, "positions of firm and exchange agree")
        until(self._same_executions, "each execution is booked exactly once")
        accepted = dict(
            client.accepted
        )  # the client goes on: first what others know, then what the firm knows
        there = {one["cl_ord_id"] for one in get(f"{self.market['http']}/accounts/FIRM/orders")["orders"]}
        orders = {one["cl_ord_id"]: one for one in self.state("orders?all=1")["orders"]}
        lost = {name: cl_ord_id for name, cl_ord_id in accepted.items() if cl_ord_id not in orders}
        assert lost == {}, "no accepted order is lost"
        assert there <= set(orders), "the exchange has no order that the firm forgot"
        given_up = {name for name, one in orders.items() if one["reason"].startswith("not sent")}
        assert given_up & there == set(), "what was given up was never sent"

    def _agree(self) -> bool:
        theirs = get(f"{self.market['http']}/accounts/FIRM/positions")["positions"]
        ours = self.state("positions")["positions"]
        return {one["symbol"]: (one["quantity"], one["cash"]) for one in ours} == {
            symbol: (one["quantity"], one["cash"]) for symbol, one in theirs.items()
        }

    def _same_executions(self) -> bool:
        """Compare lists, not sets; quotes go on trading, so that one more may be on its way."""
        theirs = _executions(f"{self.market['http']}/accounts/FIRM/executions")
        return sorted(_executions(f"{self.ends['http']}/state/executions")) == sorted(theirs)

    def stop(self) -> int:
        """Stop the firm cleanly; returns the exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        """End both."""
        for process in (self.process, self.market_process):
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def _executions(url: str) -> list[str]:
    found: list[str] = []
    since = 0
    while True:
        page = get(f"{url}?since={since}&limit=10000")
        found += [one["exec_id"] for one in page["executions"]]
        since = page["next"]
        if since >= page["last"]:
            return found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One firm for the module's tests: each leaves it settled."""
    running = System(tmp_path_factory.mktemp("firm"))
    yield running
    running.close()


@pytest.fixture
def client(system: System) -> Iterator[Client]:
    """Give a client that is trading."""
    system.settled()
    with Client(system) as trading:
        yield trading
