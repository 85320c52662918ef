from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from target_kit import Clock, Notes, until

from blackstart.errors import ManifestError, TargetError
from blackstart.model.manifest import (
    EventSource,
    Manifest,
    Match,
    OracleSpec,
    ProbeSpec,
    Service,
    StateDocument,
    Stream,
)
from blackstart.model.record import OracleSeen, ProbeChange, Problem, ServiceWatched, SignalSeen
from blackstart.target import probes
from blackstart.target.rig import LocalRig, build

if TYPE_CHECKING:
    from pathlib import Path


class FakeExchange:
    """An HTTP server with the paper exchange's interface, a list of events, and streams that can break."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.healthy = True
        self.asked: list[str] = []
        self.connected = 0
        self.posted: list[tuple[str, str, Any]] = []
        self._streams: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; return the address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and cut everything."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break all event streams."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def happen(self, kind: str, **fields: Any) -> None:
        """Let something happen and tell every stream."""
        event = {"seq": len(self.events) + 1, "kind": kind, "mono_ns": time.monotonic_ns(), **fields}
        self.events.append(event)
        for stream in self._streams:
            self._send(stream, event)

    def _send(self, stream: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        line = json.dumps(event).encode() + b"\n"
        stream.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        try:
            await self._answer_all(reader, writer)
        finally:
            self.connected -= 1

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
                length = [
                    int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"Content-Length")
                ]
                body = await reader.readexactly(length[0]) if length else b""
                self.asked.append(path)
                if method != "GET":
                    self.posted.append((method, path, json.loads(body) if body else None))
                if path.startswith("/events"):
                    self._stream(writer, path)
                    return
                status, document = self._answer(path)
                text = json.dumps(document).encode()
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        writer.close()

    def _stream(self, writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        since = path.split("since=")[1].split("&", maxsplit=1)[0]
        for event in self.events[int(since) :] if since.isdigit() else []:
            self._send(writer, event)
        self._send(writer, {"kind": "heartbeat", "seq": len(self.events), "mono_ns": time.monotonic_ns()})
        self._streams.append(writer)

    def _answer(self, path: str) -> tuple[int, Any]:
        if path == "/ready":
            return (200 if self.healthy else 503), {}
        if path.startswith("/oracle/acknowledged"):
            since = int(path.split("since=")[1].split("&", maxsplit=1)[0])
            rows = [event for event in self.events if event["kind"] == "fill"][since : since + 2]
            return 200, {"events": rows, "next": since + len(rows), "end": not rows}
        if path.startswith("/held"):
            since = int(path.split("since=")[1].split("&", maxsplit=1)[0])
            return 200, {
                "list": [{"id": f"X{n}", "q": 5} for n in range(since, min(since + 2, 3))],
                "next": min(since + 2, 3),
                "last": 3,
            }
        if path.startswith("/sparse"):  # 20 of them, of which the fourth page has the only one that is wanted
            since = int(path.split("since=")[1].split("&", maxsplit=1)[0])
            rows = [{"id": f"X{n}", "q": 5, "mine": n == 7} for n in range(since, min(since + 2, 20))]
            return 200, {"list": rows, "next": min(since + 2, 20)}
        return 200, {
            "mine": {"quantity": 7},
            "positions": {"ALFA": {"quantity": 7}},
            "orders": [{"order_id": "1"}],
        }


def described(url: str, folder: Path) -> Manifest:
    """Return a manifest around the fake exchange."""
    return Manifest(
        schema=1,
        name="t",
        environment="test",
        events={"app": EventSource(files=str(folder / "*.jsonl"))},
        probes={"up": ProbeSpec(url=f"{url}/ready", period_ms=5.0)},
        oracle=OracleSpec(kind="exchange", url=url, account="A", session="S"),
        services={
            "orders": Service(source="oracle", event="order_accepted", where={"cl_ord_id": "~^1-"}),
            "ping": Service(source="probe:up"),
        },
        streams={
            "fills": Stream(
                acknowledged="oracle:executions",
                url=f"{url}/held",
                select="list",
                page=True,
                key="exec_id",
                content=("quantity",),
                rename={"exec_id": "id", "quantity": "q"},
                notional=("quantity", "price"),
            )
        },
        state={
            "positions": StateDocument(url=f"{url}/any", select="mine"),
            "pnl": StateDocument(url="http://127.0.0.1:1/"),
        },
    )


@contextlib.asynccontextmanager
async def around(folder: Path) -> Any:
    """Yield exchange, rig and notes."""
    exchange, notes = FakeExchange(), Notes()
    url = await exchange.start()
    rig = build(
        described(url, folder),
        run_dir=folder / "run",
        seed=1,
        clock=Clock(),
        sink=notes.records.append,
        protect=notes.protect,
    )
    try:
        yield exchange, rig, notes
    finally:
        await rig.target.close()
        await exchange.stop()


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a watch; it must end."""
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.done()


