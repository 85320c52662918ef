"""Loading scenario files, planning trials, seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.errors import ScenarioError
from blackstart.faults import registry
from blackstart.model.data import Data
from blackstart.model.manifest import (
    Component,
    EventSource,
    Link,
    Manifest,
    Operation,
    OracleSpec,
    Process,
    Service,
    WorkloadSpec,
)
from blackstart.model.scenario import Expectation
from blackstart.scenario import seeds
from blackstart.scenario.load import load, packaged, parse, select, unique
from blackstart.scenario.plan import carry, flat_links, folder_name, offered, plan

if TYPE_CHECKING:
    from pathlib import Path

PREPARE = '[[prepare]]\naction = "operation"\nparameters = { name = "checkpoint" }\n'
GOOD = """
id = "X1"
title = "t"
requirement = "R1"
[fault]
kind = "kill"
components = ["@each"]
[objectives]
rto_ms = 100
"""


def manifest(**changes: Any) -> Manifest:
    """Make a manifest that can carry everything."""
    settings: dict[str, Any] = {
        "schema": 1,
        "name": "m",
        "environment": "sim",
        "processes": {"firm": Process(command=("x",), state=("{run}/s",))},
        "components": {
            "firm": Component(process="firm"),
            "primary": Component(url="http://x"),
            "feed": Component(url="http://x", service="quotes"),
        },
        "groups": {
            "hot": ("primary",),
            "warm": ("primary", "feed"),
            "cold": ("firm",),
            "system": ("primary",),
            "each": ("primary", "feed"),
            **dict.fromkeys(("database", "broker", "risk", "exchange", "oom", "rapid"), ("primary",)),
        },
        "links": {name: Link(ports=("1",)) for name in ("exchange", "market-data", "replication", "broker")},
        "operations": {name: Operation(urls=("u",)) for name in ("checkpoint", "reconcile")},
        "data": {
            name: Data(files="*")
            for name in (
                "checkpoint",
                "journal",
                "positions",
                "order_book",
                "market_book",
                "checkpoint_quantity",
                "settlement",
            )
        },
        "services": {"orders": Service(source="oracle"), "quotes": Service(source="oracle")},
        "events": {"log": EventSource(files="*")},
        "oracle": OracleSpec(kind="exchange", url="u", account="a", session="s"),
        "workload": WorkloadSpec(),
        **changes,
    }
    return Manifest(**settings)


def test_what_nobody_can_find_cannot_be_damaged() -> None:
    """A scenario that damages data needs to be told by the manifest where they lie."""
    (position,) = [one for one in packaged() if one.id == "R39"]
    assert carry(manifest(data={}), position) == "the manifest has no [data.positions]"


def test_every_packaged_scenario_is_whole() -> None:
    """They load, have ids of their own, faults that exist, and a complete manifest can carry each of them."""
    scenarios = unique(packaged())
    assert {"R1", "R2", "R3", "R24", "R25", "R33", "R7"} <= {one.id for one in scenarios}
    for one in scenarios:
        assert {step.kind for step in (one.fault, *one.then)} <= registry.known().keys()
        assert carry(manifest(), one) is None
        assert one.load.minimum_per_s >= (300 if one.service == "orders" else 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('kind = "kill"', 'kimd = "kill"'), ["fault", "unknown key `kimd`", "did you mean `kind`"]),
        (('id = "X1"', 'ids = "X1"'), ["unknown key `ids`", "did you mean `id`"]),
        (('id = "X1"', 'id = "../x"'), ["id", "cannot be an id"]),
        (("rto_ms = 100", 'rto_ms = "soon"'), ["objectives.rto_ms", "float"]),
        (("rto_ms = 100", ""), ["objectives", "missing", "rto_ms"]),
        (("[objectives]", '[trigger]\nat = "lunch"\n[objectives]'), ["trigger.at", "'now'", "'oracle'"]),
        (("[objectives]", '[trigger]\nat = "oracle"\n[objectives]'), ["trigger.event", "which event"]),
        (("[objectives]", "[observe]\nlimit_s = 0\n[objectives]"), ["observe.limit_s", "more than 0"]),
        (("[objectives]", "[observe]\nlimit_s = nan\n[objectives]"), ["observe.limit_s", "nan is no amount"]),
        (("rto_ms = 100", "rto_ms = inf"), ["objectives.rto_ms: inf is no amount", "finite"]),
        (("rto_ms = 100", "rto_ms = 1\nrpo_events = -1"), ["objectives.rpo_events: -1 is no amount"]),
        (("rto_ms = 100", "rto_ms = 1\npnl_tolerance = nan"), ["objectives.pnl_tolerance: nan"]),
        (("[objectives]", "[load]\nminimum_per_s = -1\n[objectives]"), ["load.minimum_per_s: -1.0"]),
        (
            ("[objectives]", '[[expect]]\nwhy = "w"\noracle = "x"\nat_least = -1\n[objectives]'),
            ["expect[0].at_least: -1 is no amount"],
        ),
        (("[objectives]", PREPARE + 'until = { at = "signal" }\n[objectives]'), ["prepare[0].until.event"]),
        (
            ("[objectives]", PREPARE.replace("operation", "phases") + "optional = true\n[objectives]"),
            ["prepare[0]", "`phases` cannot be optional"],
        ),
        (
            (
                "[objectives]",
                '[[expect]]\nwhy = "w"\noracle = "x"\nafter = "then"\nbefore = "then"\n[objectives]',
            ),
            ["expect[0].before", "`then` does not come after `then`"],
        ),
        (("[fault]", "[fault"), ["not TOML", "line"]),
    ],
)
def test_a_broken_file_is_told_with_place_and_way_out(change: tuple[str, str], words: list[str]) -> None:
    """Each error names the file, the key, and what would be right."""
    with pytest.raises(ScenarioError) as caught:
        parse(GOOD.replace(*change), "my.toml")
    for word in ["my.toml", *words]:
        assert word in caught.value.render()


def test_files_and_folders_of_the_user(tmp_path: Path) -> None:
    """A path to a file or a folder works like an id.

    Empty folders, missing files and double ids are refused.
    """
    (tmp_path / "a.toml").write_text(GOOD)
    assert [one.id for one in load(tmp_path)] == ["X1"]
    assert [one.id for one, _ in select([], [str(tmp_path / "a.toml")])] == ["X1"]
    (tmp_path / "b.toml").write_text(GOOD)
    with pytest.raises(ScenarioError, match="id is taken"):
        load(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScenarioError, match="holds no"):
        load(tmp_path / "empty")


def test_an_unknown_scenario_names_the_nearest() -> None:
    """`R399` is unknown; the error lists what there is."""
    with pytest.raises(ScenarioError, match="did you mean `R3"):
        select(packaged(), ["R399"])


def test_each_makes_one_trial_a_component() -> None:
    """R25 on two components gives two trials with ids, services and replay lines of their own."""
    (scenario, _) = select(packaged(), ["R25"])[0]
    first, second = plan(scenario, manifest(), seed=7, target="m.toml")
    assert (first.trial_id, first.components, first.service) == ("R25:primary", ("primary",), "orders")
    assert (second.trial_id, second.components, second.service) == ("R25:feed", ("feed",), "quotes")
    assert first.replay == "blackstart run R25:primary --seed 7 --target m.toml"
    (only,) = plan(scenario, manifest(), seed=7, only="feed")
    assert only.trial_id == "R25:feed"
    with pytest.raises(ScenarioError, match="no trial for `moon`"):
        plan(scenario, manifest(), seed=7, only="moon")


def test_repetitions_have_seeds_and_folders_of_their_own() -> None:
    """Repetition k runs with seed + k, replays with that seed, and does not overwrite another's folder."""
    (scenario, _) = select(packaged(), ["R1"])[0]
    plans = plan(scenario, manifest(), seed=7, repeat=3)
    assert [one.seed for one in plans] == [7, 8, 9]
    assert [one.trial_id for one in plans] == ["R1", "R1#2", "R1#3"]
    assert len({folder_name(one.trial_id) for one in plans}) == 3
    assert plans[2].replay == "blackstart run R1 --seed 9"


