"""Progress as lines on a terminal or in a log, with a part below them that lives: for every live view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from rich.console import Console, RenderableType
    from rich.text import Text


class Lines:
    """A progress callback: each event has its handler, unknown ones are left out.

    Engines may tell more than views show. `below` draws what lives below the lines; only in a terminal.
    """

    def __init__(self, out: Console, *, below: Callable[[], RenderableType], refresh_per_s: float) -> None:
        self._out = out
        self._handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        self._live: Live | None = None
        self._draw, self._refresh_per_s = below, refresh_per_s

    def __enter__(self) -> Self:
        if self._out.is_terminal:  # not before: it draws at once, and the view must be whole by then
            self._live = Live(
                get_renderable=self._draw,
                console=self._out,
                refresh_per_second=self._refresh_per_s,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: str, figures: Mapping[str, Any]) -> None:
        """Show a step."""
        handler = self._handlers.get(event)
        if handler is not None:
            handler(figures)

    def _print(self, text: Text) -> None:
        self._out.print(text, soft_wrap=True)
