from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """\
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"positions": [{"symbol": "ALFA", "quantity": 300}]}).encode()
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
MANIFEST = """\
schema = 1
name = "little"
environment = "test"
ports = ["http"]
[processes.main]
command = ["{python}", "{here}/server.py", "{port.http}"]
ready.url = "http://127.0.0.1:{port.http}/"
[components]
main = { process = "main" }
[probes.health]
url = "http://127.0.0.1:{port.http}/"
[services.orders]
source = "probe:health"
[state.positions]
url = "http://127.0.0.1:{port.http}/positions"
[state.orders]
url = "http://127.0.0.1:{port.http}/missing"
"""


def blackstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`."""
    command = (sys.executable, "-m", "blackstart.cli.main", *arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=110)


def gone(pid: int, limit_s: float = 10.0) -> bool:
    """Say whether a process ends (or is a zombie) within the limit."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def processes_in(folder: Path) -> list[int]:
    """Find the processes whose command line names something in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line:
                found.append(int(entry.name))
    return found


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """Make a little target of one process that answers over HTTP; whatever is left of it is ended."""
    (tmp_path / "server.py").write_text(SERVER, encoding="utf-8")
    (tmp_path / "little.toml").write_text(MANIFEST, encoding="utf-8")
    yield tmp_path
    for pid in processes_in(tmp_path):
        os.kill(pid, signal.SIGKILL)


def up_json(folder: Path) -> Any:
    """Read what `up` announced."""
    (path,) = folder.glob("runs/*/up.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_up_snapshot_diff_down(little: Path) -> None:
    """A target is kept up, its state is read twice, the snapshots are equal, and `down` leaves nothing."""
    assert blackstart(little, "up", "-t", "little.toml").returncode == 0
    keeper = up_json(little)["pid"]
    first = blackstart(little, "snapshot", "a.json")
    assert first.returncode == 2, "one of the documents cannot be read: that is not a whole snapshot"
    assert "target.orders" in first.stderr
    blackstart(little, "snapshot", "b.json")
    document = json.loads((little / "a.json").read_text(encoding="utf-8"))
    assert document["target"]["positions"]["positions"] == [{"symbol": "ALFA", "quantity": 300}]
    assert blackstart(little, "diff", "a.json", "b.json").returncode == 2
    down = blackstart(little, "down")
    assert down.returncode == 0, down.stderr
    assert gone(keeper)
    assert processes_in(little) == []
    assert blackstart(little, "snapshot").returncode == 2


def test_a_killed_keeper_leaves_nothing_behind(little: Path) -> None:
    """SIGKILL of what keeps the target up: the guardian ends the target."""
    assert blackstart(little, "up", "-t", "little.toml").returncode == 0
    os.kill(up_json(little)["pid"], signal.SIGKILL)
    assert all(gone(pid) for pid in processes_in(little))
    assert "nothing is up" in blackstart(little, "down").stdout


def test_a_target_that_does_not_come_up_is_explained(little: Path) -> None:
    """`up` says which process ended and shows the end of its log; nothing is left."""
    (little / "server.py").write_text("raise SystemExit('no such luck')", encoding="utf-8")
    done = blackstart(little, "up", "-t", "little.toml")
    assert done.returncode == 2
    assert "no such luck" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_in(little) == []


def test_doctor_tries_the_machine(little: Path) -> None:
    """Doctor measures a death notice and speaks about every fault of the target, as JSON, too."""
    done = blackstart(little, "doctor", "-t", "little.toml", "--json")
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert "ms (median" in found["notice a death"]["how"]
    assert found["fault kill"]["state"] == "works"
    assert "oracle" in found["fault disconnect"]["hint"]


def test_validate_says_what_fits_and_why_not(little: Path) -> None:
    """Scenarios that fit are listed with their trials, the others with the reason."""
    done = blackstart(little, "validate", "-t", "little.toml", "--json")
    fits = {one["id"]: one for one in json.loads(done.stdout)["scenarios"]}
    assert done.returncode == 0
    assert fits["R25"]["trials"] == ["R25:main"]
    assert "no oracle" in fits["R7"]["why_not"]


def test_audit_finds_what_is_wrong_and_exits_by_it(tmp_path: Path) -> None:
    """A lost event is named and status 1, equal ledgers are 0, damage names file and line and is 2."""
    rows = [{"key": f"k{n}", "seq": n} for n in range(10)]
    full = "".join(json.dumps(row) + "\n" for row in rows)
    less = "".join(json.dumps(row) + "\n" for row in rows if row["key"] != "k7")
    for name, text in (("a.jsonl", full), ("b.jsonl", less), ("torn.jsonl", full[:-9])):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert blackstart(tmp_path, "audit", "a.jsonl", "a.jsonl").returncode == 0
    lost = blackstart(tmp_path, "audit", "a.jsonl", "b.jsonl", "--json")
    assert lost.returncode == 1
    assert json.loads(lost.stdout)["lists"]["lost"] == ["k7"]
    torn = blackstart(tmp_path, "audit", "torn.jsonl", "a.jsonl")
    assert torn.returncode == 2
    assert "torn.jsonl" in torn.stderr
    assert "10" in torn.stderr


def test_a_run_reports_everywhere_and_can_be_rechecked(little: Path) -> None:
    """One trial of a little target: JSON on stdout, three reports, and the same verdict when rechecked."""
    done = blackstart(little, "run", "R25", "-t", "little.toml", "--json")
    result = json.loads(done.stdout)
    folder = Path(result["folder"])
    assert {"results.json", "junit.xml", "report.html"} <= {path.name for path in folder.iterdir()}
    assert [trial["id"] for trial in result["trials"]] == ["R25:main"]
    assert done.returncode == {"PASS": 0, "FAIL": 1, "UNKNOWN": 2}[result["trials"][0]["verdict"]]
    assert "R25:main" in done.stderr
    again = json.loads(blackstart(little, "recheck", str(folder), "--json").stdout)
    assert again["trials"][0]["verdict"] == result["trials"][0]["verdict"]
    assert again["trials"][0]["rto"] == result["trials"][0]["rto"]
    assert processes_in(little) == []


def test_production_is_refused(little: Path) -> None:
    """Without an approval nothing in production is broken: status 3, before anything starts."""
    text = (little / "little.toml").read_text(encoding="utf-8")
    (little / "little.toml").write_text(text.replace('"test"', '"production"', 1), encoding="utf-8")
    for command in (("run", "R25"), ("up",)):
        done = blackstart(little, *command, "-t", "little.toml")
        assert done.returncode == 3, done.stderr
        assert "by two people" in done.stderr
    assert processes_in(little) == []


def test_halt_without_anything_broken_says_so(tmp_path: Path) -> None:
    """The kill switch may be pulled at any time."""
    done = blackstart(tmp_path, "halt")
    assert done.returncode == 0
    assert "nothing is broken" in done.stdout
