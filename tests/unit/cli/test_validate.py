"""What `blackstart validate` warns of."""

from __future__ import annotations

import msgspec

from blackstart.cli.validate import warnings
from blackstart.model.manifest import StateDocument
from blackstart.target import manifest as manifests


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


def test_production_is_said_to_be_refused() -> None:
    """A right manifest for production is told that, and why, no run of it will start."""
    (refused,) = warnings(msgspec.structs.replace(manifests.load("redis"), environment="production"))
    assert refused.startswith("every run will be refused (status 3)")
    assert "approval" in refused
