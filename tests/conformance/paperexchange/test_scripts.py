"""FIX.md, line by line, over TCP against the real exchange: the session scripts of fixsession and our own."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixsession.errors import FixError
from fixsession.testing.player import ScriptFailure
from fixsession.testing.script import Script, parse_script
from paperexchange.scripting import WORDS, Stage, configuration, needs_its_own, read

HERE = Path(__file__).parent
SCRIPTS = [
    read(path)
    for room in (HERE.parent / "fixsession", HERE)
    for path in sorted((room / "scripts").glob("*.fixscript"))
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One exchange with an empty book for all scripts that need none of their own."""
    with ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("exchange"), stack)


@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if not needs_its_own(s)], ids=lambda script: script.name
)
def test_exchange_passes_script(stage: Stage, script: Script) -> None:
    """The exchange as it comes answers as the line of FIX.md says."""
    stage.play(script)


@pytest.mark.parametrize("script", [s for s in SCRIPTS if needs_its_own(s)], ids=lambda script: script.name)
def test_exchange_of_its_own_passes_script(tmp_path: Path, script: Script) -> None:
    """With the settings that the script needs, killed and started again by it, the line holds too."""
    with ExitStack() as stack:
        Stage(tmp_path, stack, script.needs).play(script)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("control POST /control/phase {}", "status 400"),
        ("expect 8 37=$order", "nothing was remembered as [?]order"),
    ],
)
def test_added_words_notice_a_difference(stage: Stage, text: str, said: str) -> None:
    """An exchange that does something else than the added words say is never passed."""
    script = parse_script("t", f"connect\nsend A 98=0 108=30 141=Y\nexpect A\nsend order\n{text}", WORDS)
    with pytest.raises(ScriptFailure, match=said):
        stage.play(script)


def test_added_words_need_what_they_work_on() -> None:
    """A line without its argument is refused before anything is played."""
    with pytest.raises(FixError, match="t:1: "):
        parse_script("t", "control", WORDS)


def test_needs_become_a_configuration() -> None:
    """Settings of the exchange, of the account and of its sessions land in their tables, with their types."""
    needs = {
        "exchange.echo": "true",
        "exchange.ports.fix": "0",
        "account.drop_copy": "fills",
        "max_resend": "3",
    }
    tables = ["echo = true", "[ports]", "fix = 0", "[accounts.FIRM]", 'drop_copy = "fills"']
    assert configuration(needs).splitlines() == [*tables, "[accounts.FIRM.session]", "max_resend = 3"]
