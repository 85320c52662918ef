from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackstart.cli.init import QUESTIONS, init, quote, render
from blackstart.cli.validate import fit
from blackstart.errors import ManifestError
from blackstart.scenario import load as scenarios
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = {key: default for key, (_, default) in QUESTIONS.items()}
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
