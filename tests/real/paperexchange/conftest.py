from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from paperexchange.testing import Running, running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts exchanges (in `tmp_path/x` unless told otherwise); all are gone after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, directory="x": stack.enter_context(running(tmp_path / directory, *arguments))


@pytest.fixture
def exchange(start: Callable[..., Running]) -> Running:
    """An exchange without other participants."""
    return start("--participants", "0")
