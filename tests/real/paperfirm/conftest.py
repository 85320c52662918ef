"""A whole firm on a whole exchange, in a folder of its own, gone afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 40.0


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def _python(module: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", f"from {module} import main; main()", *map(str, arguments)]


class World:
    """Exchange and firm as processes; everything else goes over their public interfaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.firm_folder = folder / "firm"
        self._exchange = subprocess.Popen(
            _python("paperexchange.cli", "serve", "--dir", folder / "exchange", "--seed", "5"),
            stdout=subprocess.DEVNULL,
        )
        self.wait((folder / "exchange" / "endpoints.json").exists)
        self.exchange = json.loads((folder / "exchange" / "endpoints.json").read_text())
        self.supervisor: subprocess.Popen[bytes] | None = None

    def up(self, *arguments: str | Path) -> None:
        """Start the firm and wait until it trades; `arguments` are those of `paperfirm up`."""
        assert self.supervisor is None
        exchange = self.folder / "exchange" / "endpoints.json"
        command = _python(
            "paperfirm.cli", "up", "--dir", self.firm_folder, "--exchange", exchange, *arguments
        )
        self.supervisor = subprocess.Popen(command)
        pid = self.supervisor.pid
        self.wait(lambda: (self.firm_folder / "endpoints.json").exists() and self.endpoints["pid"] == pid)
        try:
            self.wait(self.trades)
        except AssertionError as error:
            raise AssertionError(f"the firm does not trade: {self.account()}") from error

    def account(self) -> str:
        """Tell what happened lately, for a failing test."""
        lines = [
            event for path in (self.firm_folder / "events").glob("*") for event in self.events(path.stem)
        ]
        latest = sorted(lines, key=lambda event: int(event["mono_ns"]))[-60:]
        return "\n".join(f"{e['mono_ns']} {e['component']} {e['event']} {e['detail']}" for e in latest)

    def down(self) -> int:
        """Stop the firm cleanly; returns its exit status."""
        assert self.supervisor is not None
        self.supervisor.send_signal(signal.SIGTERM)
        status = self.supervisor.wait(timeout=LIMIT_S)
        self.supervisor = None
        return status

    def kill_supervisor(self) -> None:
        """End the supervisor the hard way."""
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()
        self.supervisor = None

    def close(self) -> None:
        """Leave nothing running."""
        descendants = self.processes() if self.supervisor is not None else set()
        for process in (self.supervisor, self._exchange):
            if process is not None:
                process.kill()
                process.wait()
        self.wait(lambda: not any(map(self.runs, descendants)))

    def processes(self) -> set[int]:
        """All descendants of the supervisor."""
        assert self.supervisor is not None
        command = ["ps", "-e", "-o", "pid=,ppid="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        parents = {
            int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())
        }
        found: set[int] = set()
        fresh = {self.supervisor.pid}
        while fresh:
            fresh = {child for child, parent in parents.items() if parent in fresh} - found
            found |= fresh
        return found

    @staticmethod
    def runs(pid: int) -> bool:
        """Whether a process exists and is no zombie."""
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        except OSError:
            return False

    @staticmethod
    def wait(condition: Callable[[], Any], *, limit_s: float = LIMIT_S) -> Any:
        """Poll until the condition gives something true, and return that."""
        deadline_s = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline_s, f"not reached within {limit_s} s: {condition}"
            time.sleep(0.02)
        return found

    # ---- looking at the firm

    @property
    def endpoints(self) -> dict[str, Any]:
        """The firm's endpoints.json."""
        return json.loads((self.firm_folder / "endpoints.json").read_text())

    def trades(self) -> bool:
        """Whether the supervisor says that the firm trades."""
        try:
            return bool(_get(f"{self.endpoints['http']}/ready"))
        except (OSError, ValueError):
            return False

    def components(self) -> dict[str, dict[str, Any]]:
        """Return the supervisor's list."""
        return _get(f"{self.endpoints['http']}/components")["components"]

    def primary(self) -> str:
        """Name of the engine that is primary."""
        return _get(f"{self.endpoints['http']}/components")["primary"]

    def state(self, path: str) -> Any:
        """Return a state document of the present primary; None while there is none."""
        try:
            return _get(f"{self.endpoints['http']}/state/{path}")
        except (OSError, ValueError):
            return None

    def events(self, component: str, *names: str) -> list[dict[str, Any]]:
        """Return the events of a component with one of these names, all of them without names."""
        path = self.firm_folder / "events" / f"{component}.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [event for event in found if not names or event["event"] in names]

    def kill(self, component: str) -> int:
        """Kill a component with SIGKILL; returns its pid."""
        pid = self.components()[component]["pid"]
        os.kill(pid, signal.SIGKILL)
        return int(pid)

    def misbehave(self, action: str, **more: Any) -> None:
        """Have the exchange misbehave towards the firm now."""
        always = {"on": None, "session": "FIRM", "count": 1, "expires_s": 30}
        self.control("misbehave", action=action, parameters=more, **always)

    def control(self, what: str, **body: Any) -> None:
        """Ask the exchange's control interface."""
        url = f"{self.exchange['http']}/control/{what}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status < 300

    # ---- trading

    def trade(self, count: int, *, tag: str) -> dict[str, str]:
        """Send market orders to the primary; return each one's answer: a ClOrdID, or "rejected: …"."""
        names = ("engine-a", "engine-b")
        host, port = self.endpoints["order_entry"][names.index(self.primary())].split(":")
        answers: dict[str, str] = {}
        with (
            socket.create_connection((host, int(port)), timeout=20) as connection,
            connection.makefile("rw") as lines,
        ):
            for number in range(count):
                symbol = self.exchange["symbols"][number % len(self.exchange["symbols"])]
                side = "buy" if number % 3 else "sell"
                order = {
                    "client_order_id": f"{tag}{number}",
                    "symbol": symbol,
                    "side": side,
                    "quantity": 1 + number % 5,
                }
                lines.write(json.dumps({"new": {**order, "price": None, "tif": "ioc"}}) + "\n")
                lines.flush()
            while len(answers) < count:
                answer = json.loads(lines.readline())
                if "accepted" in answer:
                    answers[answer["accepted"]] = answer["cl_ord_id"]
                elif "rejected" in answer:
                    answers[answer["rejected"]] = f"rejected: {answer['reason']}"
        return answers

    def exchange_executions(self) -> list[dict[str, Any]]:
        """Every fill that the exchange has for the firm."""
        since, found = 0, []
        while True:
            page = _get(f"{self.exchange['http']}/accounts/FIRM/executions?since={since}&limit=5000")
            found += page["executions"]
            if page["next"] >= page["last"] or not page["executions"]:
                return found
            since = page["next"]

    def firm_executions(self) -> list[dict[str, Any]]:
        """Every fill that the firm has booked."""
        since, found = 0, []
        while (page := self.state(f"executions?since={since}&limit=5000")) and page["executions"]:
            found += page["executions"]
            since = page["next"]
        return found

    def books_agree(self) -> bool:
        """Whether executions and positions are the same on both sides, fill by fill, none twice."""
        mine = sorted(
            (e["exec_id"], e["symbol"], e["side"], e["quantity"], e["price"]) for e in self.firm_executions()
        )
        theirs = sorted(
            (e["exec_id"], e["symbol"], e["side"], e["quantity"], e["price"])
            for e in self.exchange_executions()
        )
        held = self.state("positions")
        if mine != theirs or held is None:
            return False
        account = _get(f"{self.exchange['http']}/accounts/FIRM/positions")["positions"]
        ours = {
            p["symbol"]: (p["quantity"], p["cash"]) for p in held["positions"] if p["quantity"] or p["cash"]
        }
        return ours == {
            s: (p["quantity"], p["cash"]) for s, p in account.items() if p["quantity"] or p["cash"]
        }

    def database_agrees(self) -> bool:
        """Whether the database holds every execution of the exchange once."""

        async def ask() -> set[str]:
            connection = await asyncpg.connect(self.endpoints["postgres"])
            try:
                return {row["exec_id"] for row in await connection.fetch("select exec_id from executions")}
            finally:
                await connection.close()

        try:
            return asyncio.run(ask()) == {execution["exec_id"] for execution in self.exchange_executions()}
        except (OSError, asyncpg.PostgresError):
            return False


@pytest.fixture
def make_world() -> Iterator[Callable[[], World]]:
    """Give a maker of worlds, each in its own folder; all are ended and removed afterwards."""
    worlds: list[World] = []
    folders: list[Path] = []

    def make() -> World:
        folders.append(Path(tempfile.mkdtemp(prefix="firm-")))
        worlds.append(World(folders[-1]))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    """Give one exchange with one firm that trades."""
    world = make_world()
    world.up()
    return world
