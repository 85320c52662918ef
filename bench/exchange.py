"""How many orders a second the paper exchange takes, and how long an acknowledgement takes.

    python bench/exchange.py [--seconds 5] [--json]

A real exchange process (one event loop; ledger on, synced before every acknowledgement) and a real FIX client
over TCP; `exchange_cpu_us_per_order` says what one core could carry. First a bare TCP echo round trip in the
same run: latencies are given as a ratio to it too, because the machine decides about both. Then one order at
a time (latency), then a window of orders in flight (throughput); an order counts when its report is here.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from fixsession import LoggedOn, Message, Now, Role, Session, SessionConfig, Transmit
from fixsession.effects import Deliver
from fixsession.store import MemoryStore

SYMBOLS = ("ALFA", "BRAVO", "CHARLIE", "DELTA", "ECHO", "FOXTROT", "GOLF", "HOTEL")
ROUND_TRIPS = 2000


def now() -> Now:
    return Now(time.monotonic_ns(), time.time_ns())


class Client:
    """A blocking FIX initiator."""

    def __init__(self, endpoint: dict[str, Any]) -> None:
        self.sock = socket.create_connection((endpoint["host"], endpoint["port"]))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = SessionConfig(sender="FIRM", target="PAPEREX", role=Role.INITIATOR, heartbeat_s=30)
        self.session = Session(config, MemoryStore())
        self.transmit(self.session.connected(now()))
        self.acknowledged: set[str] = set()
        self.reports = 0
        while not self.session.logged_on:
            self.receive()

    def transmit(self, effects: list[Any]) -> None:
        """Write what the session wants written."""
        data = b"".join([effect.data for effect in effects if isinstance(effect, Transmit)])
        if data:
            self.sock.sendall(data)

    def receive(self) -> None:
        """Take in one read; acknowledgements are noted."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise SystemExit("the exchange closed the connection")
        effects = self.session.received(data, now())
        for effect in effects:
            if isinstance(effect, Deliver):
                self.reports += 1
                if effect.message.get(150) == "0":
                    self.acknowledged.add(effect.message.require(11))
        self.session.commit(now())
        self.transmit([effect for effect in effects if not isinstance(effect, LoggedOn | Deliver)])

    def order(self, number: int, mids: dict[str, int]) -> list[Any]:
        """Mostly resting a few ticks away, every fourth takes from the maker."""
        symbol = SYMBOLS[number % 8]
        price = mids[symbol] + (500 if number % 4 == 0 else -1000 - 100 * (number % 10))
        fields = {
            11: f"B{number}",
            55: symbol,
            54: "1",
            38: "100",
            40: "2",
            44: f"{price / 10000:.2f}",
            59: "0",
            60: time.strftime("%Y%m%d-%H:%M:%S", time.gmtime()),
        }
        return self.session.send(Message.of("D", fields), now())


def echo_round_trips() -> list[float]:
    """Microseconds of 300-byte round trips through a bare echo in another process."""
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(4096):
            connection.sendall(data)
        os._exit(0)
    taken = []
    with socket.create_connection(listener.getsockname()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUND_TRIPS):
            begin = time.perf_counter()
            sock.sendall(b"x" * 300)
            sock.recv(4096)
            taken.append((time.perf_counter() - begin) * 1e6)
    listener.close()
    os.waitpid(pid, 0)
    return taken


def one_by_one(client: Client, mids: dict[str, int], count: int) -> list[float]:
    taken = []
    for number in range(count):
        begin = time.perf_counter()
        client.transmit(client.order(number, mids))
        while f"B{number}" not in client.acknowledged:
            client.receive()
        taken.append((time.perf_counter() - begin) * 1e6)
    return taken


def in_flight(
    client: Client, mids: dict[str, int], first: int, seconds: float, window: int
) -> dict[str, Any]:
    """Keep `window` orders unacknowledged for `seconds`."""
    client.acknowledged.clear()
    sent, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        effects: list[Any] = []
        while sent - len(client.acknowledged) < window:
            effects += client.order(first + sent, mids)
            sent += 1
        client.transmit(effects)
        client.receive()
    while len(client.acknowledged) < sent:
        client.receive()
    elapsed = time.perf_counter() - begin
    return {"orders": sent, "seconds": elapsed, "orders_per_s": sent / elapsed, "window": window}


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100)
    return {"p50_us": round(cuts[49], 1), "p99_us": round(cuts[98], 1)}


def measure(endpoints: dict[str, Any], seconds: float) -> dict[str, Any]:
    echo = percentiles(echo_round_trips())
    client = Client(endpoints["fix"])
    mids = {
        "ALFA": 100,
        "BRAVO": 50,
        "CHARLIE": 75.5,
        "DELTA": 150,
        "ECHO": 200,
        "FOXTROT": 250,
        "GOLF": 320,
        "HOTEL": 400,
    }
    prices = {symbol: int(mid * 10000) for symbol, mid in mids.items()}
    latency = percentiles(one_by_one(client, prices, 2000))
    cpu = cpu_seconds(endpoints["pid"])
    flow = in_flight(client, prices, 2000, seconds, 256)
    cpu = cpu_seconds(endpoints["pid"]) - cpu
    return {
        "orders_per_s": round(flow["orders_per_s"], 0),
        "orders": flow["orders"],
        "exchange_cpu_us_per_order": round(cpu / flow["orders"] * 1e6, 1),
        "ack_latency": latency,
        "echo": echo,
        "ack_to_echo_p50": round(latency["p50_us"] / echo["p50_us"], 1),
        "ack_to_echo_p99": round(latency["p99_us"] / echo["p99_us"], 1),
        "reports": client.reports,
        "ledger_bytes": Path(endpoints["ledger"]).stat().st_size,
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "paperexchange", "serve", "--dir", directory]
        exchange = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert exchange.stdout is not None
            endpoints = json.loads(exchange.stdout.readline())
            result = measure(endpoints, options.seconds)
        finally:
            exchange.terminate()
            exchange.wait()
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    assert threading.active_count() == 1
    main()
