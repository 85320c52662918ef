"""Process of the exchange: sockets, timers, lock, recovery, end."""

import asyncio
import contextlib
import fcntl
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from paperexchange import clock
from paperexchange import facts as f
from paperexchange.calendar import Calendar
from paperexchange.config import Config
from paperexchange.errors import ExchangeError
from paperexchange.exchange import Exchange
from paperexchange.gateway.acceptor import Acceptor, BadLogonRule
from paperexchange.ledger.writer import Ledger
from paperexchange.misbehave import Misbehaviour
from paperexchange.participants import Participants
from paperexchange.recovery import Recovered, recover
from paperexchange.state import State

_TICK_S = 0.02
_RATE_S = 1.0


class Server:
    """One running exchange in one directory."""

    def __init__(self, directory: Path, config: Config, *, mode: str = "new") -> None:
        """`mode`: `new` (no ledger may exist), `recover` (continue it), `fresh` (set it aside)."""
        self.directory = directory
        self.config = config
        self.ledger_path = directory / "ledger.jsonl"
        self._mode = mode
        self._stop = asyncio.Event()
        self._failure: ExchangeError | None = None
        self._lock_fd = -1
        self._orders_before = 0
        self._tasks: list[asyncio.Task[Any]] = []

    # Start ----------------------------------------------------------------------------------------------

    def _lock(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._lock_fd, 32).decode(errors="replace").strip() or "unknown"
            raise ExchangeError(
                f"another paperexchange (pid {owner}) uses this directory",
                where=str(self.directory),
                hint="stop it, or choose another --dir",
            ) from error
        os.ftruncate(self._lock_fd, 0)
        os.write(self._lock_fd, f"{os.getpid()}\n".encode())

    def _load(self) -> Recovered | None:
        exists = self.ledger_path.exists() and self.ledger_path.stat().st_size > 0
        if self._mode == "fresh" and exists:
            self.ledger_path.rename(self.directory / f"ledger-{time.time_ns()}.jsonl")
            return None
        if self._mode == "new" and exists:
            raise ExchangeError(
                "there is a ledger already",
                where=str(self.ledger_path),
                hint="--recover continues it, --fresh sets it aside",
            )
        return recover(self.ledger_path) if exists else None

    def _build(self) -> Exchange:
        recovered = self._load()
        state = recovered.state if recovered else State()
        ledger = Ledger(self.ledger_path, seq=state.seq, on_failure=self._disk_failed)
        exchange = Exchange(self.config, state, ledger, clock.now)
        if recovered:
            ledger.index = recovered.index
        self._note_start(exchange)
        if recovered:
            exchange.resume(recovered)
        return exchange

    def _note_start(self, exchange: Exchange) -> None:
        now = clock.now()
        exchange.record(
            f.Started(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                run=exchange.state.runs + 1,
                seed=self.config.seed,
                symbols={i.symbol: i.mid for i in self.config.instruments()},
                pid=os.getpid(),
            )
        )

    def _disk_failed(self, error: OSError) -> None:
        """Nothing may leave an exchange that cannot write its ledger."""
        self._failure = ExchangeError(
            f"cannot be written: {error.strerror}",
            where=str(self.ledger_path),
            hint="free space on that disk, then start with --recover",
        )
        self._stop.set()

    def _listen(self, port_name: str, make: Callable[[tuple[str, int]], Any]) -> Any:
        port: int = getattr(self.config.ports, port_name)
        before = self._ports_before().get(port_name, 0) if port == 0 else 0
        if before:
            with contextlib.suppress(OSError):  # somebody else has it now: any free one
                return make((self.config.host, before))
        try:
            return make((self.config.host, port))
        except OSError as error:
            raise ExchangeError(
                f"cannot listen on {self.config.host}:{port}: {error.strerror}",
                where=f"ports.{port_name}",
                hint="0 takes any free port",
            ) from error

    def _ports_before(self) -> dict[str, int]:
        """Give the ports of the life before: members come back to where they were."""
        if self._mode == "new":
            return {}
        try:
            return msgspec.json.decode((self.directory / "ports.json").read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def _acceptor(self, exchange: Exchange, port_name: str, gateway: str) -> Acceptor:
        hosts = {
            host.session.config.target: host for host in exchange.hosts.values() if host.gateway == gateway
        }
        return self._listen(  # type: ignore[no-any-return]
            port_name,
            lambda address: Acceptor(
                gateway,
                hosts,
                comp_id=self.config.comp_id,
                address=address,
                next_conn=exchange.next_conn,
                record=exchange.record,
                clock=clock.now,
                bad_logons=self._bad_logons(),
            ),
        )

    def _bad_logons(self) -> BadLogonRule | None:
        given = self.config
        rule = BadLogonRule(given.bad_logon_limit, given.bad_logon_window_s, given.bad_logon_closed_s)
        return rule if rule.limit else None

    # Run ------------------------------------------------------------------------------------------------

    async def run(self, *, preload: tuple[str, int] | None = None) -> None:
        """Serve until SIGTERM or SIGINT; raises ExchangeError when it cannot start or the disk refuses."""
        self._lock()
        exchange = self._build()
        http, member = self._listen("http", _bound), self._listen("member", _bound)
        acceptors = [
            self._acceptor(exchange, "fix", "primary"),
            self._acceptor(exchange, "fix_backup", "backup"),
            self._acceptor(exchange, "drop_copy", "drop_copy"),
        ]
        exchange.acceptors = {acceptor.gateway: acceptor for acceptor in acceptors}
        exchange.die = self._die
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: exchange.feed, sock=self._listen("market_data", _bound_datagram)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._begin_trading(exchange)
        if preload is not None:
            await exchange.preload(*preload)
        await exchange.ledger.barrier()
        web = [http.getsockname()[1], member.getsockname()[1]]
        self._announce(exchange, web, acceptors, transport.get_extra_info("sockname")[1])
        app = await asyncio.to_thread(importlib.import_module, "paperexchange.control.app")
        runners = await app.serve(exchange, http, member)
        await self._stop.wait()
        await self._end(exchange, acceptors, transport, runners)

    def _announce(self, exchange: Exchange, web: list[int], acceptors: list[Acceptor], md: int) -> None:
        """Say where everything is: `endpoints.json` appears in one piece, then standard output has it too."""
        ports = [{"host": a.endpoint[0], "port": a.endpoint[1]} for a in acceptors]
        ids = {account: self.config.account_ids(account) for account in self.config.accounts}
        endpoints = {
            "pid": os.getpid(),
            "http": f"http://{self.config.host}:{web[0]}",
            "member": f"http://{self.config.host}:{web[1]}",
            "fix": ports[0],
            "fix_backup": ports[1],
            "drop_copy": ports[2],
            "market_data": {"host": self.config.host, "port": md},
            "ledger": str(self.ledger_path),
            "symbols": list(exchange.venue.instruments),
            "comp_id": self.config.comp_id,
            "accounts": {a: {"comp_id": i[0], "drop_copy_comp_id": i[1]} for a, i in ids.items()},
        }
        numbers = [*web, *(port["port"] for port in ports), md]
        names = ("http", "member", "fix", "fix_backup", "drop_copy", "market_data")
        (self.directory / "ports.json").write_bytes(
            msgspec.json.encode(dict(zip(names, numbers, strict=True)))
        )
        text = msgspec.json.encode(endpoints)
        temporary = self.directory / "endpoints.json.new"
        temporary.write_bytes(text + b"\n")
        temporary.replace(self.directory / "endpoints.json")
        with contextlib.suppress(BrokenPipeError):  # started again, and whoever read the first line has gone
            sys.stdout.write(text.decode() + "\n")
            sys.stdout.flush()

    def _begin_trading(self, exchange: Exchange) -> None:
        """First phase, first quotes, then the timers."""
        calendar = Calendar.parse(self.config.calendar)
        settings = self.config.participants
        participants = Participants(exchange.venue, settings, Random(f"participants {self.config.seed}"))
        participants.adopt()
        self._tasks = [
            asyncio.create_task(self._keep_calendar(exchange, calendar)),
            asyncio.create_task(self._tick(exchange)),
            asyncio.create_task(self._measure(exchange)),
        ]
        if calendar.kind == "always" and exchange.state.phase != "continuous":
            exchange.enter("continuous")
        if settings.events_per_s > 0:
            participants.seed_books(clock.now())
            exchange.publish(clock.now())
            self._tasks.append(asyncio.create_task(self._trade(exchange, participants)))
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = ExchangeError(f"{type(error).__name__}: {error}", where="exchange")
            self._failure.__cause__ = error
            self._stop.set()

    async def _keep_calendar(self, exchange: Exchange, calendar: Calendar) -> None:
        began = time.monotonic()
        before = ""
        while calendar.kind in ("clock", "compressed"):
            local = time.localtime()
            second = local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec
            due = calendar.due(time.monotonic() - began, second)
            if due.phase not in (before, exchange.state.phase):
                exchange.enter(due.phase)
            before = due.phase
            await asyncio.sleep(min(due.next_in_s or 1.0, 1.0) + 0.001)

    async def _tick(self, exchange: Exchange) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = clock.now()
            for host in exchange.hosts.values():
                host.tick(now)
            exchange.feed.tick(now.mono_ns)

    async def _measure(self, exchange: Exchange) -> None:
        while True:
            before, began = exchange.orders_received, time.monotonic()
            await asyncio.sleep(_RATE_S)
            exchange.orders_per_s = round((exchange.orders_received - before) / (time.monotonic() - began), 1)

    async def _trade(self, exchange: Exchange, participants: Participants) -> None:
        interval_s = 1 / self.config.participants.events_per_s
        due = time.monotonic()
        while True:
            due = max(due + interval_s, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = clock.now()
            participants.step(now)
            exchange.publish(now)

    # End ------------------------------------------------------------------------------------------------

    def _die(self, armed: Misbehaviour) -> None:
        """End as by SIGKILL, or become a new exchange in the same process (same pid, nothing else kept)."""
        if armed.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        state = bool(armed.parameters.get("state", True))
        down_s = armed.number("down_ms", 0) / 1000
        os.execv(sys.executable, [sys.executable, "-m", "paperexchange", *again(sys.argv[1:], state, down_s)])  # noqa: S606 - our own program

    async def _end(
        self,
        exchange: Exchange,
        acceptors: list[Acceptor],
        transport: asyncio.DatagramTransport,
        runners: list[Any],
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for acceptor in acceptors:
            acceptor.close()
        if self._failure is not None:
            raise self._failure
        now = clock.now()
        for host in exchange.hosts.values():
            host.log_out("the exchange ends", now)
        await exchange.ledger.barrier()
        for host in exchange.hosts.values():
            host.cut("the exchange ends")
        transport.close()
        exchange.record(f.Stopped(mono_ns=now.mono_ns, wall_ns=now.wall_ns))
        await exchange.ledger.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(runner.cleanup() for runner in runners)), 2)
        os.close(self._lock_fd)


def again(arguments: list[str], state: bool, down_s: float) -> list[str]:  # noqa: FBT001 - the state itself
    """Give the command line that starts this exchange again, with its ledger or without."""
    kept = [word for word in arguments if word not in ("--recover", "--fresh")]
    for option in ("--start-after-s", *(("--preload-executions",) if state else ())):
        while option in kept:
            place = kept.index(option)
            del kept[place : place + 2]
    return [*kept, "--recover" if state else "--fresh", "--start-after-s", str(down_s)]


def _bound_datagram(address: tuple[str, int]) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def _bound(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def serve(
    directory: Path, config: Config, *, mode: str = "new", preload: tuple[str, int] | None = None
) -> None:
    """Run an exchange until it is told to end."""
    import uvloop  # noqa: PLC0415 - only the server needs it

    async def main() -> None:
        await Server(directory, config, mode=mode).run(preload=preload)

    uvloop.run(main())
