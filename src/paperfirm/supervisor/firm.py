"""The firm as the supervisor sees it: its children, who is primary, whether it trades."""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from paperfirm.alerts import Alerts
from paperfirm.config import COMPONENTS, ENGINES
from paperfirm.http import HttpError, fetch
from paperfirm.supervisor.arbiter import Arbiter
from paperfirm.supervisor.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paperfirm.config import Firm
    from paperfirm.supervisor.child import Spec
    from paperfirm.wire import Promote, Promoted, Restart

DEATH_NOTICE_S = 0.05
"""How long a standby's request waits for the pidfd of the old primary.

The standby may see the connection end first.
"""
ANSWER_S = 0.25
"""A primary that is silent to its standby has so long to answer us."""
NEEDED = ("risk", "feed", "router", "recorder")
SERVERS = ("nats", "postgres")


class _Joined(msgspec.Struct, frozen=True):
    name: str
    connected: bool


class _Connectivity(msgspec.Struct, frozen=True):
    links: list[_Joined] = []


class Supervised:
    """All children of one firm, and the arbiter between the engines."""

    def __init__(self, firm: Firm, specs: Iterable[Spec], emit: Callable[..., int], *, state: Path) -> None:
        self.firm = firm
        self._emit = emit
        self.alerts = Alerts(emit)
        children = [
            Child(spec, emit, on_exit=self._noticed_exit, settings=firm.supervisor, alerts=self.alerts)
            for spec in specs
        ]
        self.children = {child.name: child for child in children}
        """All of them from the beginning; whoever takes them on starts them."""
        self.arbiter = Arbiter(state / "epoch.json", self._holder_lives)
        self._holder_pid: int | None = None
        self._fenced_pids: set[int] = set()
        self._changed = asyncio.Event()
        self.parts: dict[str, str] = {}
        """What did not do its work at the last look."""
        self.starting: str | None = "starting"
        """What the first start still waits for; None from when all parts have done their work once."""
        self.scrapes, self.scrape_failures = Counter[str](), Counter[str]()

    @property
    def primary(self) -> str | None:
        """The engine that holds the present epoch and lives."""
        holder = self.arbiter.tenure.primary
        return holder if holder is not None and self._holder_lives(holder) else None

    def role(self, name: str) -> str | None:
        """Return "primary", "standby" or None for a child; a primary that was passed over is neither."""
        pid = self.children[name].pid
        if name not in ENGINES or pid is None or pid in self._fenced_pids:
            return None
        return "primary" if name == self.primary else "standby"

    async def promote(self, request: Promote) -> Promoted:
        """Grant or refuse an epoch; wait a moment for the news of the old primary's death."""
        loop = asyncio.get_running_loop()
        hung = await self._hung(request)
        deadline_s = loop.time() + DEATH_NOTICE_S
        while not hung and self.arbiter.must_wait(request) and loop.time() < deadline_s:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._changed.wait()
            except TimeoutError:
                break
        former = self.arbiter.tenure.primary
        answer = self.arbiter.promote(request, hung=hung)
        if answer.granted and hung and former is not None:
            self._pass_over(former)
        if answer.granted:
            child = self.children.get(request.engine)
            self._holder_pid = child.pid if child else None
            self._emit("epoch_granted", epoch=answer.epoch, engine=request.engine)
        else:
            self._emit("epoch_refused", epoch=answer.epoch, engine=request.engine, reason=answer.reason)
        return answer

    async def _hung(self, request: Promote) -> bool:
        """Whether the primary, which is silent to its standby, does not answer us either."""
        if not (request.silent and self.arbiter.must_wait(request)):
            return False
        holder = self.arbiter.tenure.primary or ""
        if is_stopped(self._holder_pid):
            return True
        try:
            await fetch(f"{self.url(holder)}/health", limit_s=ANSWER_S)
        except HttpError:
            return True
        return False

    def _pass_over(self, engine: str) -> None:
        """Note that a living process is not primary any more; when it wakes it finds itself fenced."""
        pid = self._holder_pid
        assert pid is not None
        self._fenced_pids.add(pid)
        detail = {"engine": engine, "pid": pid, "stopped": is_stopped(pid)}
        self._emit("primary_hung", **detail)
        text = f"{engine} (process {pid}) answers nobody: its standby takes over, it is fenced"
        self.alerts.sound("primary_hung", text, key=engine, engine=engine, pid=pid)

    async def not_ready(self) -> str | None:
        """Return why the firm does not trade, or None while it does; a start ends when all parts work."""
        for name in NEEDED:
            if self.children[name].state != "running":
                return f"{name} is {self.children[name].state}"
        primary = self.primary
        if primary is None:
            return "no engine is primary"
        try:
            status, body = await fetch(f"{self.url(primary)}/ready", limit_s=1.0)
        except HttpError as error:
            return f"{primary} does not answer: {error}"
        if status != HTTPStatus.OK:
            return f"{primary}: {body.decode(errors='replace')}"
        return self.starting

    @property
    def needed_to_trade(self) -> set[str]:
        """Parts without which no client order passes."""
        return {"risk", "router", "primary", self.firm.exchange.comp_id, self.primary or ""}

    async def degraded(self) -> dict[str, str]:
        """Return the parts that do not do their work, each with the reason; empty when all is well."""
        parts = {
            name: child.state if child.state != "running" else "does not answer"
            for name, child in self.children.items()
            if child.state != "running" or self.alerts.lasts("component_silent", name)
        }
        primary = self.primary
        if primary is None:
            return parts | {"primary": "none"}
        try:
            _, body = await fetch(f"{self.url(primary)}/state/connectivity", limit_s=1.0)
            links = msgspec.json.decode(body, type=_Connectivity).links
        except (HttpError, msgspec.DecodeError):
            return parts | {primary: "does not answer"}
        return parts | {one.name: "not connected" for one in links if not one.connected}

    def url(self, name: str) -> str:
        """Return the base URL of a component."""
        return f"http://127.0.0.1:{self.firm.ports[name].http}"

    async def beat(self) -> None:
        """Update every child's heartbeat."""
        await asyncio.gather(*(child.beat() for child in self.children.values()))

    async def scrape(self) -> None:
        """Fetch the metrics of every component of ours that runs, and count it."""
        names = [name for name in COMPONENTS if self.children[name].state == "running"]
        for name, fetched in zip(names, await asyncio.gather(*map(self._scraped, names)), strict=True):
            (self.scrapes if fetched else self.scrape_failures)[name] += 1

    async def _scraped(self, name: str) -> bool:
        try:
            status, _ = await fetch(f"{self.url(name)}/metrics", limit_s=1.0)
        except HttpError:
            return False
        return status == HTTPStatus.OK

    def restart(self, request: Restart) -> bool:
        """End a server of ours; False if there is none of that name."""
        child = self.children.get(request.component) if request.component in SERVERS else None
        if child is None:
            return False
        self._emit("component_restart", **msgspec.structs.asdict(request))
        child.restart()
        return True

    async def stop(self) -> None:
        """End everything in order: the standby before the primary, so that it does not take over.

        Servers last.
        """
        self.arbiter.closed = True
        primary = self.primary
        standbys = [name for name in ENGINES if name != primary]
        for group in (standbys, [primary], ["router"], ["risk", "feed"], ["recorder"], list(SERVERS)):
            present = [self.children[name] for name in group if name in self.children]
            await asyncio.gather(*(child.stop() for child in present))

    def _holder_lives(self, engine: str) -> bool:
        """Whether the very process that was granted the epoch is alive.

        An engine that was started again is another.
        """
        child = self.children.get(engine)
        return child is not None and child.pid is not None and child.pid == self._holder_pid

    def _noticed_exit(self, child: Child) -> None:
        self.alerts.clear("primary_hung", child.name)
        self._changed.set()


def is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped by a signal or a debugger."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] in {"T", "t"}