def test_pages_of_which_nothing_is_taken_are_not_the_end(tmp_path: Path) -> None:
    """A `select` that filters may leave pages empty: what stands behind them is read, too."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, _):
            spec = rig.target.manifest.streams["fills"]
            url = spec.url.replace("/held", "/sparse")
            sparse = msgspec.structs.replace(spec, url=url, select="list[?mine]")
            rig.target.manifest.streams["fills"] = sparse
            (tmp_path / "ledger").mkdir()
            held = await rig.target.export("fills", tmp_path / "ledger")
            assert held.error is None
            rows = [json.loads(line) for line in (tmp_path / held.path).read_text().splitlines()]
            assert [row["key"] for row in rows] == ["X7"]
            assert sum(path.startswith("/sparse") for path in exchange.asked) == 11

    asyncio.run(run())


def test_service_events_are_chosen_stamped_and_watched_without_a_break(tmp_path: Path) -> None:
    """Only matching events count, stamped by the kernel where it did; the watch ends with what it saw."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            task = asyncio.create_task(rig.watch(["orders"], []))
            await until(lambda: sum(path.startswith("/events") for path in exchange.asked) == 2)
            exchange.happen("order_accepted", cl_ord_id="1-1", received_mono_ns=5, received_stamp="kernel")
            exchange.happen("order_accepted", cl_ord_id="2-1", received_mono_ns=6, received_stamp="kernel")
            exchange.happen("order_accepted", cl_ord_id="1-2", received_mono_ns=7, received_stamp="user")
            await until(lambda: len(notes.events()) == 2)
            await ended(task)
            assert notes.events() == [(5, "1-1", 0), (7, "1-2", 100_000)]
            (watched,) = notes.of(ServiceWatched)
            assert watched.error is None
            assert watched.until_mono_ns == exchange.events[-1]["mono_ns"]

    asyncio.run(run())


def test_symbols_are_told_apart_where_the_manifest_says_how(tmp_path: Path) -> None:
    """Events come with the symbol in the place of the key; a service without `symbol` is refused."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            with pytest.raises(ManifestError, match="no `symbol`"):
                await rig.watch_symbols("orders", notes.records.append)
            spec = rig.target.manifest.services["orders"]
            rig.target.manifest.services["orders"] = msgspec.structs.replace(spec, symbol="symbol")
            task = asyncio.create_task(rig.watch_symbols("orders", notes.records.append))
            await until(lambda: sum(path.startswith("/events") for path in exchange.asked) == 1)
            for cl_ord_id, symbol in (("1-1", "ALFA"), ("2-1", "BRAVO"), ("1-2", "CHARLIE")):
                exchange.happen("order_accepted", cl_ord_id=cl_ord_id, symbol=symbol)
            await until(lambda: len(notes.events()) == 2)
            await ended(task)
            assert [key for _, key, _ in notes.events()] == ["ALFA", "CHARLIE"]

    asyncio.run(run())


def test_a_broken_stream_is_told_and_what_was_missed_is_fetched(tmp_path: Path) -> None:
    """After a break the sequence number brings back every event; the break stands in the history."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            task = asyncio.create_task(rig.watch(["orders"], []))
            await until(lambda: sum(path.startswith("/events") for path in exchange.asked) == 2)
            exchange.happen("order_accepted", cl_ord_id="1-1")
            await until(lambda: len(notes.events()) == 1)
            exchange.cut()
            exchange.happen("order_accepted", cl_ord_id="1-2")
            await until(lambda: len(notes.events()) == 2)
            await ended(task)
            first, second = notes.of(ServiceWatched)
            assert "broke" in first.error
            assert second.error is None
            assert second.since_mono_ns == first.until_mono_ns

    asyncio.run(run())


