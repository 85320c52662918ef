from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from paperexchange.testing import Running, running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start exchanges (in `tmp_path/x` unless told otherwise); all are gone after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, directory="x": stack.enter_context(running(tmp_path / directory, *arguments))


@pytest.fixture
def exchange(start: Callable[..., Running]) -> Running:
    """Start an exchange without other participants."""
    return start("--participants", "0")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start an exchange for tests that change nothing."""
    with running(tmp_path_factory.mktemp("shared"), "--participants", "0") as made:
        yield made
