"""The live view, drawn at each word of a session as it goes on."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import chaos_stage as stages
from rich.console import Console
from rich.text import Text

from blackstart.chaos import log
from blackstart.chaos.live import LiveView
from blackstart.chaos.model import Orders
from blackstart.model.stops import Stops

if TYPE_CHECKING:
    from pathlib import Path

Stage = stages.Stage


class Screen:
    """A terminal: what stands in the panel after each word, and the lines above it."""

    def __init__(self, orders: Orders) -> None:
        self.lines = Console(file=io.StringIO(), width=140, force_terminal=True)
        self.view = LiveView(self.lines, orders)
        self.panels: list[tuple[str, str]] = []

    def hear(self, event: str, figures: Any) -> None:
        """Take a word in and draw."""
        self.view(event, figures)
        console = Console(file=io.StringIO(), width=140)
        console.print(self.view.panel())
        self.panels.append((event, console.file.getvalue()))  # type: ignore[attr-defined]

    def after(self, event: str) -> list[str]:
        """Return the panels as they stood after each such word."""
        return [panel for one, panel in self.panels if one == event]

    def printed(self) -> str:
        """Return the lines above."""
        return Text.from_ansi(self.lines.file.getvalue()).plain  # type: ignore[attr-defined]


def watched(
    folder: Path, stop: Stops | None = None, *, for_s: float = 60.0, **world: Any
) -> tuple[Any, Screen]:
    """Run a session in front of a screen."""
    stage = Stage(folder, stop=stop, **world)
    orders = Orders(target="/x/simulated.toml", profile=stage.profile, seed=7, for_s=for_s)
    screen = Screen(orders)
    stage.hear = screen.hear
    with screen.view:
        stage.run(for_s=for_s)
    return stage, screen


def test_the_panel_shows_what_is_broken_and_how_the_target_does(tmp_path: Path) -> None:
    """Figures of a session that passes: while a fault is in place, in between, and in the end."""
    _, screen = watched(tmp_path)
    done = log.injections(tmp_path)
    assert re.search(r"chaos simulated on simulated .*1:00 left", screen.after("playing")[0])
    for panel in screen.after("injecting"):
        assert re.search(r"broken now +fake server", panel)
    for number, panel in enumerate(screen.after("injection"), 1):
        assert re.search(r"broken now +nothing", panel)
        assert re.search(rf"injections +{number} pass  0 fail  0 unknown   0 alerts", panel)
    calm = [panel for panel in screen.after("figures") if re.search(r"broken now +nothing", panel)]
    rate = re.compile(r"(\d\d\d\.\d\d)% +yes +(\d+)/s")
    assert any(rate.search(panel) and int(rate.search(panel)[2]) >= 380 for panel in calm)  # type: ignore[index]
    assert "auditing every event" in screen.after("auditing")[-1]
    assert re.search(r"Blackstart [1-9]\d* MB", screen.panels[-1][1])
    last = screen.panels[-1][1]
    assert all(re.search(rf"{one.number} +0:\d\d +fake server +PASS", last) for one in done[-8:])


def test_the_panel_shows_that_it_does_not_trade_and_that_operators_were_alarmed(tmp_path: Path) -> None:
    """The service does not come back: NO, an alert, and the line of the alert above the panel."""
    _, screen = watched(tmp_path, Stops(not_recovered_s=12.0), for_s=600.0, outage_ms=None)
    down = screen.after("figures")[-1]
    assert re.search(r"% +NO +0/s", down)
    assert "2 alerts" in screen.panels[-1][1]
    assert "ALERT not-recovered at" in screen.printed()
    assert "ALERT never-recovered at" in screen.printed()


def test_a_log_gets_lines_and_no_panel(tmp_path: Path) -> None:
    """Into a file each injection is a line of its own."""
    stage, _ = watched(tmp_path)
    out = Console(file=io.StringIO(), width=140)
    orders = Orders(target="simulated", profile=stage.profile, seed=7, for_s=60.0)
    with LiveView(out, orders) as view:
        for event, figures in stage.told:
            view(event, figures)
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len([one for one in lines if "fake server" in one]) == len(log.injections(tmp_path))
    assert not [one for one in lines if "broken now" in one]