def test_interesting_oracle_events_are_recorded_and_others_are_not(tmp_path: Path) -> None:
    """The event that a trigger waits for, and what happens to sessions."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            task = asyncio.create_task(rig.watch(["orders"], [Match(event="fill", where={"cum": 500})]))
            await until(lambda: sum(path.startswith("/events") for path in exchange.asked) == 2)
            exchange.happen("fill", cum=400)
            exchange.happen("fill", cum=500)
            exchange.happen("session_disconnected", session="S")
            await until(lambda: len(notes.of(OracleSeen)) == 2)
            await ended(task)
            assert [seen.event for seen in notes.of(OracleSeen)] == ["fill", "session_disconnected"]
            assert notes.of(OracleSeen)[0].fields["cum"] == 500

    asyncio.run(run())


def test_signals_keep_their_own_stamp_and_other_lines_are_passed_over(tmp_path: Path) -> None:
    """A line counts when it is an object with a name and a monotonic stamp."""

    async def run() -> None:
        async with around(tmp_path) as (_, rig, notes):
            task = asyncio.create_task(rig.watch(["orders"], []))
            await until(lambda: notes.of(ProbeChange))
            with (tmp_path / "app.jsonl").open("a") as log:
                log.write(
                    'plain text\n[1]\n{"event": "x"}\n{"mono_ns": 5, "event": "ready", "detail": {"a": 1}}\n'
                )
            await until(lambda: notes.of(SignalSeen))
            await ended(task)
            (seen,) = notes.of(SignalSeen)
            assert (seen.source, seen.event, seen.mono_ns, seen.fields) == (
                "app",
                "ready",
                5,
                {"detail": {"a": 1}},
            )
            assert seen.seen_mono_ns > 5

    asyncio.run(run())


def test_a_change_of_a_probe_lies_within_its_uncertainty(tmp_path: Path) -> None:
    """The true moment of the change is between the stamp and the stamp minus its uncertainty."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            task = asyncio.create_task(rig.watch(["ping"], []))
            await until(lambda: notes.of(ProbeChange))  # the first answer is the first change
            for healthy in (False, True) * 5:
                before = len(notes.of(ProbeChange))
                true_moment = time.monotonic_ns()
                exchange.healthy = healthy
                await until(lambda before=before: len(notes.of(ProbeChange)) > before)
                change = notes.of(ProbeChange)[-1]
                assert change.ok is healthy
                assert change.mono_ns - change.uncertainty_ns <= true_moment <= change.mono_ns
            await ended(task)
            assert notes.events()
            assert [watched.service for watched in notes.of(ServiceWatched)] == ["ping"]

    asyncio.run(run())


def test_a_probe_that_ends_leaves_no_connection(tmp_path: Path) -> None:
    """Whoever still knows of it: a session of chaos watches anew with each disturbance."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            spec = msgspec.structs.replace(rig.target.manifest.probes["up"], period_ms=60_000.0)
            probe = probes.make("up", spec, str, Clock())
            task = asyncio.create_task(probes.run(probe, clock=Clock(), sink=notes.records.append))
            await until(lambda: notes.of(ProbeChange))  # from now on it sleeps
            assert exchange.connected == 1
            await ended(task)
            await until(lambda: exchange.connected == 0)

    asyncio.run(run())


def test_a_failing_watcher_leaves_a_problem_and_the_others_go_on(tmp_path: Path) -> None:
    """What cannot be watched is told, never silently absent."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, notes):
            task = asyncio.create_task(rig.watch(["orders"], []))
            await until(lambda: sum(path.startswith("/events") for path in exchange.asked) == 2)
            exchange.happen("order_accepted", cl_ord_id="1-1", mono_ns=None)  # not as the interface promises
            await until(lambda: notes.of(Problem))
            exchange.healthy = False
            await until(lambda: [change for change in notes.of(ProbeChange) if not change.ok])
            await ended(task)
            assert notes.of(Problem)[0].code == "watch-failed"

    asyncio.run(run())


