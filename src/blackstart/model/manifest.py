"""The target manifest as data: everything Blackstart knows of a system under test.

Files: `targets/*.toml`.

Strings may hold `{variables}`: `{run}` the run folder, `{seed}`, `{python}`, `{here}` the manifest's
folder, `{port.NAME}` a free port from `ports`, `{package.NAME}` the folder of an installed Python package,
`{proxy.NAME}` where the proxy of a link listens, and `{PROCESS.KEY}` a value from the endpoints file of a
process (`{firm.http}`, nested: `{exchange.fix.port}`).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from blackstart.model.data import Data  # noqa: TC001 - msgspec reads the annotation when it runs

Environment = Literal["sim", "dev", "test", "staging", "production"]


class Ready(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a process counts as ready.

    A file exists, an URL answers 200, a TCP port accepts, or a line of its log matches.
    """

    file: str | None = None
    url: str | None = None
    tcp: str | None = None
    log: str | None = None
    limit_s: float = 30.0


class Process(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A process that Blackstart starts (in file order) and ends (in reverse).

    `endpoints` is a JSON file that the process writes; its keys become variables. `state` are the paths
    that a cold restart wipes. `prepare` is a command that runs before the first start and again after its
    `state` was wiped (`initdb`). `user = "unprivileged"`: never as root; Blackstart as root gives the
    process another uid. `restart = "blackstart"`: when a fault ends it, Blackstart is the operator that
    starts it again, `restart_after_s` after it noticed; `"self"`: something else does. `stop_status` are the
    exit statuses of an orderly end after the stop signal (143, or -15 for one that dies of SIGTERM itself).
    """

    command: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    user: Literal["same", "unprivileged"] = "same"
    ready: Ready = Ready()
    endpoints: str | None = None
    environment: dict[str, str] = {}
    state: tuple[str, ...] = ()
    restart: Literal["blackstart", "self"] = "blackstart"
    restart_after_s: float = 0.0
    stop_signal: Literal["TERM", "INT", "QUIT"] = "TERM"
    stop_status: tuple[int, ...] = (0,)
    stop_limit_s: float = 10.0


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another host, reached by this system's `ssh` program.

    `identity` is a private key file, `python` the interpreter there (3.9 or newer), `options` are what
    `ssh -o` takes. What is not given is as `ssh` itself has it: its config, its agent, its known hosts.
    """

    address: str
    port: int = 22
    user: str | None = None
    identity: str | None = None
    python: str = "python3"
    options: dict[str, str] = {}


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that can be broken.

    Its process is found by exactly one of: a started process, a pid file, a regular expression that matches
    exactly one command line, JSON at an URL, a function of the glue, which returns a pid or the name of a
    started process, a systemd `unit` (of the system's `manager` or of our user's), or a `container` of docker
    or podman.

    With `host` it runs there: found by `pid_file`, `match`, or `url`. `start` is the command that starts it
    there; by it Blackstart is its operator (unless `restart = "self"`): it starts it when it does not run
    yet, and again, `restart_after_s` after a fault ended it; `ready`, asked from here, says when it is there.

    `select` is a JMESPath expression that yields the pid. `service` overrides the scenario's service stream
    for this component. `symbols` are those that it serves, where it does not serve all. `supervisor` is the
    component that starts it again when it dies. `stop_signal` asks for an orderly stop, and `stop_status` are
    the exit statuses of one (default: those of its process, else 0). `dsn` is how a database is reached, to
    be told to refuse connections. `restart` says who starts a unit or container again after its death:
    itself, or Blackstart as its operator; None: as its `Restart=` or restart policy says when the manifest
    is loaded.
    """

    process: str | None = None
    pid_file: str | None = None
    match: str | None = None
    url: str | None = None
    select: str | None = None
    glue: str | None = None
    unit: str | None = None
    manager: Literal["system", "user"] | None = None
    container: str | None = None
    restart: Literal["blackstart", "self"] | None = None
    service: str | None = None
    supervisor: str | None = None
    stop_signal: Literal["TERM", "INT", "QUIT"] | None = None
    stop_status: tuple[int, ...] | None = None
    dsn: str | None = None
    symbols: tuple[str, ...] | None = None
    host: str | None = None
    start: tuple[str, ...] = ()
    ready: Ready = Ready()
    restart_after_s: float = 0.0

    @property
    def operated(self) -> bool:
        """Whether Blackstart starts it again on its host, or by its manager."""
        if self.managed:
            return self.restart == "blackstart"
        return bool(self.start) and self.restart != "self"

    @property
    def managed(self) -> bool:
        """Whether a service manager runs it: it is started and stopped by asking that."""
        return self.unit is not None or self.container is not None


class EventSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the target's own events come from: JSON lines with a monotonic stamp, or any log.

    `files` is a glob; new files are followed too. `lines` is for logs that are not JSON: a regular expression
    whose group `event` is the event's name, and whose other named groups are its fields. Such an event is
    stamped when its line reaches us. With `host` the files lie there, and stamps are turned into our clock's.

    Instead of `files` it may be what a systemd `unit` (of `manager`) says in the journal, or the log of a
    `container`: these stamp every line themselves.
    """

    files: str | None = None
    unit: str | None = None
    manager: Literal["system", "user"] | None = None
    container: str | None = None
    host: str | None = None
    lines: str | None = None
    event: str = "event"
    mono_ns: str = "mono_ns"


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event of a certain name whose fields match `where`.

    See `Trigger.where`; dotted names reach into objects.
    """

    event: str
    where: dict[str, Any] = {}


class ProbeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question asked again and again.

    `url` must answer 200, `tcp` must accept; `period_ms` bounds what the answer is worth.
    """

    url: str | None = None
    tcp: str | None = None
    period_ms: float = 5.0
    timeout_ms: float = 1000.0
    stable_ms: float = 0.0


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service stream: the events that show, from outside, that the system serves.

    `source`: `oracle` (the exchange's events), `workload` (acknowledged writes), `probe:NAME`, or `sql`:
    `query` is asked every `period_ms` at `dsn`; each row's first column is its cursor (handed back as `$1`,
    first time NULL), the second its key. `epoch` is a regular expression whose first group is the epoch in
    `key`; a scenario with `new_epoch` takes only events of a later epoch as resumption. `symbol` is the field
    that tells which symbol an event is of.
    """

    source: str
    event: str = ""
    where: dict[str, Any] = {}
    key: str = "cl_ord_id"
    epoch: str | None = None
    symbol: str | None = None
    dsn: str | None = None
    query: str | None = None
    period_ms: float = 10.0
    minimum_per_s: float | None = None


class OracleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who knows the truth: the paper exchange at `url` for `account`, or nobody but the workload."""

    kind: Literal["exchange"]
    url: str
    account: str
    session: str


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The load: the glue's `connect` and `write` driven at `rate_per_s`.

    A separate process keeps the ledger of acknowledged writes. A write without an answer for `timeout_s`
    breaks the connection. `settings` go to the glue.
    """

    rate_per_s: float = 400.0
    concurrency: int = 64
    timeout_s: float = 5.0
    settings: dict[str, Any] = {}


class Stream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events to compare after quiescing: what was acknowledged against what the target holds.

    `acknowledged`: `oracle:orders`, `oracle:executions` or `workload`. `recovered`: exactly one of an `url`
    (with `select`, a JMESPath to the list; `page` for cursors: the query parameter `since` and the answer's
    `next`), `sql` with `dsn`, or `glue = "function"`. `content` are the fields that must be equal; `rename`
    says what a field is called in the target (`exec_id = "id"`); `ordered` names the target's field that
    gives its order (without it, order is not checked; `unordered` tells the reader why not); `notional` names
    the fields whose product is the money at stake (ticks). Where both sides hold different numbers, what is
    missing counts as lost once nothing has changed for `settle_s`: longer than the target's own queues take
    to deliver again.
    """

    acknowledged: str
    key: str
    content: tuple[str, ...] = ()
    url: str | None = None
    select: str | None = None
    page: bool = False
    sql: str | None = None
    dsn: str | None = None
    glue: str | None = None
    ordered: str | None = None
    unordered: str | None = None
    rename: dict[str, str] = {}
    notional: tuple[str, ...] = ()
    settle_s: float = 2.0


class StateDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a validator's document comes from.

    `select` (JMESPath) shapes a foreign document into the documented one.
    """

    url: str
    select: str | None = None


class ProxySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link that leads through a proxy of Blackstart: `host:port` where it listens, and where it leads."""

    listen: str
    upstream: str


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A connection that network faults can break: known by the ports of its server side.

    `ports` may name a variable that holds several. `group` is the multicast group of a UDP link. `components`
    are those on it. `to` says whom it leads to (else the link's own name): `@exchange` in a scenario is every
    link that leads to `exchange`. With `proxy` Blackstart starts a proxy before the target, which then finds
    the other side at `{proxy.NAME}`: such a link can be broken without any privilege. `symbols` as of a
    component.
    """

    ports: tuple[str, ...] = ()
    protocol: Literal["tcp", "udp"] = "tcp"
    proxy: ProxySpec | None = None
    group: str | None = None
    title: str = ""
    to: str = ""
    components: tuple[str, ...] = ()
    symbols: tuple[str, ...] | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that the target does when it is asked over HTTP: write a checkpoint, reconcile."""

    urls: tuple[str, ...]
    method: str = "POST"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Blast radius (R22): which components may be broken, which symbols disturbed, and how much at once."""

    components: tuple[str, ...] | None = None
    symbols: tuple[str, ...] | None = None
    concurrent_faults: int = 8
    fault_limit_s: float = 120.0


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole manifest.

    `isolation` says what each trial may have for itself: its own loopback network, its own mounts. Faults of
    the network and of file systems then touch nothing else on the host; only for targets that Blackstart
    starts wholly. `signs` says how the target tells what scenarios expect of it (`Expectation.signal`), or in
    words why it does not do that.
    `data` says where data lie that faults can damage, `operations` what the target can be asked to do.
    `symbols` are those that it trades. `needs` are programs (and `python:` packages) that must be installed,
    each with the line that installs it. In a file, `not_applicable."*"` gives one reason for all documents
    that are not under [state]. Without `environment` it is refused (R20). `folder` is where its file lies;
    the loader sets it.
    """

    schema: int
    name: str
    environment: Environment | None = None
    description: str = ""
    title: str = ""
    glue: str | None = None
    isolation: tuple[Literal["network", "files"], ...] = ()
    ports: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    needs: dict[str, str] = {}
    processes: dict[str, Process] = {}
    hosts: dict[str, Host] = {}
    components: dict[str, Component] = {}
    groups: dict[str, tuple[str, ...]] = {}
    events: dict[str, EventSource] = {}
    phases: dict[Literal["detected", "responded", "recovered", "validated"], tuple[Match, ...]] = {}
    probes: dict[str, ProbeSpec] = {}
    ready: str | None = None
    links: dict[str, Link] = {}
    signs: dict[str, tuple[Match, ...] | str] = {}
    data: dict[str, Data] = {}
    operations: dict[str, Operation] = {}
    services: dict[str, Service] = {}
    oracle: OracleSpec | None = None
    workload: WorkloadSpec | None = None
    streams: dict[str, Stream] = {}
    state: dict[str, StateDocument] = {}
    not_applicable: dict[str, str] = {}
    limits: Limits = Limits()
    objectives: dict[str, dict[str, float]] = {}
    folder: str = ""

    def told(self, sign: str | None) -> tuple[Match, ...]:
        """Return the target's own events that tell a sign; none where it does not tell, or does not do it."""
        found = self.signs.get(sign or "", ())
        return () if isinstance(found, str) else found

    def host_of(self, component: str) -> str | None:
        """Return the name of the other host on which a component runs; None for one of this host."""
        spec = self.components.get(component)
        return None if spec is None else spec.host
