"""Everything that is wrong with a manifest, at once: what the form alone does not show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

from blackstart.model.match import matches
from blackstart.model.scenario import Objectives
from blackstart.model.stops import Stops
from blackstart.scenario.fields import no_amounts
from blackstart.target import commands, glue, host_problems, variables
from blackstart.target.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blackstart.model.manifest import Component, EventSource, Manifest, Service, Stream

SCHEMA = 1
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
ENVIRONMENTS = ("sim", "dev", "test", "staging", "production")
DOCUMENTS = (
    "positions",
    "orders",
    "risk",
    "pnl",
    "connectivity",
    "market_data",
    "strategy",
    "infrastructure",
)
LAST_SIGNAL, LAST_STATUS = 64, 255
BESIDES = ("settlements",)
"""Documents that only some scenarios ask for: a manifest without them can PASS all others."""
JUDGED_BY_ORACLE = ("positions", "orders", "risk", "pnl")
WAYS = ("process", "pid_file", "match", "url", "glue", "unit", "container")
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service")
CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
ACKNOWLEDGED = ("oracle:orders", "oracle:executions", "workload")


def problems(manifest: Manifest) -> list[str]:
    """Return every problem as `key.path: what is wrong`, in the order of the file.

    An empty list means that it can be used.
    """
    checks = (
        _head,
        _amounts,
        _processes,
        commands.problems,
        _components,
        _managed,
        host_problems.problems,
        _phases,
        _probes,
        _services,
        _load,
        _streams,
        _data,
        _links,
        _state,
        _variables,
    )
    return [problem for check in checks for problem in check(manifest)]


def never_passes(manifest: Manifest) -> list[str]:
    """Say why no trial of this manifest can be PASS: nobody would look at something that has to be seen.

    An empty list means that nothing here stands in the way.
    """
    return list(_unseen(manifest))


def _unseen(manifest: Manifest) -> Iterator[str]:
    sources = {service.source.partition(":")[0] for service in manifest.services.values()}
    if sources == {"probe"}:
        yield 'its services are probes, and our own questions are no load: give source = "workload"'
    if not manifest.streams:
        yield "it names no stream under [streams.NAME], so nothing shows what was lost"
    absent = [
        name
        for name in DOCUMENTS
        if name != "infrastructure" and name not in manifest.state and name not in manifest.not_applicable
    ]
    if absent:
        yield f"nobody says where to read {', '.join(absent)} ([state.NAME]), or why not ([not_applicable])"
    alone = [name for name in JUDGED_BY_ORACLE if name in manifest.state]
    if alone and manifest.oracle is None:
        yield f"it names no [oracle], and nothing else can tell whether {', '.join(alone)} are right"


def _head(manifest: Manifest) -> Iterator[str]:
    if manifest.schema != SCHEMA:
        yield f"schema: {manifest.schema} is not known; this Blackstart reads {SCHEMA}"
    if manifest.environment is None:
        allowed = ", ".join(ENVIRONMENTS)
        yield f"environment: missing; say where this system runs ({allowed}): nothing is broken unasked"
    if not NAME.fullmatch(manifest.name):
        yield f"name: `{manifest.name}` cannot be part of a file name; use letters, digits, `-`, `_`, `.`"


def _amounts(manifest: Manifest) -> Iterator[str]:
    for key, what in no_amounts(manifest):
        yield f"{key}: {what}"


def _processes(manifest: Manifest) -> Iterator[str]:
    for name, process in manifest.processes.items():
        key = f"processes.{name}"
        if not process.command:
            yield f"{key}.command: empty"
        ready = process.ready
        given = [kind for kind in ("file", "url", "tcp", "log") if getattr(ready, kind) is not None]
        if len(given) > 1:
            yield f"{key}.ready: {' and '.join(given)} given; choose one"
        if ready.log is not None:
            yield from _regex(ready.log, f"{key}.ready.log")
        if name in variables.BUILT_IN or name in {"port", "package", "program", "proxy"}:
            yield f"{key}: `{name}` is the name of a built-in variable; choose another"
        yield from _statuses(process.stop_status, key)


def _statuses(statuses: Iterable[int], key: str) -> Iterator[str]:
    for one in statuses:
        if not -LAST_SIGNAL <= one <= LAST_STATUS:
            yield f"{key}.stop_status: {one} is no exit status (0 to 255, or a signal's number with a minus)"


def _components(manifest: Manifest) -> Iterator[str]:
    for name, component in manifest.components.items():
        key = f"components.{name}"
        ways = [way for way in WAYS if getattr(component, way) is not None]
        if len(ways) != 1:
            yield f"{key}: give exactly one of {', '.join(WAYS)} ({', '.join(ways) or 'none'} given)"
        if (component.url is None) != (component.select is None):
            yield f"{key}: url and select (a JMESPath that yields the pid) go together"
        yield from _jmespath(component.select, f"{key}.select")
        yield from _known(component.process, manifest.processes, f"{key}.process", "process")
        yield from _known(component.service, manifest.services, f"{key}.service", "service")
        yield from _statuses(component.stop_status or (), key)
        yield from _known(component.supervisor, manifest.components, f"{key}.supervisor", "component")
    for name, members in manifest.groups.items():
        for member in members:
            yield from _known(member, manifest.components, f"groups.{name}", "component")
    for member in manifest.limits.components or ():
        yield from _known(member, manifest.components, "limits.components", "component")


def _managed(manifest: Manifest) -> Iterator[str]:
    for name, component in manifest.components.items():
        key = f"components.{name}"
        yield from _names(component, key)
        if not component.managed:
            continue
        if component.stop_signal is not None:
            yield f"{key}.stop_signal: its manager is asked to stop it, and knows the signal"
        if name in manifest.processes:
            yield f"{key}: a process has this name, too; which is to be started again? Choose another"
        if manifest.isolation:
            yield f"{key}: runs outside of the trial, so there is no isolation: remove that line"


def _names(entry: Component | EventSource, key: str) -> Iterator[str]:
    if entry.unit is not None and not UNIT.fullmatch(entry.unit):
        yield f"{key}.unit: `{entry.unit}` names no single service; write it out: `engine.service`"
    if entry.container is not None and not CONTAINER.fullmatch(entry.container):
        yield f"{key}.container: `{entry.container}` is neither a container's name nor its whole id"
    if entry.manager is not None and entry.unit is None:
        yield f"{key}.manager: only units have one"


def _phases(manifest: Manifest) -> Iterator[str]:
    if manifest.phases and not manifest.events:
        yield "phases: nothing to look in; name the target's event files under [events.NAME]"
    for name, source in manifest.events.items():
        key = f"events.{name}"
        ways = [way for way in ("files", "unit", "container") if getattr(source, way) is not None]
        if len(ways) != 1:
            yield f"{key}: give exactly one of files, unit, container ({', '.join(ways) or 'none'} given)"
        if source.host is not None and source.files is None:
            yield f"{key}.host: only files are followed on another host"
        yield from _names(source, key)
        if source.lines is not None:
            yield from _regex(source.lines, f"events.{name}.lines")
            if "(?P<event>" not in source.lines:
                yield f"events.{name}.lines: needs a group called event: `(?P<event>...)`"
    for phase, alternatives in manifest.phases.items():
        for index, match in enumerate(alternatives):
            yield from _where(match.where, f"phases.{phase}[{index}].where")


def _probes(manifest: Manifest) -> Iterator[str]:
    for name, probe in manifest.probes.items():
        if (probe.url is None) == (probe.tcp is None):
            yield f"probes.{name}: give exactly one of url, tcp"
        if probe.period_ms <= 0 or probe.timeout_ms <= 0:
            yield f"probes.{name}: period_ms and timeout_ms must be above 0"
    yield from _known(manifest.ready, manifest.probes, "ready", "probe")


def _services(manifest: Manifest) -> Iterator[str]:
    for name, service in manifest.services.items():
        key = f"services.{name}"
        yield from _source(manifest, service, key)
        yield from _where(service.where, f"{key}.where")
        if service.epoch is not None:
            yield from _regex(service.epoch, f"{key}.epoch", groups=1)


def _source(manifest: Manifest, service: Service, key: str) -> Iterator[str]:
    source = service.source
    if source == "oracle":
        yield from _needs(manifest.oracle, f"{key}.source", "[oracle]")
        if not service.event:
            yield f"{key}.event: missing; the oracle's event that shows service (`order_accepted`)"
    elif source == "workload":
        yield from _needs(manifest.workload, f"{key}.source", "[workload]")
    elif source == "sql":
        if service.period_ms <= 0:
            yield f"{key}.period_ms: must be above 0"
        if service.dsn is None or service.query is None:
            yield f"{key}: source `sql` needs dsn and query"
    elif source.startswith("probe:"):
        yield from _known(source.removeprefix("probe:"), manifest.probes, f"{key}.source", "probe")
    else:
        known = ("oracle", "workload", "sql", *(f"probe:{probe}" for probe in manifest.probes))
        yield f"{key}.source: `{source}` is no source{did_you_mean(source, known)}"


def _load(manifest: Manifest) -> Iterator[str]:
    if manifest.workload is not None:
        if manifest.glue is None:
            yield "workload: needs glue, a Python file beside the manifest with `connect` and `write`"
        if manifest.workload.rate_per_s <= 0 or manifest.workload.concurrency < 1:
            yield "workload: rate_per_s must be above 0 and concurrency at least 1"
    finders = [one.glue for one in manifest.components.values() if one.glue is not None]
    if finders and manifest.glue is None:
        yield f"components: `{finders[0]}` is a function of the glue, but the manifest names none"
    if manifest.glue is not None:
        needed = ["connect", "write"] if manifest.workload is not None else []
        needed += finders
        needed += [stream.glue for stream in manifest.streams.values() if stream.glue is not None]
        needed += [data.glue for data in manifest.data.values() if data.glue is not None]
        yield from glue.problems(manifest, needed)


def _streams(manifest: Manifest) -> Iterator[str]:
    for name, stream in manifest.streams.items():
        key = f"streams.{name}"
        yield from _acknowledged(manifest, stream, key)
        ways = [way for way in ("url", "sql", "glue") if getattr(stream, way) is not None]
        if len(ways) != 1:
            yield f"{key}: give exactly one of url, sql, glue ({', '.join(ways) or 'none'} given)"
        if stream.sql is not None and stream.dsn is None:
            yield f"{key}.dsn: missing; sql needs to know where"
        if stream.ordered is not None and stream.unordered is not None:
            yield f"{key}: `ordered` says that it has an order, `unordered` that it has none"
        if stream.glue is not None and manifest.glue is None:
            yield f"{key}.glue: `{stream.glue}` is a function of the glue, but the manifest names none"
        yield from _jmespath(stream.select, f"{key}.select")


def _data(manifest: Manifest) -> Iterator[str]:
    for name, data in manifest.data.items():
        if (data.files is None) == (data.glue is None):
            yield f"data.{name}: give exactly one of files, glue"
        if data.glue is not None and manifest.glue is None:
            yield f"data.{name}.glue: `{data.glue}` is a function of the glue, but the manifest names none"


def _links(manifest: Manifest) -> Iterator[str]:
    for name, link in manifest.links.items():
        if not link.ports and link.proxy is None:
            yield f"links.{name}: give ports (of the side that listens), or a proxy"
        if link.group is not None and link.protocol != "udp":
            yield f"links.{name}.group: only udp has multicast groups"


def _acknowledged(manifest: Manifest, stream: Stream, key: str) -> Iterator[str]:
    if stream.acknowledged not in ACKNOWLEDGED:
        hint = did_you_mean(stream.acknowledged, ACKNOWLEDGED)
        yield f"{key}.acknowledged: `{stream.acknowledged}` is no source{hint}"
    elif stream.acknowledged == "workload":
        yield from _needs(manifest.workload, f"{key}.acknowledged", "[workload]")
    else:
        yield from _needs(manifest.oracle, f"{key}.acknowledged", "[oracle]")


def _state(manifest: Manifest) -> Iterator[str]:
    for section in ("state", "not_applicable"):
        for name in getattr(manifest, section):
            yield from _known(name, (*DOCUMENTS, *BESIDES), f"{section}.{name}", "validator")
    for name, document in manifest.state.items():
        yield from _jmespath(document.select, f"state.{name}.select")
    for scenario, values in manifest.objectives.items():
        fields = msgspec.structs.fields(Stops if scenario == "chaos" else Objectives)
        for name in values:
            known = [field.name for field in fields]
            yield from _known(name, known, f"objectives.{scenario}", "objective")


def _variables(manifest: Manifest) -> Iterator[str]:
    started: set[str] = set()
    for name, process in manifest.processes.items():
        for variable in variables.names(msgspec.to_builtins(process)):
            own = variable.split(".")[0] == name
            if own and process.endpoints is None:
                yield f"processes.{name}: variable {{{variable}}}: `{name}` writes no endpoints file"
            elif not own:
                yield from _variable(variable, manifest, started, f"processes.{name}")
        started.add(name)
    for variable in variables.names(msgspec.to_builtins(manifest.hosts)):
        yield from _variable(variable, manifest, set(), "hosts")
    later = (
        "components",
        "events",
        "probes",
        "services",
        "oracle",
        "workload",
        "streams",
        "data",
        "operations",
        "state",
        "links",
    )
    for section in later:
        for variable in variables.names(msgspec.to_builtins(getattr(manifest, section))):
            yield from _variable(variable, manifest, started, section)


def _variable(variable: str, manifest: Manifest, started: set[str], key: str) -> Iterator[str]:
    head, _, rest = variable.partition(".")
    if head in variables.BUILT_IN and not rest:
        return
    if head == "program":  # one that is not there is told when the target is to be started: UNKNOWN
        return
    if head == "port":
        yield from _known(rest, manifest.ports, f"{key}: variable {{{variable}}}", "port")
    elif head == "proxy":
        proxied = [name for name, link in manifest.links.items() if link.proxy is not None]
        yield from _known(rest, proxied, f"{key}: variable {{{variable}}}", "proxied link")
    elif head == "package":
        if variables.package_folder(rest) is None:
            yield f"{key}: variable {{{variable}}}: the Python package `{rest}` is not installed"
    elif head in manifest.processes and head not in started:
        yield f"{key}: variable {{{variable}}}: `{head}` is started later; move it up"
    elif head not in manifest.processes:
        known = (*variables.BUILT_IN, "port", "package", "program", "proxy", *manifest.processes)
        yield f"{key}: variable {{{variable}}}: nothing is called `{head}`{did_you_mean(head, known)}"
    elif manifest.processes[head].endpoints is None:
        yield f"{key}: variable {{{variable}}}: process `{head}` names no endpoints file"


def _known(name: str | None, known: Iterable[str], key: str, what: str) -> Iterator[str]:
    names = list(known)
    if name is not None and name not in names:
        yield f"{key}: no {what} `{name}`{did_you_mean(name, names)}"


def _needs(section: Any, key: str, name: str) -> Iterator[str]:
    if section is None:
        yield f"{key}: there is no {name} in this manifest"


def _regex(pattern: str, key: str, *, groups: int = 0) -> Iterator[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f"{key}: not a regular expression: {error}"
        return
    if compiled.groups < groups:
        yield f"{key}: needs a group in parentheses: `^(\\d+)-`"


def _where(where: dict[str, Any], key: str) -> Iterator[str]:
    try:
        matches(where)
    except re.error as error:
        yield f"{key}: not a regular expression: {error}"


def _jmespath(expression: str | None, key: str) -> Iterator[str]:
    if expression is None:
        return
    try:
        jmespath.compile(expression)
    except JMESPathError as error:
        first = str(error).splitlines()[0]
        yield f"{key}: not JMESPath: {first}"
