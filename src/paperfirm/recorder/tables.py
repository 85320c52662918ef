"""The tables of the firm's database, and how a batch of rows gets into them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from paperfirm.wire import SUBJECT_EXECUTIONS, SUBJECT_ORDERS, ExecutionRow, OrderRow

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = """
create table if not exists executions (
    exec_id text primary key, cl_ord_id text not null, symbol text not null, side text not null,
    quantity bigint not null, price bigint not null, booked_wall timestamptz not null, late boolean not null,
    epoch bigint, seq bigint
);
create table if not exists orders (
    cl_ord_id text primary key, client_order_id text not null, order_id text not null, origin text not null,
    symbol text not null, side text not null, type text not null, tif text not null, price bigint,
    quantity bigint not null, cum_quantity bigint not null, status text not null, reason text not null,
    finished_wall timestamptz not null
);
alter table executions add column if not exists epoch bigint, add column if not exists seq bigint;
"""
# Two recorders that start at the same time must not create the same table twice.
SCHEMA_LOCK = "select pg_advisory_xact_lock(20260000)"

# One statement a batch: an array a column costs far less than a statement a row.
INSERT_EXECUTIONS = """
insert into executions
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
                     $7::timestamptz[], $8::boolean[], $9::bigint[], $10::bigint[])
on conflict do nothing
"""
INSERT_ORDERS = """
insert into orders
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::text[],
                     $14::timestamptz[])
on conflict do nothing
"""

COUNT = """
select (select count(*) from executions) as executions, (select count(*) from orders) as orders,
       exists (select from executions where exec_id = $1) as has
"""

_execution = msgspec.msgpack.Decoder(ExecutionRow).decode
_order = msgspec.msgpack.Decoder(OrderRow).decode


def lookup(subject: str, payload: bytes) -> tuple[str, str]:
    """Return the query that says whether a message is stored, and its argument."""
    if subject == SUBJECT_ORDERS:
        return "select exists (select from orders where cl_ord_id = $1)", _order(payload).cl_ord_id
    return "select exists (select from executions where exec_id = $1)", _execution(payload).exec_id


class Batch(msgspec.Struct, frozen=True):
    """Rows of one transaction, as tuples in the tables' column order, and how many messages were refused."""

    executions: list[tuple[Any, ...]]
    orders: list[tuple[Any, ...]]
    refused: list[str]


def decode(messages: Sequence[tuple[str, bytes]]) -> Batch:
    """Turn (subject, payload) pairs into rows; what cannot be decoded is named in `refused`."""
    batch = Batch([], [], [])
    for subject, payload in messages:
        try:
            if subject == SUBJECT_EXECUTIONS:
                batch.executions.append(execution_values(_execution(payload)))
            elif subject == SUBJECT_ORDERS:
                batch.orders.append(order_values(_order(payload)))
            else:
                batch.refused.append(f"unknown subject {subject}")
        except (msgspec.DecodeError, OverflowError, ValueError) as error:
            batch.refused.append(f"{subject}: {error}")
    return batch


def execution_values(row: ExecutionRow) -> tuple[Any, ...]:
    """Return the columns of `executions`."""
    booked = instant(row.booked_wall_ns)
    what = (row.exec_id, row.cl_ord_id, row.symbol, row.side, row.quantity, row.price)
    return (*what, booked, row.late, row.epoch, row.seq)


def order_values(row: OrderRow) -> tuple[Any, ...]:
    """Return the columns of `orders`."""
    return (
        row.cl_ord_id,
        row.client_order_id,
        row.order_id,
        row.origin,
        row.symbol,
        row.side,
        row.type,
        row.tif,
        row.price,
        row.quantity,
        row.cum_quantity,
        row.status,
        row.reason,
        instant(row.finished_wall_ns),
    )


def instant(wall_ns: int) -> datetime:
    """Return Unix nanoseconds as a time in PostgreSQL's microseconds, without floating point."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Turn rows into one list a column."""
    return [list(column) for column in zip(*rows, strict=True)]
