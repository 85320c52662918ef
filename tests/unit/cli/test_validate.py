"""What `blackstart validate` warns of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from blackstart.cli.validate import fit, validate, warnings
from blackstart.model.manifest import Service, StateDocument
from blackstart.scenario import load as scenarios
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    import pytest


def test_the_shipped_targets_can_pass() -> None:
    """A warning for a target that has passed would be wrong."""
    assert [warnings(manifests.load(name)) for name in ("paperfirm", "redis", "postgresql")] == [[], [], []]


def test_what_can_never_pass_is_told_before_it_is_run() -> None:
    """Without streams, with validators nobody describes, or without a judge: a warning with its reason."""
    redis = manifests.load("redis")
    (streams,) = warnings(msgspec.structs.replace(redis, streams={}))
    assert streams.startswith("this manifest can never PASS, because it names no stream")
    (absent,) = warnings(msgspec.structs.replace(redis, not_applicable={"pnl": "none"}))
    assert "where to read positions, orders" in absent
    assert "pnl" not in absent
    (alone,) = warnings(msgspec.structs.replace(redis, state={"positions": StateDocument(url="http://x")}))
    assert "names no [oracle]" in alone


def test_objectives_of_no_trial_are_named() -> None:
    """A misspelt trial is judged by the scenario's own figures: that is said before it runs."""
    rto = {"rto_ms": 100.0}
    right = {"R25:router": rto, "R1": rto, "hot": rto, "chaos": {}}
    firm = msgspec.structs.replace(manifests.load("paperfirm"), objectives=right)
    assert warnings(firm) == []
    (told,) = warnings(msgspec.structs.replace(firm, objectives={**right, "R25:ruter": rto}))
    assert told == 'objectives."R25:ruter" holds for no shipped scenario and no trial of this target'


def test_production_is_said_to_be_refused() -> None:
    """A right manifest for production is told that, and why, no run of it starts without an approval."""
    (refused,) = warnings(msgspec.structs.replace(manifests.load("redis"), environment="production"))
    assert refused.startswith("without an approval every run will be refused (status 3)")
    assert "blackstart approve" in refused


def test_signs_that_nobody_describes_are_named_before_a_run_finds_out() -> None:
    """What cannot be judged would be UNKNOWN: `validate` says which sign is missing."""
    firm = manifests.load("paperfirm")
    expecting = next(one for one in scenarios.packaged() if one.id == "R31")
    assert fit(firm, expecting).not_told == ()
    silent = msgspec.structs.replace(firm, signs={"degraded": "it has no parts", "restored": ()})
    assert set(fit(silent, expecting).not_told) == {"trading-halted"}


def test_what_the_suite_does_not_run_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    """A scenario that is run by name only says so, in its line and in the sum."""
    assert validate("paperfirm", as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    packaged = scenarios.packaged()
    known = {one.id for one in packaged}
    cut = re.split(r"^(?=\S +R\d)", "\n".join(lines), flags=re.MULTILINE)
    rows = [row for row in cut if row.split()[1] in known]
    fits = [row for row in rows if row.startswith("✓")]  # all, for root
    named = [row.split()[1] for row in rows if "by name only" in " ".join(row.split())]
    assert set(named) == {one.id for one in packaged if not one.standard} != set()
    standard = len(fits) - sum(row.split()[1] in named for row in fits)
    assert lines[-1] == f"{len(fits)} of {len(packaged)} scenarios fit, {standard} of them in the suite"


def test_a_probe_beside_a_workload_is_no_end_of_an_outage() -> None:
    """A server that accepts again and answers nothing would look recovered: the lines to write are told."""
    redis = manifests.load("redis")
    services = {**redis.services, "port": Service(source="probe:up")}
    (told,) = warnings(msgspec.structs.replace(redis, services=services))
    assert told.startswith("RTO ends at a probe although there is a [workload]")
    assert '[services.port] source = "workload", key = "id"' in told


def test_a_stream_of_keys_alone_finds_no_changed_value() -> None:
    """Neither fields nor order to compare: a value that was overwritten would pass."""
    redis = manifests.load("redis")
    bare = {n: msgspec.structs.replace(s, content=(), ordered=None) for n, s in redis.streams.items()}
    (told,) = warnings(msgspec.structs.replace(redis, streams=bare))
    assert told.startswith("stream writes: neither content nor order is compared")


def test_one_component_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A single component is not told in the plural."""
    assert len(manifests.load("redis").components) == 1
    validate("redis", as_json=False)
    assert ", 1 component\n" in capsys.readouterr().out