def test_a_replayed_repetition_draws_the_same_numbers() -> None:
    """The third repetition and its replay line give the same random stream; another name or seed does not."""
    draw = seeds.number
    assert draw(9, "R1#3", "trigger") == draw(9, "R1", "trigger")
    assert (
        len(
            {draw(9, "R1", "trigger"), draw(8, "R1", "trigger"), draw(9, "R2", "trigger"), draw(9, "R1", "x")}
        )
        == 4
    )


def test_objectives_of_the_manifest_win() -> None:
    """By kind of recovery, and more closely by scenario."""
    (scenario, _) = select(packaged(), ["R1"])[0]
    objectives = {"hot": {"rto_ms": 800, "rpo_events": 2}, "R1": {"rto_ms": 300}}
    (one,) = plan(scenario, manifest(objectives=objectives), seed=1)
    assert (one.scenario.objectives.rto_ms, one.scenario.objectives.rpo_events) == (300, 2)
    assert one.stated == scenario.objectives, "or nobody could tell what was loosened"


@pytest.mark.parametrize(
    ("scenario", "changes", "reason"),
    [
        ("R1", {"groups": {}}, "no group `hot`"),
        ("R1", {"services": {}}, "names no service"),
        ("R7", {"oracle": None}, "names no oracle"),
        ("R33", {"oracle": None}, "names no oracle"),
        ("R33", {"workload": None}, "names no workload"),
        ("R63", {"oracle": None}, "names no oracle"),
        ("R5", {"links": {}}, "no link to `exchange`"),
        ("R3", {"groups": {"cold": ("primary",)}}, "not a process that Blackstart starts"),
        ("R3", {"processes": {"firm": Process(command=("x",))}}, "which state of `firm`"),
    ],
)
def test_what_a_target_cannot_carry_is_said(scenario: str, changes: dict[str, Any], reason: str) -> None:
    """`validate` shows these reasons, and planning refuses with them."""
    (one, _) = select(packaged(), [scenario])[0]
    found = carry(manifest(**changes), one)
    assert found is not None
    assert reason in found
    with pytest.raises(ScenarioError, match=reason):
        plan(one, manifest(**changes), seed=1)


