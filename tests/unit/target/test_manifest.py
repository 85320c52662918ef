from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from blackstart.errors import ManifestError
from blackstart.model import manifest as model
from blackstart.model.manifest import Manifest, Process, Ready
from blackstart.scenario.plan import flat_links
from blackstart.target.links import ports
from blackstart.target.manifest import find, load, packaged, read
from blackstart.target.problems import problems

GOOD = """
schema = 1
name = "thing"
environment = "test"
glue = "thing_glue.py"
ports = ["main"]
ready = "up"
[processes.server]
command = ["{python}", "server.py", "{port.main}"]
ready.tcp = "127.0.0.1:{port.main}"
[components]
server = { process = "server" }
[groups]
each = ["server"]
[probes.up]
tcp = "127.0.0.1:{port.main}"
[workload]
[services.orders]
source = "workload"
key = "id"
[streams.writes]
acknowledged = "workload"
glue = "read"
key = "id"
"""
TABLES = [
    model.Process,
    model.Ready,
    model.Component,
    model.EventSource,
    model.ProbeSpec,
    model.Service,
    model.OracleSpec,
    model.WorkloadSpec,
    model.Stream,
    model.StateDocument,
    model.Limits,
]
STRANGERS = ["redis", "postgresql", "quickfix", "quickfix-reset", "quickfix-forgetful", "nats", "rabbitmq"]
GLUE = "async def connect(s): ...\nasync def write(c, r): ...\nasync def read(s): ...\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a manifest without fault and its glue."""
    (tmp_path / "thing.toml").write_text(GOOD)
    (tmp_path / "thing_glue.py").write_text(GLUE)
    return tmp_path


def change(folder: Path, old: str, new: str) -> Path:
    """Spoil the manifest in one place."""
    path = folder / "thing.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_a_good_manifest_loads_and_knows_its_folder(folder: Path) -> None:
    """What is right is accepted, and relative things are relative to the file."""
    manifest = load(folder / "thing.toml")
    assert manifest.name == "thing"
    assert manifest.folder == str(folder)


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_packaged_target_is_without_problems(name: str) -> None:
    """What is shipped can be used, by name."""
    assert problems(load(name)) == []


def test_the_default_and_the_named_targets_are_there() -> None:
    """The reference firm and the strangers are shipped."""
    assert {"paperfirm", *STRANGERS, "redis-sentinel", "nats-cluster"} <= set(packaged())


