"""Seats for trials side by side."""

from __future__ import annotations

import asyncio

import pytest

from blackstart.engine.seats import Seats


def test_so_many_at_once_and_one_alone_with_nobody() -> None:
    """Two seats are never overbooked, and who must be alone meets nobody; all come to their turn in order."""

    async def main() -> tuple[list[str], list[set[str]]]:
        seats, present, order, met = Seats(2), set[str](), list[str](), list[set[str]]()

        async def one(name: str, *, alone: bool) -> None:
            async with seats.taken(alone=alone):
                present.add(name)
                order.append(name)
                for _ in range(5):
                    met.append(set(present))
                    await asyncio.sleep(0)
                present.remove(name)

        await asyncio.gather(*(one(name, alone=name == "C") for name in "ABCDE"))
        return order, met

    order, met = asyncio.run(main())
    assert order == list("ABCDE")
    assert max(len(one) for one in met) == 2
    assert all(one == {"C"} for one in met if "C" in one)


def test_a_seat_is_free_again_after_an_error() -> None:
    """A trial that breaks does not keep its seat."""

    async def main() -> None:
        seats = Seats(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with asyncio.timeout(5), seats.taken(alone=True):
                    _ = 1 // 0

    asyncio.run(main())


def test_who_leaves_early_gives_up_one_seat_once() -> None:
    """The next one comes in while the first still has something to do, and no seat is made of nothing."""

    async def main() -> None:
        seats, second, third = Seats(1), asyncio.Event(), asyncio.Event()

        async def follow(come: asyncio.Event) -> None:
            async with seats.taken(alone=False):
                come.set()
                await asyncio.sleep(0.01)

        async with seats.taken(alone=False) as leave, asyncio.timeout(5):
            followers = [asyncio.create_task(follow(come)) for come in (second, third)]
            await asyncio.sleep(0)
            assert not second.is_set()
            await leave()
            await leave()
            await second.wait()
            assert not third.is_set()
        await asyncio.gather(*followers)
        assert third.is_set()

    asyncio.run(main())
