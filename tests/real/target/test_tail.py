from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from target_kit import until

from blackstart.target import tail
from blackstart.target.tail import follow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def following(folder: Path, act: Callable[[list[str]], object], *, from_start: bool = False) -> list[str]:
    """Follow `folder/*.log` while `act` writes; return the lines that came."""

    async def run() -> list[str]:
        got: list[str] = []

        async def collect() -> None:
            async for batch in follow(str(folder / "*.log"), from_start=from_start):
                got.extend(line.decode() for _, line in batch)

        task = asyncio.create_task(collect())
        await asyncio.sleep(0)
        await asyncio.to_thread(act, got)
        await until(lambda: got and got[-1] == "end")
        task.cancel()
        return got

    return asyncio.run(run())


def add(path: Path, text: str) -> None:
    """Append to a file."""
    with path.open("a") as stream:
        stream.write(text)


def wait(condition: Callable[[], bool]) -> None:
    """Wait in the writer's thread."""
    asyncio.run(until(condition))


def test_only_what_is_new_comes_and_only_whole_lines(tmp_path: Path) -> None:
    """What stood there before is passed over; a line comes when its end is written."""
    log = tmp_path / "a.log"
    add(log, "old\n")

    def act(got: list[str]) -> None:
        add(log, "new")
        add(log, "er\nsecond\nend\n")

    assert following(tmp_path, act) == ["newer", "second", "end"]


def test_from_the_start_also_what_was_there(tmp_path: Path) -> None:
    """A ledger is read whole."""
    add(tmp_path / "a.log", "old\n")
    assert following(tmp_path, lambda _: add(tmp_path / "a.log", "end\n"), from_start=True) == ["old", "end"]


def test_new_files_are_followed_from_their_start(tmp_path: Path) -> None:
    """A component that starts later writes a file of its own; other files do not count."""

    def act(got: list[str]) -> None:
        add(tmp_path / "b.log", "first\n")
        add(tmp_path / "b.txt", "not this\n")
        wait(lambda: "first" in got)
        add(tmp_path / "b.log", "end\n")

    assert following(tmp_path, act) == ["first", "end"]


def test_a_folder_that_appears_later_is_found(tmp_path: Path) -> None:
    """The target may make its log folder only when it runs."""
    folder = tmp_path / "later"

    def act(got: list[str]) -> None:
        folder.mkdir()
        add(folder / "a.log", "end\n")

    assert following(folder, act) == ["end"]


@pytest.mark.parametrize("kernel", [True, False])
def test_rotation_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    """Renamed away and begun anew, again and again, with and without inotify: every line once, in order."""
    if not kernel:
        monkeypatch.setattr(tail.Notices, "_watch", lambda _: None)
    log, rng = tmp_path / "a.log", random.Random(5)
    log.touch()
    wanted = [str(number) for number in range(400)]

    def act(got: list[str]) -> None:
        for number in wanted:
            add(log, f"{number}\n")
            if rng.random() < 0.05:
                wait(
                    lambda number=number: number in got
                )  # rotating twice unseen would hide a file from anybody
                log.rename(tmp_path / "a.old")
                log.touch()
        add(log, "end\n")

    assert following(tmp_path, act, from_start=True) == [*wanted, "end"]


def test_truncation_in_place_is_noticed(tmp_path: Path) -> None:
    """A log that is emptied is read from its start again."""
    log = tmp_path / "a.log"

    def act(got: list[str]) -> None:
        add(log, "a long line before\n")
        wait(lambda: len(got) == 1)
        log.write_text("")
        add(log, "x\nend\n")

    assert following(tmp_path, act, from_start=True)[-2:] == ["x", "end"]


def test_cancelling_always_ends_it(tmp_path: Path) -> None:
    """However busy the file: a cancelled follower stops (a lost cancellation once hung whole trials)."""
    log = tmp_path / "a.log"

    async def run() -> None:
        async def collect() -> None:
            async for _ in follow(str(log)):
                pass

        for turn in range(60):
            task = asyncio.create_task(collect())
            for _ in range(turn % 6 + 1):
                add(log, "x\n")
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled()

    asyncio.run(run())
