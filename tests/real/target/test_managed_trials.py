"""Whole trials, by the command line, of a system that somebody else runs: a unit, and a container."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import docker_kit
import pytest
import systemd_kit

from blackstart.target import ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVER = Path(__file__).with_name("attached_server.py")
MANIFEST = """\
schema = 1
name = "attached"
environment = "test"
glue = "attached_glue.py"
ready = "port"
[components]
server = {component}
[workload]
rate_per_s = 100.0
settings = {{ port = "{port}" }}
[services.orders]
source = "workload"
key = "id"
[probes]
port = {{ tcp = "127.0.0.1:{port}" }}
[streams.lines]
acknowledged = "workload"
glue = "read"
key = "id"
[not_applicable]
"*" = "none"
"""
SCENARIO = """\
id = "R99"
title = "it"
requirement = "R25"
[load] # low, so that a busy machine does not matter
minimum_per_s = 30
[steady]
limit_s = 60
[fault]
kind = "{kind}"
components = ["server"]
[objectives]
rto_ms = 60_000
"""
KINDS = ("kill", "terminate")


@pytest.fixture(params=["unit", "container"])
def system(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, dict[str, str], Callable[[], int]]]:
    """Have the small system run by its manager: its component, the environment, its restarts so far."""
    kit = systemd_kit if request.param == "unit" else docker_kit
    if (why := kit.missing()) is not None:
        pytest.skip(why)
    port = ports.allocate(("small",), random.SystemRandom())["small"]
    (tmp_path / "port").write_text(str(port))
    if request.param == "unit":
        with systemd_kit.running() as sd:
            command = f"{sys.executable} {SERVER} {port} {tmp_path / 'lines'}"
            sd.service("small", command, Restart="always", RestartSec="100ms")
            restarts = lambda: int(sd.value("small", "NRestarts"))  # noqa: E731 - handed out
            yield '{ unit = "small.service", manager = "user" }', sd.environment, restarts
        return
    with docker_kit.running() as docker:
        shown = [part for place in (SERVER, Path(sys.base_prefix)) for part in ("-v", f"{place}:{place}:ro")]
        kept = ("-v", f"{tmp_path}:{tmp_path}", "--restart", "always")
        command_ = (
            os.path.realpath(sys.executable),
            str(SERVER),
            str(port),
            str(tmp_path / "lines"),
        )
        docker.run("small", *command_, options=(*shown, *kept))
        yield (
            '{ container = "small" }',
            docker.environment,
            lambda: int(docker.value("small", ".RestartCount")),
        )


def test_a_system_that_somebody_else_runs_is_broken_and_judged(
    system: tuple[str, dict[str, str], Callable[[], int]], tmp_path: Path
) -> None:
    """Killed, its manager brings it back; stopped, we have it started; nothing is lost: PASS."""
    component, environment, restarts = system
    (tmp_path / "attached_glue.py").write_text(Path(__file__).with_name("attached_glue.py").read_text())
    manifest = tmp_path / "attached.toml"
    manifest.write_text(MANIFEST.format(component=component, port=(tmp_path / "port").read_text()))
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    blackstart = [sys.executable, "-m", "blackstart.cli.main"]
    for kind in KINDS:
        before = restarts()
        (tmp_path / f"{kind}.toml").write_text(SCENARIO.format(kind=kind))
        done = subprocess.run(
            [*blackstart, "run", f"{kind}.toml", "--target", "attached.toml", "--out", kind],
            cwd=tmp_path,
            env={**os.environ, **environment, **state},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert kind == "terminate" or restarts() == before + 1
        (results,) = (tmp_path / kind).glob("2*/results.json")
        (trial,) = json.loads(results.read_text())["trials"]
        assert trial["verdict"] == "PASS"
        told = trial["rto"]["stamps"]["t2_responded"]["source"]
        assert told.endswith("server started" if kind == "kill" else "server starting")
