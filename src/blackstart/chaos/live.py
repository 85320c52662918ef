"""The live view of a session: what is broken now, how the target does, what came of the last injections."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from blackstart.chaos.model import Alert, Figures, Injection, LeftOut, Orders
from blackstart.model.verdict import Verdict
from blackstart.report.lines import Lines
from blackstart.report.rows import rto_text
from blackstart.report.wording import DASH, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

_STYLE = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "bold yellow"}
_REFRESH_PER_S = 2  # drawing must not disturb what is measured beside it
_LAST = 8
_STATES = {
    "open": "target is up",
    "steady": "steady under load",
    "quiesced": "books settled, reading everything",
    "read": "read",
}


class LiveView(Lines):
    """A progress callback. In a terminal a panel lives below the lines; a log gets a line an injection."""

    def __init__(self, out: Console, orders: Orders) -> None:
        super().__init__(out, below=self.panel, refresh_per_s=_REFRESH_PER_S)
        self._orders = orders
        self._state = "starting the target"
        self._active = ""
        self._figures = Figures()
        self._at_s = 0.0
        self._memory = 0
        self._last: deque[Text] = deque(maxlen=_LAST)
        self._counts = dict.fromkeys(Verdict, 0)
        self._not_judged = 0
        self._alerts = 0
        self._handlers |= {
            "session": self._session,
            "left-out": self._left_out,
            "stage": self._stage,
            "playing": self._playing,
            "figures": self._took_figures,
            "injecting": self._injecting,
            "injection": self._injection,
            "alert": self._alert,
            "auditing": self._auditing,
        }

    def panel(self) -> Group:
        """Lay out what there is to see right now."""
        head = Text.assemble(
            ("chaos ", "bold"),
            f"{self._orders.profile.name} on {Path(self._orders.target).stem}   ",
            (self._state, "dim"),
            "   ",
            (self._left(), "bold"),
        )
        broken = Text.assemble(
            "broken now   ", (self._active or "nothing", "bold yellow" if self._active else "dim")
        )
        return Group(head, broken, self._steady(), self._tally(), *self._last)

    def _left(self) -> str:
        """Say how much is left, of the time and of the faults."""
        orders, done = self._orders, sum(self._counts.values())
        parts = []
        if orders.for_s is not None:
            parts.append(f"{clock(max(0.0, orders.for_s - self._at_s))} left")
        else:
            parts.append(f"{clock(self._at_s)} so far, until stopped")
        if orders.max_faults is not None:
            parts.append(f"{done} of {orders.max_faults} faults")
        return ", ".join(parts)

    def _steady(self) -> Table:
        one = self._figures
        grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        right = DASH if one.positions_right is None else f"{one.positions_right:.0%}"
        lag = DASH if one.lag_ms is None else f"{one.lag_ms:.1f} ms"
        trading = Text("yes", "green") if one.trading else Text("NO", "bold red")
        grid.add_row("uptime", "trading", "orders", "lag", "positions right", "not yet booked")
        grid.add_row(
            DASH if one.uptime is None else f"{one.uptime:.2%}",
            trading,
            f"{one.rate_per_s:,.0f}/s",
            lag,
            right,
            DASH if one.behind is None else str(one.behind),
        )
        return grid

    def _tally(self) -> Text:
        counts = [
            (f"{number} {verdict.value.lower()}", _STYLE[verdict]) for verdict, number in self._counts.items()
        ]
        skipped = (f"  {self._not_judged} not judged" if self._not_judged else "", "dim")
        alerts = (f"   {plural(self._alerts, 'alert')}", "bold red" if self._alerts else "dim")
        memory = (f"   Blackstart {self._memory / 1e6:.0f} MB", "dim")
        return Text.assemble(
            "injections   ", counts[0], "  ", counts[2], "  ", counts[1], skipped, alerts, memory
        )

    def _session(self, heard: Mapping[str, Any]) -> None:
        self._print(
            Text(
                f"chaos {self._orders.profile.name}, seed {self._orders.seed}, into {heard['folder']}", "dim"
            )
        )
        if heard["radius"]:
            self._print(Text(f"blast radius: {', '.join(heard['radius'])}", "dim"))

    def _left_out(self, heard: Mapping[str, Any]) -> None:
        for line in left_out_lines(msgspec.convert(heard["left_out"], tuple[LeftOut, ...])):
            self._print(Text(line, "dim"))

    def _stage(self, heard: Mapping[str, Any]) -> None:
        if heard["trial_id"] in ("chaos:start", "chaos:end"):
            self._state = _STATES.get(heard["stage"], self._state)

    def _playing(self, _heard: Mapping[str, Any]) -> None:
        self._state = ""

    def _auditing(self, _heard: Mapping[str, Any]) -> None:
        self._state = "auditing every event"

    def _took_figures(self, heard: Mapping[str, Any]) -> None:
        self._figures = msgspec.convert(heard["figures"], Figures)
        self._at_s, self._memory = heard["at_s"], heard["memory"]

    def _injecting(self, heard: Mapping[str, Any]) -> None:
        steps = heard["episode"]["steps"]
        self._active = " + ".join(" ".join([s["kind"], *s["components"], *s["links"]]) for s in steps)

    def _injection(self, heard: Mapping[str, Any]) -> None:
        one = msgspec.convert(heard["injection"], Injection)
        self._active = ""
        self._counts[one.verdict] += one.judged
        self._not_judged += not one.judged
        line = injection_line(one)
        if self._live is not None:
            self._last.append(line)
        if self._live is None or one.verdict is not Verdict.PASS:
            self._print(line)

    def _alert(self, heard: Mapping[str, Any]) -> None:
        one = msgspec.convert(heard["alert"], Alert)
        self._alerts += 1
        self._print(Text(f"ALERT {one.code} at {one.at_s:.1f} s: {one.text}", "bold red"))


def left_out_lines(left: Iterable[LeftOut]) -> list[str]:
    """Say what is left out and why, a line for each kind and reason."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in left:
        places.setdefault((one.kind, one.reason), []).append(one.where)
    return [f"left out: {kind} ({', '.join(where)}): {why}" for (kind, why), where in places.items()]


def injection_line(one: Injection) -> Text:
    """Return one injection as a line."""
    at = DASH if one.at_s is None else clock(one.at_s)
    head = f"{one.number:>5}  {at:>8}  {one.name:32} "
    told = "; ".join(one.reasons[:2])
    if not one.judged:
        return Text.assemble(head, ("not judged: ", "dim"), (told, "dim"))
    return Text.assemble(
        head, (f"{one.verdict:8}", _STYLE[one.verdict]), f"{rto_text(one.rto):>12}  ", (told, "dim")
    )


def clock(seconds: float) -> str:
    """Return a length of time as people read it: `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
