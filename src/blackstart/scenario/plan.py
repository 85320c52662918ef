"""Planning: from scenarios and a manifest to the trials that will be run. Pure.

`@group` stands for the manifest's group of that name, `@each` for one trial per member of the group `each`;
of links, `@party` stands for all that lead to that party.
Two groups have a meaning without being written down: `each` is every component, `clean` (what gets a SIGTERM)
is `cold`, else `warm`, else every component with a process of its own.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from blackstart.errors import ScenarioError
from blackstart.model.scenario import Expectation, FaultStep, Objectives, Plan, Prepare, Scenario, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blackstart.model.manifest import Manifest, Service

EACH = "@each"
EXCHANGES_OWN = {"disconnect": "disconnect", "misbehave": "misbehave", "nonsense": "talk nonsense"}


def plan(
    scenario: Scenario,
    manifest: Manifest,
    *,
    seed: int,
    only: str | None = None,
    repeat: int = 1,
    target: str = "",
    source: str = "",
) -> list[Plan]:
    """Resolve a scenario into trials.

    `only` picks one component of an `@each`; repetition k runs with `seed + k`; `target` is what the replay
    line names, `source` the file that it names instead of the id. Raises ScenarioError saying
    why the manifest cannot carry the scenario.
    """
    reason = carry(manifest, scenario)
    if reason is not None:
        raise ScenarioError(
            reason, where=f"{manifest.name}: {scenario.id}", hint="`blackstart validate` lists what fits"
        )
    choices = _choices(scenario, manifest)
    if only is not None:
        choices = [choice for choice in choices if choice == (only,)]
        if not choices:
            raise ScenarioError(
                f"has no trial for `{only}`", where=scenario.id, hint=_members(scenario, manifest)
            )
    return [
        _plan(scenario, manifest, choice, seed=seed, repetition=k, target=target, source=source)
        for k in range(repeat)
        for choice in choices
    ]


def carry(manifest: Manifest, scenario: Scenario) -> str | None:
    """Say why a target cannot carry a scenario, or None when it can."""
    missing = _missing_component(manifest, scenario)
    if missing:
        return missing
    if not manifest.services:
        return "the manifest names no service, so nobody could tell when it is back"
    if scenario.fault.kind in EXCHANGES_OWN and manifest.oracle is None:
        deed = EXCHANGES_OWN[scenario.fault.kind]
        return f"only an exchange can {deed}, and the manifest names no oracle"
    for trigger in triggers(manifest, scenario):
        if trigger.at == "oracle" and manifest.oracle is None:
            return f"its trigger is the oracle's `{trigger.event}`, and the manifest names no oracle"
        if trigger.at == "signal" and not manifest.events:
            return f"its trigger is the target's `{trigger.event}`, and the manifest names no events"
    missing = _missing_preparation(manifest, scenario) or _missing_operator(manifest, scenario)
    return missing or _missing_expected(manifest, scenario)


def triggers(manifest: Manifest, scenario: Scenario) -> Iterator[Trigger]:
    """Yield everything that a trial waits for: of the preparation, and of each fault."""
    steps = (step for step in scenario.prepare if offered(manifest, step))
    yield from (step.until for step in steps if step.until is not None)
    yield from (scenario.trigger, *(step.trigger for step in scenario.then))


def offered(manifest: Manifest, step: Prepare) -> bool:
    """Whether a step of the preparation is to be done: an `optional` operation only where there is one."""
    return not step.optional or step.parameters.get("name") in manifest.operations


def service_of(manifest: Manifest, wanted: str) -> str:
    """Find the service a scenario means: the one of that name, else the manifest's first."""
    return wanted if wanted in manifest.services else next(iter(manifest.services))


def service(manifest: Manifest, name: str) -> Service:
    """Look a service up."""
    return manifest.services[name]


def _missing_component(manifest: Manifest, scenario: Scenario) -> str | None:
    steps = (scenario.fault, *scenario.then)
    for name in (one for step in steps for one in step.components):
        if name.startswith("@") and not _group(manifest, name[1:]):
            return f"the manifest has no group `{name[1:]}`"
        if not name.startswith("@") and name not in manifest.components:
            return f"the manifest has no component `{name}`"
    for name in (one for step in steps for one in step.links):
        if name.startswith("@") and not flat_links((name,), manifest):
            return f"the manifest has no link to `{name[1:]}`"
        if not name.startswith("@") and name not in manifest.links:
            return f"the manifest has no link `{name}`"
    return _missing_data(manifest, steps)


def _missing_data(manifest: Manifest, steps: Sequence[FaultStep]) -> str | None:
    """Name what is to be damaged, where the manifest does not say where it lies."""
    wanted = (step.parameters.get("data") for step in steps)
    lacking = [name for name in wanted if isinstance(name, str) and name not in manifest.data]
    return f"the manifest has no [data.{lacking[0]}]" if lacking else None


def _missing_preparation(manifest: Manifest, scenario: Scenario) -> str | None:
    for step in scenario.prepare:
        if step.action == "fills" and manifest.oracle is None:
            return "it scripts fills at the exchange, and the manifest names no oracle"
        name = step.parameters.get("name")
        if step.action == "operation" and offered(manifest, step) and name not in manifest.operations:
            return f"the manifest has no operation `{name}`"
        if step.action == "misbehave" and manifest.oracle is None:
            return "it has the exchange misbehave, and the manifest names no oracle"
        if step.action == "phases" and manifest.oracle is None:
            return "it plans the phases of the market, and the manifest names no oracle"
        if step.action == "submit" and manifest.workload is None:
            return "it submits an order of its own, and the manifest names no workload"
    return None


