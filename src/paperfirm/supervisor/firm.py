"""The firm as the supervisor sees it: its children, who is primary, whether it trades."""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING

from paperfirm.alerts import Alerts
from paperfirm.config import COMPONENTS, ENGINES
from paperfirm.http import HttpError, fetch
from paperfirm.supervisor.arbiter import Arbiter
from paperfirm.supervisor.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from paperfirm.config import Firm
    from paperfirm.supervisor.child import Spec
    from paperfirm.wire import Promote, Promoted

DEATH_NOTICE_S = 0.05
"""How long a standby's request waits for the pidfd of the old primary.

The standby may see the connection end first.
"""
NEEDED = ("risk", "feed", "router", "recorder")
SERVERS = ("nats", "postgres")


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
        self._changed = asyncio.Event()
        self.scrapes, self.scrape_failures = Counter[str](), Counter[str]()

    @property
    def primary(self) -> str | None:
        """The engine that holds the present epoch and lives."""
        holder = self.arbiter.tenure.primary
        return holder if holder is not None and self._holder_lives(holder) else None

    def role(self, name: str) -> str | None:
        """Return "primary", "standby" or None for a child."""
        if name not in ENGINES or self.children[name].pid is None:
            return None
        return "primary" if name == self.primary else "standby"

    async def promote(self, request: Promote) -> Promoted:
        """Grant or refuse an epoch; wait a moment for the news of the old primary's death."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + DEATH_NOTICE_S
        while self.arbiter.must_wait(request) and loop.time() < deadline_s:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._changed.wait()
            except TimeoutError:
                break
        answer = self.arbiter.promote(request)
        if answer.granted:
            child = self.children.get(request.engine)
            self._holder_pid = child.pid if child else None
            self._emit("epoch_granted", epoch=answer.epoch, engine=request.engine)
        else:
            self._emit("epoch_refused", epoch=answer.epoch, engine=request.engine, reason=answer.reason)
        return answer

    async def not_ready(self) -> str | None:
        """Return why the firm does not trade, or None while it does."""
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
        return None if status == HTTPStatus.OK else f"{primary}: {body.decode(errors='replace')}"

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

    def _noticed_exit(self, _child: Child) -> None:
        self._changed.set()
