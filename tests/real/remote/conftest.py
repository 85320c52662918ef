from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `other_host` is shared by this room's files only

import other_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from other_host import OtherHost


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherHost]:
    """Another host, for all tests of a file."""
    if (reason := other_host.why_not()) is not None:
        pytest.skip(reason)
    host = other_host.OtherHost(tmp_path_factory.mktemp("there") / "host")
    yield host
    host.close()