def _missing_expected(manifest: Manifest, scenario: Scenario) -> str | None:
    """Name whom an expectation is about and whom nobody knows: it would never be looked for."""
    asked = (one for one in scenario.expect if one.given is None or one.given in manifest.operations)
    for name in (name for one in asked for name in one.components):
        if not set(flat([name], manifest)) & set(manifest.components):
            return f"it expects something of `{name}`, and the manifest has no such component"
    return None


def _missing_operator(manifest: Manifest, scenario: Scenario) -> str | None:
    if scenario.fault.kind not in ("terminate", "cold"):
        return None
    for name in {one for choice in _choices(scenario, manifest) for one in choice}:
        component = manifest.components[name]
        by_others = component.managed or (component.host is not None and component.start)
        if by_others and scenario.fault.kind == "terminate":
            continue
        process = component.process
        if process is None:
            return f"`{name}` is not a process that Blackstart starts, so Blackstart cannot start it again"
        if scenario.fault.kind == "cold" and not manifest.processes[process].state:
            return f"the manifest does not say which state of `{process}` a cold restart wipes"
    return None


def _group(manifest: Manifest, name: str) -> tuple[str, ...]:
    groups = manifest.groups
    if name in groups:
        return groups[name]
    if name == "each":
        return tuple(manifest.components)
    if name == "clean":
        owned = tuple(
            one
            for one, spec in manifest.components.items()
            if spec.process is not None or spec.start or spec.managed
        )
        return groups.get("cold") or groups.get("warm") or owned
    return ()


def _choices(scenario: Scenario, manifest: Manifest) -> list[tuple[str, ...]]:
    names = scenario.fault.components
    if EACH in names:
        return [(one,) for one in _group(manifest, "each")]
    return [flat(names, manifest)]


def flat(names: Sequence[str], manifest: Manifest) -> tuple[str, ...]:
    """Replace groups by their members, each component once."""
    members = [_group(manifest, name[1:]) if name.startswith("@") else (name,) for name in names]
    return tuple(dict.fromkeys(one for group in members for one in group))


def flat_links(names: Sequence[str], manifest: Manifest) -> tuple[str, ...]:
    """Replace `@PARTY` by every link that leads to it, each link once."""
    found = [_links_to(manifest, name[1:]) if name.startswith("@") else (name,) for name in names]
    return tuple(dict.fromkeys(one for group in found for one in group))


def _links_to(manifest: Manifest, party: str) -> tuple[str, ...]:
    return tuple(name for name, link in manifest.links.items() if (link.to or name) == party)


def _resolved(step: FaultStep, manifest: Manifest) -> FaultStep:
    links = flat_links(step.links, manifest)
    return msgspec.structs.replace(step, components=flat(step.components, manifest), links=links)


def _members(scenario: Scenario, manifest: Manifest) -> str:
    return f"it has: {', '.join(' + '.join(choice) for choice in _choices(scenario, manifest))}"


def _plan(
    scenario: Scenario,
    manifest: Manifest,
    components: tuple[str, ...],
    *,
    seed: int,
    repetition: int,
    target: str,
    source: str,
) -> Plan:
    each = EACH in scenario.fault.components
    links = flat_links(scenario.fault.links, manifest)
    first = msgspec.structs.replace(
        scenario.fault, components=components, links=links, trigger=scenario.trigger
    )
    name = f"{scenario.id}:{components[0]}" if each else scenario.id
    aim = f" --target {shlex.quote(target)}" if target else ""
    told = shlex.quote(f"{source}:{components[0]}" if each else source) if source else name
    return Plan(
        trial_id=f"{name}#{repetition + 1}" if repetition else name,
        scenario=msgspec.structs.replace(
            scenario,
            objectives=_objectives(scenario, manifest),
            expect=tuple(one for one in scenario.expect if _expected(one, manifest, components)),
        ),
        components=components,
        service=_service(scenario, manifest, components),
        seed=seed + repetition,
        replay=f"blackstart run {told} --seed {seed + repetition}{aim}",
        steps=(first, *(_resolved(step, manifest) for step in scenario.then)),
        stated=scenario.objectives,
    )


def _expected(one: Expectation, manifest: Manifest, hit: Sequence[str]) -> bool:
    """Whether a trial that first hits these components is asked for it."""
    return not one.components or bool(set(hit) & set(flat(one.components, manifest)))


def _service(scenario: Scenario, manifest: Manifest, components: Sequence[str]) -> str:
    """Choose the stream whose return ends the outage: a single component may have one of its own."""
    usual = scenario.service
    if len(components) == 1:
        own = manifest.components[components[0]].service
        usual = own or scenario.services.get(components[0], usual)
    return service_of(manifest, usual)


def _objectives(scenario: Scenario, manifest: Manifest) -> Objectives:
    """Let the manifest tighten or loosen them: by kind of recovery, then by scenario."""
    changes = {**manifest.objectives.get(scenario.recovery, {}), **manifest.objectives.get(scenario.id, {})}
    try:
        return msgspec.convert(
            {**msgspec.to_builtins(scenario.objectives), **changes}, Objectives, strict=False
        )
    except msgspec.ValidationError as error:
        raise ScenarioError(
            str(error), where=f"{manifest.name}: objectives", hint="see docs/reference/manifest.md"
        ) from error


def folder_name(trial_id: str) -> str:
    """Return a trial's id as the name of its folder.

    Plain characters only, and ids that differ stay different.
    """
    return trial_id.replace(":", "-").replace("#", "-repeat-")
