"""Geometry of a trial's two drawings, phase bar and order flow: pure numbers, drawn by the template."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from blackstart.model.instant import StampName
from blackstart.model.outcome import PHASES
from blackstart.report.flow import even_step
from blackstart.report.wording import NS_PER_MS, NS_PER_S, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.model.outcome import Rto
    from blackstart.report.flow import Flow

WIDTH = 960.0
FLOW_HEIGHT = 150.0
_LABEL_SPACE = 74.0
_MARK_SPACE = 46.0
_TICKS = 8
_THINNEST = 1.5


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the phase bar. `kind` is a phase, `unknown`, or `open` for the end that nobody saw."""

    kind: str
    label: str
    x: float
    width: float
    text: str
    roomy: bool


class Mark(msgspec.Struct, frozen=True):
    """A labelled position on the x axis."""

    x: float
    label: str
    title: str = ""


class FlowDrawing(msgspec.Struct, frozen=True, kw_only=True):
    """The order flow in drawing units: an area, its axes, the outage and the stamps."""

    area: str
    outage: tuple[float, float] | None
    open_ended: bool
    lines: tuple[float, ...]
    marks: tuple[Mark, ...]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    usual_y: float | None
    description: str


def known_stamps(rto: Rto) -> list[tuple[int, int]]:
    """Return the stamps that are known, as (number, nanoseconds after t0), in order."""
    if StampName.FAILURE not in rto.stamps:
        return []
    zero = rto.stamps[StampName.FAILURE].mono_ns
    pairs = ((number, rto.stamps.get(name)) for number, name in enumerate(StampName))
    return [(number, stamp.mono_ns - zero) for number, stamp in pairs if stamp is not None]


def _pieces(rto: Rto) -> list[tuple[str, str, int]]:
    """List kind, label and length of what lies between neighbouring known stamps."""
    pieces = []
    stamps = known_stamps(rto)
    for (number, at), (following, until) in pairwise(stamps):
        names = PHASES[number:following]
        kind = names[0] if len(names) == 1 else "unknown"
        pieces.append((kind, " + ".join(names), until - at))
    if rto.censored_ns is not None:
        seen = stamps[-1][1] if stamps else 0
        pieces.append(("open", "not back", max(rto.censored_ns - seen, 0)))
    return pieces


def phase_bar(rto: Rto) -> tuple[Segment, ...]:
    """Return the phases in proportion to their length, none thinner than a hair: none may disappear."""
    pieces = [piece for piece in _pieces(rto) if piece[2] >= 0]
    total = sum(length for _, _, length in pieces)
    if not pieces or total <= 0:
        return ()
    spare = WIDTH - _THINNEST * len(pieces)
    segments, x = [], 0.0
    for kind, label, length in pieces:
        width = _THINNEST + spare * length / total
        text = duration(length)
        segments.append(
            Segment(kind=kind, label=label, x=x, width=width, text=text, roomy=width >= _LABEL_SPACE)
        )
        x += width
    return tuple(segments)


def _scale(flow: Flow) -> float:
    return WIDTH / (len(flow.counts) * flow.bin_ns)


def _x(flow: Flow, after_t0_ns: int) -> float:
    return round((after_t0_ns - flow.start_ns) * _scale(flow), 2)


def _area(rates: Sequence[float], top: float) -> str:
    """Draw steps as an SVG path: the series is a histogram, and slopes would invent values between bins."""
    step = WIDTH / len(rates)
    path = [f"M0,{FLOW_HEIGHT}"]
    for index, rate in enumerate(rates):
        y = FLOW_HEIGHT * (1 - rate / top)
        path.append(f"L{index * step:.2f},{y:.1f}L{(index + 1) * step:.2f},{y:.1f}")
    return "".join([*path, f"L{WIDTH},{FLOW_HEIGHT}Z"])


def _round_up(value: float) -> float:
    """Return the next round number at or above `value`: axes end on one."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    return next(factor * power for factor in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10) if factor * power >= value)


def _stamp_marks(flow: Flow, rto: Rto) -> tuple[Mark, ...]:
    """Label the stamps; those too close to tell apart share one label, t1 to t4."""
    groups: list[list[tuple[int, float]]] = []
    for number, at in known_stamps(rto):
        place = (number, _x(flow, at))
        if groups and place[1] - groups[-1][0][1] < _MARK_SPACE:
            groups[-1].append(place)
        else:
            groups.append([place])
    return tuple(_label(group) for group in groups if 0 <= group[0][1] <= WIDTH)


def _label(group: list[tuple[int, float]]) -> Mark:
    (first, left), (last, right) = group[0], group[-1]
    return Mark((left + right) / 2, f"t{first}" if first == last else f"t{first}\u2013t{last}")


def _x_ticks(flow: Flow) -> tuple[Mark, ...]:
    span = len(flow.counts) * flow.bin_ns
    step = even_step(span, _TICKS)
    first = -(-flow.start_ns // step)
    numbers = range(first, (flow.start_ns + span) // step + 1)
    return tuple(Mark(_x(flow, number * step), _tick(number * step, step)) for number in numbers)


def _tick(ns: int, step: int) -> str:
    if ns == 0:
        return "fault"
    unit = f"{ns / NS_PER_S:+g} s" if step >= NS_PER_S // 5 else f"{ns / NS_PER_MS:+g} ms"
    return unit.replace("-", "\u2212")


def draw_flow(flow: Flow, rto: Rto) -> FlowDrawing:
    """Place the series, the outage and the stamps."""
    rates = flow.per_s()
    top = _round_up(max(*rates, flow.usual_per_s or 0, 1.0))
    end = known_stamps(rto)
    open_ended = rto.censored_ns is not None
    outage = None
    if rto.interrupted is not False and end:
        until = _x(flow, end[-1][1]) if rto.total_ns is not None else WIDTH if open_ended else None
        outage = None if until is None else (_x(flow, 0), min(until, WIDTH))
    return FlowDrawing(
        area=_area(rates, top),
        outage=outage,
        open_ended=open_ended,
        lines=tuple(x for _, at in end if 0 <= (x := _x(flow, at)) <= WIDTH),
        marks=_stamp_marks(flow, rto),
        x_ticks=_x_ticks(flow),
        y_ticks=tuple(Mark(FLOW_HEIGHT * (1 - part), f"{top * part:,.0f}") for part in (0, 0.5, 1)),
        usual_y=None if flow.usual_per_s is None else FLOW_HEIGHT * (1 - flow.usual_per_s / top),
        description=_describe(flow),
    )


def _describe(flow: Flow) -> str:
    usual = "" if flow.usual_per_s is None else f" Before the fault {flow.usual_per_s:,.0f}/s."
    return f"{flow.service.capitalize()} a second, in bins of {duration(flow.bin_ns)}.{usual}"
