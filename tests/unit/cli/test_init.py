from __future__ import annotations

import io
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackstart.cli.init import QUESTIONS, init, quote, render
from blackstart.cli.validate import fit, warnings
from blackstart.errors import ManifestError
from blackstart.scenario import load as scenarios
from blackstart.target import manifest as manifests
from blackstart.target.problems import never_passes

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = {key: default for key, (_, default) in QUESTIONS.items()}
GLUE = """\
async def connect(settings): ...
async def write(connection, record): ...
async def read(settings): ...
"""
NOTHING: dict[str, str | None] = dict.fromkeys(QUESTIONS)


def test_what_it_writes_is_accepted_and_carries_scenarios(tmp_path: Path) -> None:
    """The manifest of a newcomer who answers nothing is valid, and the standard kill fits it at once."""
    file = tmp_path / "mine.toml"
    assert init(file, NOTHING, ask=False) == 0
    manifest = manifests.load(file)
    fits = {one.id: fit(manifest, one).why_not for one in scenarios.packaged()}
    assert fits["R25"] is None
    assert fits["R2"] is None
    assert fits["R7"] is not None


@pytest.mark.parametrize("health", ["https://example.test/ready", "127.0.0.1:9000"])
def test_an_address_becomes_the_right_kind_of_probe(tmp_path: Path, health: str) -> None:
    """An URL is asked, HOST:PORT is connected to."""
    document = tomllib.loads(render(tmp_path / "x.toml", {**DEFAULTS, "health": health}))
    kind = "url" if "//" in health else "tcp"
    assert document["probes"]["health"][kind] == health
    assert document["processes"]["main"]["ready"] == {kind: health}


@pytest.mark.parametrize(
    ("answers", "where"),
    [
        ({"health": "nonsense"}, "health"),
        ({"command": "'"}, "command"),
        ({"command": ""}, "command"),
        ({"environment": "moon"}, "environment"),
        ({"environment": "stagin"}, "did you mean `staging`"),
        ({"environment": "prod"}, "`prod` is none (known: dev, sim, staging, test)"),
        ({"name": "a b"}, "name"),
    ],
)
def test_an_impossible_answer_is_refused_and_leaves_no_file(
    tmp_path: Path, answers: dict[str, str], where: str
) -> None:
    """Nobody gets a manifest that does not work; the error names the answer."""
    file = tmp_path / "x.toml"
    with pytest.raises(ManifestError) as caught:
        init(file, {**NOTHING, **answers}, ask=False)
    assert where in caught.value.render()
    assert not file.exists()


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """A manifest that somebody wrote stays as it is."""
    file = tmp_path / "mine.toml"
    file.write_text("precious", encoding="utf-8")
    with pytest.raises(ManifestError):
        init(file, NOTHING, ask=False)
    assert file.read_text(encoding="utf-8") == "precious"


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=50))
@settings(deadline=None)
def test_any_answer_becomes_a_toml_string(text: str) -> None:
    """Quotes, backslashes and control characters in answers come back unchanged."""
    assert tomllib.loads(f"x = {quote(text)}")["x"] == text


def test_filled_in_it_can_pass_and_before_it_is_not_silently_green(tmp_path: Path) -> None:
    """No validator is ruled out unasked; with the marked lines filled in a PASS is possible."""
    file = tmp_path / "mine.toml"
    init(file, NOTHING, ask=False)
    fresh = manifests.load(file)
    assert fresh.not_applicable == {}
    assert any("positions" in reason for reason in never_passes(fresh))
    assert any("probes" in reason for reason in never_passes(fresh))
    (tmp_path / "mysystem_glue.py").write_text(GLUE, encoding="utf-8")
    _switch_on(file)
    filled = manifests.load(file)
    assert never_passes(filled) == []
    assert filled.workload is not None


def test_filled_in_an_answered_write_ends_the_outage(tmp_path: Path) -> None:
    """The probe's line cannot be forgotten beside the workload's, and nothing is left to warn of."""
    file = tmp_path / "mine.toml"
    init(file, NOTHING, ask=False)
    (tmp_path / "mysystem_glue.py").write_text(GLUE, encoding="utf-8")
    kept = file.read_text(encoding="utf-8").replace("#: ", "")
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(kept)
    _switch_on(file)
    filled = manifests.load(file)
    assert {name: one.source for name, one in filled.services.items()} == {"orders": "workload"}
    assert (filled.streams["writes"].content, filled.streams["writes"].ordered) == (("value",), "#")
    assert warnings(filled) == []


def test_the_program_beside_the_manifest_is_found_in_every_run_folder(tmp_path: Path) -> None:
    """A command typed in its folder names its file by the manifest's; what it writes stays as it is."""
    for name in ("kv.py", "kv.log"):
        (tmp_path / name).touch()
    answers = {
        **NOTHING,
        "name": "my-kv",
        "command": "python3 ./kv.py 7654 kv.log",
        "health": "127.0.0.1:7654",
    }
    file = tmp_path / "mine.toml"
    init(file, answers, ask=False)
    manifest = manifests.load(file)
    assert manifest.processes["main"].command == ("python3", "{here}/kv.py", "7654", "kv.log")
    assert manifest.ready == "health"
    filled = tomllib.loads(
        file.read_text(encoding="utf-8").replace('source = "probe', "#").replace("#: ", "")
    )
    assert filled["glue"] == "my_kv_glue.py"
    assert filled["workload"]["settings"] == {"port": "7654"}


@pytest.mark.parametrize(
    ("health", "port"), [("http://a:81/x:9", "81"), ("https://a/", "443"), ("http://a", "80")]
)
def test_the_glue_is_given_the_port_of_the_health_check(tmp_path: Path, health: str, port: str) -> None:
    """Written out, or that of the scheme; and it is said how a free one takes its place."""
    text = render(tmp_path / "x.toml", {**DEFAULTS, "health": health})
    assert f'#: settings = {{ port = "{port}" }}' in text
    assert f"write {{port.api}} for {port} below" in text


def _switch_on(file: Path) -> None:
    """Fill the template in as its comments say."""
    lines = file.read_text(encoding="utf-8").replace("#: ", "").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith('source = "probe:'))
    file.write_text(text, encoding="utf-8")


def test_piped_answers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal each line is an answer, an empty or missing one the default."""
    monkeypatch.setattr("sys.stdin", io.StringIO("piped\n\n./serve --now\n"))
    file = tmp_path / "mine.toml"
    assert init(file, NOTHING, ask=True) == 0
    manifest = manifests.load(file)
    assert (manifest.name, manifest.environment) == ("piped", "test")
    assert manifest.processes["main"].command == ("./serve", "--now")


def test_a_wrong_piped_answer_is_refused_before_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is checked at once."""
    answers = io.StringIO("piped\nmoon\n./serve\n")
    monkeypatch.setattr("sys.stdin", answers)
    with pytest.raises(ManifestError, match="environment"):
        init(tmp_path / "mine.toml", NOTHING, ask=True)
    assert answers.read() == "./serve\n"
