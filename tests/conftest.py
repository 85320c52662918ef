"""What all tests share: none of them may find, or be found by, the runs of whoever runs them."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

TARGETS = Path(__file__).parents[1] / "targets"

for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)  # ignored under nohup, which whatever a test starts would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def own_state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the index of open runs apart: `halt` in a test must not end somebody's run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def firm_but(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Write the reference firm's manifest with one text in place of another, beside its glue."""

    def write(old: str, new: str) -> Path:
        folder = tmp_path_factory.mktemp("firm")
        text = (TARGETS / "paperfirm.toml").read_text()
        assert old in text
        (folder / "paperfirm.toml").write_text(text.replace(old, new))
        (folder / "paperfirm_glue.py").write_text((TARGETS / "paperfirm_glue.py").read_text())
        return folder / "paperfirm.toml"

    return write


class Midst:
    """Holds a thread in the midst of its work until whoever waits for it has been cancelled."""

    def __init__(self) -> None:
        self._begun, self._go_on = threading.Event(), threading.Event()

    def stay(self) -> None:
        """Stay here, called by the thread, until `cancel` lets it go on."""
        self._begun.set()
        assert self._go_on.wait(10)

    async def cancel(self, waiting: Coroutine[None, None, object]) -> None:
        """Cancel it while its thread stays, and see that it is over only after that went on."""
        task = asyncio.ensure_future(waiting)
        assert await asyncio.to_thread(self._begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        self._go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def midst() -> Midst:
    """Return what holds a thread in the midst of its work."""
    return Midst()