@pytest.mark.parametrize("name", STRANGERS)
def test_a_strangers_manifest_and_glue_stay_short(name: str) -> None:
    """Attaching a system takes fewer than 60 lines, empty ones and comments apart."""
    manifest = read(find(name))
    assert manifest.glue is not None
    files = [find(name), find(name).with_name(manifest.glue)]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) < 60


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('environment = "test"', "", "environment: missing"),
        ('environment = "test"', 'environment = "tst"', "environment: Invalid enum value 'tst'"),
        ('environment = "test"', 'environment = "tst"', "did you mean 'test'? allowed: 'sim', 'dev', 'test'"),
        ("schema = 1", "schema = 9", "schema: 9 is not known"),
        ("schema = 1", "schema = 1\nproceses = 1", "did you mean `processes`?"),
        ("command =", "comand =", "processes.server: unknown key `comand` (did you mean `command`?"),
        ("command = [", "command = 3 # [", "processes.server.command: Expected `array`, got `int`"),
        ('process = "server"', 'process = "sever"', "no process `sever` (did you mean `server`?"),
        ('process = "server"', 'pid_file = "x", process = "server"', "give exactly one of process, pid_file"),
        ('process = "server"', 'url = "http://x"', "url and select"),
        ('process = "server"', 'url = "http://x", select = "a[?"', "components.server.select: not JMESPath"),
        ('process = "server"', 'unit = "eng*"', "`eng*` names no single service"),
        ('process = "server"', 'unit = "engine"', "write it out: `engine.service`"),
        ('process = "server"', 'unit = "a.service", stop_signal = "INT"', "its manager is asked to stop it"),
        ('process = "server"', 'process = "server", stop_status = [256]', "256 is no exit status (0 to"),
        ('process = "server"', 'process = "server", stop_status = [-65]', "-65 is no exit status (0 to"),
        ('process = "server"', 'unit = "a.service"', "a process has this name, too"),
        ('process = "server"', 'unit = "a.service", container = "a"', "exactly one of process"),
        ('process = "server"', 'container = "a/b"', "neither a container's name nor its whole id"),
        ('process = "server"', 'container = "a", manager = "user"', "only units have one"),
        (
            'process = "server"',
            'process = "server", restart = "self"',
            "with `host`, units and containers only",
        ),
        ("schema = 1", "schema = 1\nevents = { log = {} }", "exactly one of files, unit, container (none"),
        (
            "schema = 1",
            'schema = 1\nevents = { log = { unit = "a" } }',
            "events.log.unit: `a` names no single",
        ),
        ("schema = 1", 'schema = 1\nevents = { log = { unit = "a.service", host = "h" } }', "only files are"),
        ('each = ["server"]', 'each = ["servant"]', "groups.each: no component `servant`"),
        ('source = "workload"', 'source = "workloed"', "did you mean `workload`?"),
        ('source = "workload"', 'source = "oracle"', "there is no [oracle]"),
        ('source = "workload"', 'source = "sql"', "needs dsn and query"),
        ('source = "workload"', 'source = "probe:upp"', "no probe `upp` (did you mean `up`?"),
        ('source = "workload"', 'source = "workload"\nepoch = "^\\\\d+"', "needs a group"),
        ('source = "workload"', 'source = "workload"\nepoch = "("', "not a regular expression"),
        ('source = "workload"', 'source = "workload"\nwhere = { id = "~[" }', "not a regular expression"),
        ('acknowledged = "workload"', 'acknowledged = "work"', "streams.writes.acknowledged: `work`"),
        ('glue = "read"', 'glue = "reed"', "has no `async def reed(…)`"),
        ('glue = "read"', 'sql = "select 1"', "streams.writes.dsn: missing"),
        ('glue = "thing_glue.py"', 'glue = "nothing.py"', "glue: no file"),
        ('ready = "up"', 'ready = "app"', "ready: no probe `app`"),
        ("{port.main}", "{port.mian}", "no port `mian` (did you mean `main`?"),
        ("server.py", "{package.no_such_package_here}", "`no_such_package_here` is not installed"),
        ("server.py", "{proxy.cache}", "no proxied link `cache`"),
        ("schema = 1", "schema = 1\nlinks = { a = {} }", "links.a: give ports"),
        ("schema = 1", 'schema = 1\nlinks = { a = { ports = ["1"], group = "239.1.1.1" } }', "only udp"),
        ("server.py", "{elsewhere}", "nothing is called `elsewhere`"),
        ("server.py", "{server.http}", "`server` writes no endpoints file"),
        ("ready.tcp =", 'ready.file = "x"\nready.tcp =', "file and tcp given; choose one"),
        ("schema = 1", 'schema = 1\nnot_applicable = { profit = "x" }', "no validator `profit`"),
        ("schema = 1", "schema = 1\nobjectives = { R1 = { rto = 1.0 } }", "no objective `rto`"),
        *(
            (
                "schema = 1",
                f"schema = 1\nobjectives = {{ R1 = {{ {name} = {value} }} }}",
                f"R1.{name}: {value} is no",
            )
            for name, value in (("pnl_tolerance", "nan"), ("rto_ms", "inf"), ("rpo_events", "-1.0"))
        ),
        (
            "schema = 1",
            "schema = 1\nlimits = { fault_limit_s = inf }",
            "limits.fault_limit_s: inf is no amount",
        ),
        (
            "[probes.up]",
            "[probes.up]\nperiod_ms = nan",
            "probes.up.period_ms: nan is no amount; write a finite",
        ),
        ("[workload]", "[workload]\nrate_per_s = inf", "workload.rate_per_s: inf is no amount"),
        (
            'source = "workload"',
            'source = "sql"\nperiod_ms = 0',
            "services.orders.period_ms: must be above 0",
        ),
        ('glue = "read"', 'glue = "read"\nsettle_s = -1', "streams.writes.settle_s: -1.0 is no amount"),
        ("schema = 1", 'schema = 1\n[limits]\ncomponents = ["x"]\n[x]', "unknown key `x`"),
        ("schema = 1", "schema = ", "not TOML"),
    ],
)
def test_each_mistake_is_named_with_file_key_and_remedy(
    folder: Path, old: str, new: str, expected: str
) -> None:
    """An error says which file, which key, what is wrong, and what was probably meant."""
    path = change(folder, old, new)
    with pytest.raises(ManifestError) as caught:
        load(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    """Nobody should have to mend one mistake to hear of the next."""
    change(folder, 'environment = "test"', "")
    change(folder, 'each = ["server"]', 'each = ["a", "b"]')
    path = change(folder, 'ready = "up"', 'ready = "down"')
    with pytest.raises(ManifestError, match="4 problems") as caught:
        load(path)
    assert str(caught.value).count("\n  - ") == 4


def test_form_errors_of_several_sections_are_told_at_once(folder: Path) -> None:
    """Also what does not even convert is collected over all entries."""
    change(folder, "command =", "comand =")
    path = change(folder, "source =", "sauce =")
    with pytest.raises(ManifestError) as caught:
        load(path)
    assert "processes.server" in str(caught.value)
    assert "services.orders" in str(caught.value)


def test_an_unknown_target_suggests_a_packaged_one() -> None:
    """A misspelt name finds its target."""
    with pytest.raises(ManifestError, match="did you mean `redis`"):
        find("rediss")


def test_a_folder_is_no_manifest(folder: Path) -> None:
    """A folder given as target is named as one, with the manifests in it."""
    with pytest.raises(ManifestError, match="is a folder") as caught:
        find(folder)
    assert "thing.toml" in caught.value.hint


def test_a_missing_file_is_told_as_such(tmp_path: Path) -> None:
    """A path is never taken for a name."""
    with pytest.raises(ManifestError, match="no such file"):
        find(tmp_path / "none.toml")


def test_a_later_process_cannot_be_used_before_it_runs() -> None:
    """Variables of a process exist only after it was started."""
    early = Process(command=("{late.http}",))
    late = Process(command=("x",), endpoints="{run}/e.json")
    manifest = Manifest(schema=1, name="x", environment="test", processes={"early": early, "late": late})
    assert any("`late` is started later" in problem for problem in problems(manifest))


def test_readiness_may_use_the_process_own_endpoints() -> None:
    """A process may tell by its endpoints file where to ask whether it is ready."""
    process = Process(command=("sh",), endpoints="{run}/e.json", ready=Ready(url="{own.http}/ready"))
    manifest = Manifest(schema=1, name="x", environment="test", processes={"own": process})
    assert problems(manifest) == []


def test_one_reason_for_all_documents_that_are_not_given(folder: Path) -> None:
    """`"*"` stands for every document that is neither given nor measured by Blackstart itself."""
    path = change(folder, "schema = 1", 'schema = 1\nnot_applicable = { "*" = "no", pnl = "none" }')
    reasons = read(path).not_applicable
    assert reasons["positions"] == "no"
    assert reasons["pnl"] == "none"
    assert "infrastructure" not in reasons
    assert "*" not in reasons


def test_a_folder_in_the_file_is_not_believed(folder: Path) -> None:
    """Where a manifest lies is known from where it was read."""
    path = change(folder, "schema = 1", 'schema = 1\nfolder = "/elsewhere"')
    assert read(path).folder == str(folder)


def test_a_manifest_survives_the_history() -> None:
    """A history keeps the manifest as JSON: nothing may be lost on the way."""
    manifest = load("paperfirm")
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_a_partition_from_the_exchange_leaves_the_firm_none_of_its_lines() -> None:
    """Order entry at both gateways, market data, the member interface; not what Blackstart itself asks."""
    manifest = load("paperfirm")
    values = {
        "exchange": {
            "http": "http://127.0.0.1:1",
            "member": "http://127.0.0.1:2",
            **{name: {"port": k} for k, name in enumerate(("fix", "fix_backup", "market_data"), start=3)},
        }
    }
    found = [one for name in flat_links(("@exchange",), manifest) for one in ports(manifest, name, values)]
    assert sorted(found) == [2, 3, 4, 5]
    assert manifest.oracle is not None
    assert manifest.oracle.url == "{exchange.http}"


def test_what_runs_outside_of_the_trial_is_not_isolated(folder: Path) -> None:
    """A trial's own network or mounts would not reach a unit or a container."""
    path = change(folder, "[components]", '[components.x]\nunit = "x.service"\n[components]')
    change(folder, "schema = 1", 'schema = 1\nisolation = ["files"]')
    with pytest.raises(ManifestError, match=r"components\.x: runs outside of the trial"):
        load(path)


def test_the_reference_page_names_every_key() -> None:
    """A key that nobody can read about does not exist for users."""
    page = (Path(__file__).parents[3] / "docs/reference/manifest.md").read_text(encoding="utf-8")
    for kind in (Manifest, *TABLES):
        for field in msgspec.structs.fields(kind):
            assert field.name in page, f"{kind.__name__}.{field.name}"


def test_the_shipped_postgresql_leaves_nothing_in_dev_shm() -> None:
    """A killed server's POSIX shared memory would stay for ever: it keeps its own in its folder."""
    assert "--set=dynamic_shared_memory_type=mmap" in load("postgresql").processes["server"].prepare


@pytest.mark.parametrize("name", list(packaged()))
def test_every_stream_has_an_order_or_says_why_not(name: str) -> None:
    """Each stream of a packaged target names its order, or tells the reader why there is none."""
    for stream in read(packaged()[name]).streams.values():
        assert (stream.ordered is None) != (stream.unordered is None)


def test_a_stream_cannot_have_an_order_and_have_none(folder: Path) -> None:
    """`ordered` and `unordered` together are a problem of the manifest."""
    path = folder / "thing.toml"
    path.write_text(GOOD + 'ordered = "n"\n')
    assert not list(problems(read(path)))
    path.write_text(GOOD + 'ordered = "n"\nunordered = "no"\n')
    assert [one for one in problems(read(path)) if "`unordered` that it has none" in one]


def test_mistakes_of_form_come_first_and_that_is_said(folder: Path) -> None:
    """Behind an unknown key others may hide; no hint sends anybody to where he is already."""
    (folder / "thing.toml").write_text(GOOD.replace("command =", "comand ="))
    with pytest.raises(ManifestError, match="comand") as form:
        load(folder / "thing.toml")
    (folder / "thing.toml").write_text(GOOD.replace('ready = "up"', 'ready = "nobody"'))
    with pytest.raises(ManifestError, match="nobody") as other:
        load(folder / "thing.toml")
    assert "what else is wrong is looked for once this is mended" in form.value.render()
    assert "what else" not in other.value.render()
    assert "validate" not in form.value.render() + other.value.render()


def test_nobody_comes_to_production_by_a_suggestion(folder: Path) -> None:
    """A short form of it is refused with what is allowed; which one was meant is for a human to say."""
    (folder / "thing.toml").write_text(GOOD.replace('"test"', '"prod"'))
    with pytest.raises(ManifestError, match=r"allowed: .*'production'") as refused:
        load(folder / "thing.toml")
    assert "did you mean" not in refused.value.render()
