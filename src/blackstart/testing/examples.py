"""For every kind of fault an example that can be tried within a second or two, and the target that it needs.

Most are tried on the small system (`testing/small`); the misbehaviours of an exchange on a small client of
the paper exchange, a refusing database on PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from blackstart.model.scenario import FaultStep, Load, Objectives, Observe, Scenario, Steady

SMALL = str(Path(__file__).with_name("small") / "small.toml")


class Example(NamedTuple):
    """A step, and the target on which it can be tried: a path, or a packaged one's name."""

    step: FaultStep
    target: str = SMALL


def _on_server(kind: str, **parameters: object) -> Example:
    return Example(FaultStep(kind=kind, components=("server",), parameters=parameters))


def _on_line(kind: str, **parameters: object) -> Example:
    return Example(FaultStep(kind=kind, links=("line",), parameters=parameters))


def _on_exchange(kind: str, **parameters: object) -> Example:
    return Example(FaultStep(kind=kind, parameters=parameters), "quickfix")


_EXAMPLES = (
    _on_server("kill"),
    _on_server("terminate"),
    _on_server("cold"),
    _on_server("pause"),
    _on_server("segv"),
    _on_server("crash_loop", times=2),
    _on_server("kill_at_syscall", call="syncs", path="{run}/state/", n=2, limit_s=5),
    _on_server("oom"),
    _on_server("memory_pressure", limit_mb=128, share=0.8),
    _on_server("cpu_stress", workers=2),
    _on_server("cpu_quota", percent=1),
    _on_server("clock_skew"),
    _on_server("disk_full", size_mb=4),
    _on_server("disk_error", limit_s=2),
    _on_server("disk_slow", limit_s=2),
    _on_server("fsync_fail", limit_s=2),
    _on_server("fsync_lie", limit_s=2),
    _on_server("flip_file_bits", data="limits", places=1),
    _on_server("truncate_file", data="limits"),
    _on_server("flip_memory_bits", data="rows", place="limit"),
    Example(FaultStep(kind="stop_service", components=("mirror",), duration_s=0.3)),
    Example(FaultStep(kind="pause_service", components=("mirror",))),
    _on_line("partition"),
    _on_line("packet_loss", share=0.5),
    _on_line("reset"),
    _on_line("half_open"),
    _on_line("latency", delay_ms=20),
    _on_line("slow_reader", bytes_per_s=500),
    _on_line("bandwidth", bytes_per_s=1000),
    Example(FaultStep(kind="reorder", links=("quotes",), parameters={"share": 0.5})),
    Example(FaultStep(kind="duplicate_packets", links=("quotes",), parameters={"share": 0.5})),
    Example(FaultStep(kind="corrupt_packets", links=("quotes",), parameters={"share": 0.5})),
    _on_exchange("disconnect", refuse_ms=60_000),
    _on_exchange("misbehave", action="freeze"),
    _on_exchange("nonsense", kinds=["price_negative"]),
    Example(FaultStep(kind="refuse_service", components=("server",)), "postgresql"),
)
EXAMPLES = {one.step.kind: one for one in _EXAMPLES}


def trial(kind: str) -> Scenario:
    """Return a short scenario around an example: the fault stays in place until the trial ends.

    Its verdict says nothing: it is not waited for a recovery. Raises KeyError where there is no example.
    """
    return Scenario(
        id=f"X-{kind}",
        title=kind,
        requirement="R18",
        fault=EXAMPLES[kind].step,
        load=Load(minimum_per_s=1),
        steady=Steady(hold_s=0.2),
        objectives=Objectives(rto_ms=60_000),
        observe=Observe(limit_s=2, after_s=0.1, quiesce_s=1),
        degrades=True,
    )