def test_a_target_without_checkpoints_is_tested_without() -> None:
    """An optional preparation keeps nobody out, neither by its operation nor by the event that ends it."""
    (one, _) = select(packaged(), ["R2"])[0]
    bare = manifest(operations={}, events={})
    assert carry(bare, one) is None
    (step,) = one.prepare
    assert not offered(bare, step)
    assert offered(manifest(), step)
    assert "names no events" in str(carry(manifest(events={}), one))
    must = msgspec.structs.replace(one, prepare=(msgspec.structs.replace(step, optional=False),))
    assert carry(manifest(operations={}), must) == "the manifest has no operation `checkpoint`"


def test_it_is_asked_of_the_trials_that_hit_whom_it_is_about() -> None:
    """In a trial of `@each` that breaks another component nobody waits for it."""
    (one, _) = select(packaged(), ["R25"])[0]
    asked = [Expectation(why="w", signal="x", components=("@hot",)), Expectation(why="w", signal="y")]
    trials = plan(msgspec.structs.replace(one, expect=tuple(asked)), manifest(), seed=1)
    assert len(trials) > 1
    for trial in trials:
        hot = set(trial.components) & set(manifest().groups["hot"])
        assert [each.signal for each in trial.scenario.expect] == (["x", "y"] if hot else ["y"])


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("primary", None, None),
        ("@warm", None, None),
        ("primry", None, "something of `primry`"),
        ("@wram", None, "something of `@wram`"),
        ("primry", "checkpoint", "something of `primry`"),
        ("primry", "nothing", None),
    ],
)
def test_an_expectation_of_nobody_is_refused(name: str, given: str | None, reason: str | None) -> None:
    """A component that the manifest does not know would never be looked at: it is said before."""
    (one, _) = select(packaged(), ["R1"])[0]
    about = Expectation(why="w", signal="x", components=(name,), given=given)
    told = carry(manifest(), msgspec.structs.replace(one, expect=(about,)))
    assert told is None if reason is None else reason in str(told)


def test_all_links_to_a_party_are_named_at_once() -> None:
    """`@exchange` is every link that leads there, by `to` or by its own name, as first and as later fault."""
    links = {
        "exchange": Link(ports=("1",)),
        "quotes": Link(ports=("2",), protocol="udp", to="exchange"),
        "replication": Link(ports=("3",)),
    }
    r5, r63 = (select(packaged(), [name])[0][0] for name in ("R5", "R63"))
    (first,) = plan(r5, manifest(links=links), seed=1)
    assert first.faults[0].links == ("exchange", "quotes")
    (later,) = plan(r63, manifest(links=links), seed=1)
    assert later.faults[1].links == ("exchange", "quotes")
    assert flat_links(("@exchange", "replication", "quotes"), manifest(links=links)) == (
        "exchange",
        "quotes",
        "replication",
    )


def test_groups_that_need_not_be_written_down() -> None:
    """Without groups, `@each` is every component and `@clean` those with a process of their own."""
    r25, r24 = (select(packaged(), [name])[0][0] for name in ("R25", "R24"))
    bare = manifest(groups={})
    assert [one.components for one in plan(r25, bare, seed=1)] == [("firm",), ("primary",), ("feed",)]
    assert [one.components for one in plan(r24, bare, seed=1)] == [("firm",)]