def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    """Not watched silently in vain."""

    async def run() -> None:
        async with around(tmp_path) as (_, rig, _notes):
            with pytest.raises(ManifestError, match="did you mean `orders`"):
                await rig.watch(["order"], [])

    asyncio.run(run())


def test_both_sides_of_a_stream_are_written_in_one_form(tmp_path: Path) -> None:
    """Pages are followed to their end on both sides; renamed fields give the same content."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, _):
            for number in range(3):
                exchange.happen("fill", exec_id=f"X{number}", exec_seq=number + 1, quantity=5, price=10)
            acknowledged = await rig.acknowledged("fills", tmp_path / "ledger")
            recovered = await rig.target.export("fills", tmp_path / "ledger")
            assert (acknowledged.rows, acknowledged.error) == (3, None)
            assert (recovered.rows, recovered.error) == (3, None)
            sides = [
                [json.loads(line) for line in (tmp_path / side.path).read_text().splitlines()]
                for side in (acknowledged, recovered)
            ]
            assert [(row["key"], row["content"]) for row in sides[0]] == [
                (row["key"], row["content"]) for row in sides[1]
            ]
            assert sides[0][0]["notional"] == 50
            assert await rig.totals("fills") == (None, 3)

    asyncio.run(run())


def test_an_export_that_fails_says_so_in_its_record(tmp_path: Path) -> None:
    """A side that could not be read is not an empty side."""

    async def run() -> None:
        async with around(tmp_path) as (exchange, rig, _):
            await exchange.stop()
            for record in (
                await rig.acknowledged("fills", tmp_path / "ledger"),
                await rig.target.export("fills", tmp_path / "ledger"),
            ):
                assert "cannot be reached" in (record.error or "")

    asyncio.run(run())


def test_documents_are_reshaped_and_missing_ones_are_told(tmp_path: Path) -> None:
    """JMESPath makes the documented form; an address that does not answer is an error with the address."""

    async def run() -> None:
        async with around(tmp_path) as (_, rig, _notes):
            assert await rig.target.document("positions") == {"quantity": 7}
            with pytest.raises(TargetError, match=r"127\.0\.0\.1:1"):
                await rig.target.document("pnl")
            with pytest.raises(TargetError, match="no document `risk`"):
                await rig.target.document("risk")

    asyncio.run(run())


def test_the_oracle_can_be_the_fault_and_is_disarmed(tmp_path: Path) -> None:
    """Misbehaviours are armed as the exchange's interface says, and taken back."""

    async def run(rig_type: type[LocalRig]) -> None:
        async with around(tmp_path) as (exchange, rig, _):
            assert isinstance(rig, rig_type)
            assert rig.oracle is not None
            await rig.oracle.misbehave(
                "disconnect",
                on=Match(event="fill", where={"cum": 5}),
                parameters={"refuse_ms": 500, "count": 2},
            )
            await rig.oracle.script_fills({"min_quantity": 1000, "slices": [500, 500]})
            await rig.oracle.behave()
            assert await rig.oracle.positions() == {"ALFA": {"quantity": 7}}
            assert await rig.oracle.open_orders() == [{"order_id": "1"}]
            assert exchange.posted == [
                (
                    "POST",
                    "/control/misbehave",
                    {
                        "action": "disconnect",
                        "on": {"kind": "fill", "cum": 5},
                        "session": "S",
                        "parameters": {"refuse_ms": 500},
                        "count": 2,
                    },
                ),
                ("POST", "/control/fills", {"account": "A", "min_quantity": 1000, "slices": [500, 500]}),
                ("DELETE", "/control/misbehave", None),
            ]

    asyncio.run(run(LocalRig))
