import asyncio
from pathlib import Path

import duckdb
import pytest

from paperexchange import facts as f
from paperexchange.errors import ExchangeError
from paperexchange.ledger.export import export
from paperexchange.ledger.lines import Reader, encode_line, verify
from paperexchange.ledger.writer import Ledger
from paperexchange.recovery import recover


def note(text: str) -> f.ControlDone:
    """Make an entry."""
    return f.ControlDone(mono_ns=1, wall_ns=2, action="note", detail=text)


def write(path: Path, count: int) -> list[int]:
    """Write a ledger of `count` entries; where each line begins, and where the file ends."""
    offsets, data = [0], b""
    for seq in range(1, count + 1):
        fact = note(f"entry {seq}")
        fact.seq = seq
        data += encode_line(f.encoder.encode(fact))
        offsets.append(len(data))
    path.write_bytes(data)
    return offsets


def test_cut_at_each_byte_names_the_place(tmp_path: Path) -> None:
    """However a ledger is cut off, the damage is at the first byte of the entry that was cut."""
    path = tmp_path / "ledger.jsonl"
    offsets = write(path, 3)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        result = verify(path)
        sound = sum(1 for offset in offsets[1:] if offset <= size)
        assert result.entries == result.last_seq == sound
        if size in offsets:
            assert result.damage is None
        else:
            assert result.damage is not None
            assert (result.damage.offset, result.damage.line) == (offsets[sound], sound + 1)
            assert result.damage.torn


def test_any_changed_byte_is_found_and_placed(tmp_path: Path) -> None:
    """Flipping one bit of any byte damages the line in which it lies, or joins it with the next one."""
    path = tmp_path / "ledger.jsonl"
    offsets = write(path, 3)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        damage = verify(path).damage
        assert damage is not None
        assert damage.offset == max(offset for offset in offsets if offset <= place)


def test_a_missing_line_is_found(tmp_path: Path) -> None:
    """Numbers without gaps: a line that was taken out whole is named by the entry that should be there."""
    path = tmp_path / "ledger.jsonl"
    offsets = write(path, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: offsets[1]] + whole[offsets[2] :])
    damage = verify(path).damage
    assert damage is not None
    assert "entry 3 where entry 2 belongs" in str(damage)


def test_recovery_cuts_a_torn_end_and_refuses_other_damage(tmp_path: Path) -> None:
    """A crash leaves a torn last line, which is cut off; damage with sound lines behind it is refused."""
    path = tmp_path / "ledger.jsonl"
    offsets = write(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert recover(path).state.seq == 2
    assert path.stat().st_size == offsets[2]
    path.write_bytes(whole[: offsets[1]] + b"0" + whole[offsets[1] + 1 :])
    with pytest.raises(ExchangeError, match=f"byte {offsets[1]}"):
        recover(path)


def test_recovery_drops_half_a_trade(tmp_path: Path) -> None:
    """A trade of which only one side reached the disk never happened."""
    common = {"mono_ns": 1, "wall_ns": 1, "symbol": "ALFA", "side": "buy", "quantity": 5, "price": 100}
    stamp = {"conn": 1, "received_mono_ns": 1, "received_stamp": "user", "type": "limit", "tif": "day"}
    order = f.OrderAccepted(account="FIRM", order_id="O1", exec_id="X1", cl_ord_id="C", **common, **stamp)
    fill = f.Fill(
        account="FIRM",
        exec_id="X2",
        exec_seq=1,
        order_id="O1",
        cl_ord_id="C",
        cum_quantity=5,
        leaves_quantity=0,
        notional=500,
        match_id=1,
        **common,
    )
    path = tmp_path / "ledger.jsonl"
    for seq, fact in enumerate((order, fill), 1):
        fact.seq = seq
        with path.open("ab") as file:
            file.write(encode_line(f.encoder.encode(fact)))
    recovered = recover(path)
    assert recovered.state.seq == 1
    assert recovered.state.orders["O1"].leaves_quantity == 5
    assert recovered.cut_bytes > 0
    assert verify(path).last_seq == 1


def test_effects_wait_for_the_disk_and_keep_their_order(tmp_path: Path) -> None:
    """An effect runs only when every entry recorded before it can be read from the file."""
    path = tmp_path / "ledger.jsonl"
    seen: list[tuple[int, int]] = []

    async def run() -> None:
        ledger = Ledger(path)
        for number in range(1, 51):
            ledger.append(note(str(number)))
            ledger.after(lambda number=number: seen.append((number, verify(path).last_seq)))
            if number % 7 == 0:
                await asyncio.sleep(0)
        await ledger.barrier()
        assert ledger.durable_seq == 50
        await ledger.close()

    asyncio.run(run())
    assert [number for number, _ in seen] == list(range(1, 51))
    assert all(on_disk >= number for number, on_disk in seen)


def test_index_finds_the_line_of_an_entry(tmp_path: Path) -> None:
    """Reading from an indexed offset begins shortly before the wanted entry."""
    path = tmp_path / "ledger.jsonl"

    async def run() -> tuple[int, int]:
        ledger = Ledger(path)
        for number in range(2000):
            ledger.append(note(str(number)))
        place = ledger.offset_before(1500)
        await ledger.close()
        return place

    seq, offset = asyncio.run(run())
    first = next(iter(Reader(path, offset=offset, after_seq=None)))
    assert first.seq == seq
    assert 1500 - 256 < seq <= 1500


def test_full_disk_is_told_and_nothing_leaves() -> None:
    """When the disk refuses, the owner is told and no effect runs."""
    failures: list[OSError] = []
    effects: list[int] = []

    async def run() -> None:
        told = asyncio.Event()

        def failed(error: OSError) -> None:
            failures.append(error)
            told.set()

        ledger = Ledger(Path("/dev/full"), on_failure=failed)
        ledger.append(note("x"))
        ledger.after(lambda: effects.append(1))
        await asyncio.wait_for(told.wait(), 10)

    asyncio.run(run())
    assert failures[0].strerror == "No space left on device"
    assert effects == []


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_export_writes_the_chosen_stream(tmp_path: Path, suffix: str) -> None:
    """Exported entries are those of the stream, in both formats."""
    path = tmp_path / "ledger.jsonl"
    write(path, 5)
    out = tmp_path / f"out.{suffix}"
    assert export(path, out, stream="control") == 5
    source = duckdb.read_parquet(str(out)) if suffix == "parquet" else duckdb.read_json(str(out))
    assert [row[0] for row in source.project("detail").fetchall()] == [f"entry {n}" for n in range(1, 6)]
    with pytest.raises(ExchangeError, match="unknown stream"):
        export(path, out, stream="nonsense")
