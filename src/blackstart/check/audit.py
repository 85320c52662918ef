"""Ledger audit: what became of every acknowledged event, exactly, in bounded memory (R49, R70).

Meaning of every list: docs/reference/ledger-format.md. Besides: a key that stands more than once in
the ledger (a client that tried again) counts once, with its strongest outcome (`ok` before `info`
before `fail`) and of those its lowest `seq`; it may be held with any content that an attempt at it stated,
unless that was refused. Acknowledged with several contents it has no place of its own, and nobody can tell
which of them must be held. Where a key is held more than once, its copy with the lowest `seq` is the one
whose order counts. Content is compared by a 64-bit hash.

How: one full outer hash join of both sides leaves a narrow table (two integers and a byte of flags an
event; the key only where something is remarkable). Every list is a filter on it. That no key repeats
is seen for nothing, from the numbers of rows; only where they disagree are the repeated keys sought.
Order is a running minimum over that table.
"""

# ruff: noqa: S608 - every name and number in these queries is our own; file names are quoted by `quote`
from __future__ import annotations

import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec

from blackstart.check.ledgers import (
    FORM,
    INTEGERS,
    OUTCOMES,
    DamagedLedgerError,
    Ledger,
    attach,
    damage_located,
    quote,
)
from blackstart.errors import BlackstartError
from blackstart.model.outcome import LOSS_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb import DuckDBPyConnection

# Bits of the flags: which sides have it (0 both, 1 ledger only, 2 held only), outcome, content, late,
# content stated by one side only.
LEDGER_ONLY, HELD_ONLY = 1, 2
INFO, FAILED, UNDEFINED = 4, 8, 12
DIFFERS, COMPARED, LATE, HALF = 16, 32, 64, 128

SHARE, COLD_SHARE = 0.5, 0.9
BOTH = "(f & 3) = 0"
KNOWN = f"(f & 12) <= {INFO}"
LISTS = {
    "lost": f"(f & 15) = {LEDGER_ONLY}",
    "phantom": f"(f & 3) = {HELD_ONLY} OR ({BOTH} AND (f & 12) = {FAILED})",
    "corrupted": f"{BOTH} AND {KNOWN} AND (f & {DIFFERS}) <> 0",
    "indeterminate": f"(f & 3) <> {HELD_ONLY} AND (f & 12) = {INFO}",
    "late": f"{BOTH} AND {KNOWN} AND (f & {LATE}) <> 0",
}


class AuditCancelledError(BlackstartError):
    """The audit was called off before it had an answer."""


class AuditResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an audit.

    `acknowledged` counts `ok` events, `recovered` held rows. `counts` are exact; `lists` hold the
    first keys of each kind; `files` the whole lists as JSON lines. `lost_notional` is None when the
    ledger states no money. `not_checked` says which comparisons the files did not allow for events that
    are acknowledged and held; `one_sided` where one file stated what to compare and the other did not.
    `acknowledged_again` counts keys that stand as `ok` in the ledger more than once, `not_unique` those of
    them that do with different content. `excused` counts what is held behind something acknowledged later and
    is not `reordered` because the target calls it late.
    """

    acknowledged: int
    recovered: int
    counts: dict[str, int]
    lists: dict[str, tuple[str, ...]]
    files: dict[str, str] = {}
    earliest_lost_mono_ns: int | None = None
    lost_notional: int | None = None
    gap_events: int | None = None
    not_checked: tuple[str, ...] = ()
    one_sided: tuple[str, ...] = ()
    acknowledged_again: int = 0
    not_unique: int = 0
    excused: int = 0


def incredible(excused: int, acknowledged: int, *, cold: bool = False) -> bool:
    """Say whether the target's own word `late` keeps most events from being checked for their order.

    Nobody else can tell what was late: what lay in a damaged part of a journal may be, for one. After a cold
    restart all from before it may be, and only what came in afterwards shows an order.
    """
    return excused > (COLD_SHARE if cold else SHARE) * acknowledged


def audit(
    acknowledged: Path,
    recovered: Path,
    *,
    out: Path | None = None,
    listed: int = 100,
    t0_mono_ns: int | None = None,
    memory_limit: str = "1GB",
    threads: int | None = None,
    cancelled: threading.Event | None = None,
) -> AuditResult:
    """Compare two ledger files.

    `out` is a folder for the whole lists, `listed` how many keys of each the result names.
    `t0_mono_ns` (the failure) is needed for `gap_events`. What does not fit into `memory_limit` is
    spilled to a folder that is removed afterwards. Setting `cancelled` from another thread ends the
    audit with AuditCancelledError. Raises LedgerError naming file and place of damage.
    """
    if out:
        out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="blackstart-audit-", dir=out) as spill:
        settings: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": spill}
        if threads:
            settings["threads"] = threads
        with _connected(settings) as con, _cancellable(con, cancelled):
            # No network, ever; row order is not needed and costs memory.
            con.execute("SET autoinstall_known_extensions = false; SET preserve_insertion_order = false")
            return _Audit(con, acknowledged, recovered).result(out, listed, t0_mono_ns)


def _connected(settings: dict[str, Any]) -> DuckDBPyConnection:
    """Open a connection; what DuckDB does not take as a setting is the caller's to mend."""
    try:
        return duckdb.connect(config=settings)
    except duckdb.Error as error:
        what = f"`{settings['memory_limit']}` is no amount of memory: {str(error).splitlines()[0]}"
        raise BlackstartError(what, where="memory limit", hint="a number and a unit: 500MB, 2GB") from error


@contextmanager
def _cancellable(con: DuckDBPyConnection, cancelled: threading.Event | None) -> Iterator[None]:
    """Interrupt the running query as soon as `cancelled` is set."""
    done = threading.Event()

    def wait(event: threading.Event) -> None:
        while not done.is_set():
            if event.wait(0.05):
                con.interrupt()
                done.wait(0.05)

    watcher = threading.Thread(target=wait, args=(cancelled,), daemon=True) if cancelled else None
    if watcher:
        watcher.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise AuditCancelledError("the audit was cancelled") from error
    finally:
        done.set()
        if watcher:
            watcher.join()


class _Audit:
    """The queries of one audit on one connection."""

    def __init__(self, con: DuckDBPyConnection, acknowledged: Path, recovered: Path) -> None:
        self._con = con
        self._ledger = attach(con, acknowledged, "ledger_file")
        self._held = attach(con, recovered, "held_file")
        self._views()

    def result(self, out: Path | None, listed: int, t0_mono_ns: int | None) -> AuditResult:
        """Run everything."""
        self._first_join()
        self._refuse_bad_rows()
        again = unclear = 0
        if repeats := self._ledger_repeats():
            again = self._acknowledged_again()
            self._stated()
            self._merge_ledger()
            self._join()
        self._lists()
        if repeats:
            unclear = self._spared()
        counts = {kind: self._number(f"SELECT count(*) FROM {kind}") for kind in LOSS_KINDS}
        lost = self._row("SELECT min(mono_ns), sum(notional), count(notional) FROM lost")
        return AuditResult(
            acknowledged=self._number("SELECT count(*) FROM ledger WHERE o = 0"),
            recovered=self._number("SELECT count(*) FROM held"),
            counts=counts,
            lists={kind: self._first(kind, listed) for kind in LOSS_KINDS},
            files=self._write(out, counts) if out else {},
            earliest_lost_mono_ns=lost[0],
            lost_notional=self._notional(counts["lost"], lost[1], lost[2]),
            gap_events=None if t0_mono_ns is None else self._gap(t0_mono_ns),
            not_checked=self._not_checked(),
            one_sided=self._one_sided(),
            acknowledged_again=again,
            not_unique=unclear,
            excused=self._number("SELECT count(DISTINCT ls) FROM suspects WHERE excused"),
        )

    def _views(self) -> None:
        """Give both files one shape: keys of one type, outcomes as numbers, content as a hash."""
        ledger, held = self._ledger, self._held
        key = "key" if {ledger.types["key"], held.types["key"]} <= INTEGERS else "key::VARCHAR"
        outcome = ledger.column("outcome", "VARCHAR")
        code = f"CASE WHEN {outcome} IS NULL OR {outcome} = 'ok' THEN 0 WHEN {outcome} = 'info' THEN 1"
        code += f" WHEN {outcome} = 'fail' THEN 2 ELSE 3 END"
        self._con.execute(f"""
            CREATE TEMP VIEW ledger AS SELECT {key} AS key, {ledger.column("seq", "BIGINT")} AS seq,
              {_digest(ledger)} AS c, {ledger.column("mono_ns", "BIGINT")} AS mono_ns,
              ({code})::UTINYINT AS o, {ledger.column("notional", "BIGINT")} AS notional FROM ledger_file;
            CREATE TEMP VIEW held AS SELECT {key} AS key, {held.column("seq", "BIGINT")} AS seq,
              {_digest(held)} AS c, coalesce({held.column("late", "BOOLEAN")}, false) AS late
              FROM held_file""")

    def _first_join(self) -> None:
        """Join; where that fails, read each file alone to say which one is damaged."""
        try:
            self._join()
        except (duckdb.InterruptException, duckdb.OutOfMemoryException):
            raise
        except duckdb.Error:
            for ledger in (self._ledger, self._held):
                with damage_located(ledger.path):
                    self._con.execute(f"SELECT count(hash({ledger.name})) FROM {ledger.name}").fetchall()
            raise

    def _join(self) -> None:
        """Put both sides together: `ls` and `rs` are the orders, `f` the flags, `k` a remarkable key."""
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE j AS
            WITH p AS (SELECT l.key AS lk, r.key AS rk, l.seq AS ls, r.seq AS rs,
                (CASE WHEN r.key IS NULL THEN {LEDGER_ONLY} WHEN l.key IS NULL THEN {HELD_ONLY} ELSE 0 END
                 + 4 * coalesce(l.o, 0)
                 + CASE WHEN l.c <> r.c THEN {DIFFERS + COMPARED} WHEN l.c = r.c THEN {COMPARED}
                     WHEN l.c IS NOT NULL OR r.c IS NOT NULL THEN {HALF} ELSE 0 END
                 + CASE WHEN r.late THEN {LATE} ELSE 0 END)::UTINYINT AS f
              FROM (SELECT key, seq, c, o FROM ledger) l FULL OUTER JOIN held r ON l.key = r.key)
            SELECT ls, rs, f,
              CASE WHEN (f & ~{COMPARED + HALF}::UTINYINT) <> 0 THEN coalesce(lk, rk) END AS k FROM p""")

    def _refuse_bad_rows(self) -> None:
        """Refuse rows without identity, and outcomes that are none."""
        nameless = self._number("SELECT count(*) FROM j WHERE (f & 3) <> 0 AND k IS NULL")
        for ledger in (self._ledger, self._held) if nameless else ():
            missing = self._number(f"SELECT count(*) FROM {ledger.name} WHERE key IS NULL")
            if missing:
                raise DamagedLedgerError(
                    f"{missing} row(s) have no key", where=str(ledger.path), hint=f"see {FORM}"
                )
        if self._number(f"SELECT count(*) FROM j WHERE (f & 12) = {UNDEFINED}"):
            column = self._ledger.column("outcome", "VARCHAR")
            row = self._row(f"SELECT key, {column} FROM ledger_file WHERE {column} NOT IN {OUTCOMES} LIMIT 1")
            what = f"outcome {row[1]!r} of key {row[0]!r} is none of {', '.join(OUTCOMES)}"
            raise DamagedLedgerError(what, where=str(self._ledger.path), hint=f"see {FORM}")

    def _ledger_repeats(self) -> bool:
        """Tell whether a key repeats in the ledger: then held rows appear more than once in the join."""
        joined = self._number(f"SELECT count(*) FROM j WHERE (f & 3) <> {LEDGER_ONLY}")
        if joined > self._number("SELECT count(*) FROM held"):
            return True
        return self._repeats(f"(f & 3) = {LEDGER_ONLY}")

    def _held_repeats(self) -> bool:
        joined = self._number(f"SELECT count(*) FROM j WHERE (f & 3) <> {HELD_ONLY}")
        return joined > self._number("SELECT count(*) FROM ledger") or self._repeats(f"(f & 3) = {HELD_ONLY}")

    def _repeats(self, where: str) -> bool:
        row = self._row(f"SELECT count(k), count(DISTINCT k) FROM j WHERE {where}")
        return bool(row[0] > row[1])

    def _acknowledged_again(self) -> int:
        again = "SELECT key FROM ledger WHERE o = 0 GROUP BY key HAVING count(*) > 1"
        return self._number(f"SELECT count(*) FROM ({again})")

    def _stated(self) -> None:
        """Keep what the attempts at a key stated, where they differ; `unclear` where acknowledged ones do."""
        self._con.execute("""
            CREATE TEMP TABLE stated AS
            WITH several AS (SELECT key, count(DISTINCT c) FILTER (WHERE o = 0) > 1 AS unclear
              FROM ledger WHERE o <= 1 GROUP BY key HAVING count(DISTINCT c) > 1)
            SELECT DISTINCT key, c, unclear FROM ledger JOIN several USING (key) WHERE o <= 1""")

    def _spared(self) -> int:
        """Strike off what is held as another attempt stated it; return how many keys are unclear."""
        self._con.execute("""
            DELETE FROM corrupted WHERE key IN (SELECT key FROM stated) AND key NOT IN
              (SELECT key FROM held ANTI JOIN stated USING (key, c) WHERE c IS NOT NULL);
            DELETE FROM reordered WHERE key IN (SELECT key FROM stated WHERE unclear)""")
        return self._number("SELECT count(DISTINCT key) FROM stated WHERE unclear")

    def _merge_ledger(self) -> None:
        """Let each key of the ledger stand once, with its strongest outcome."""
        self._con.execute("""
            CREATE TEMP TABLE merged AS
              SELECT key, min(row(o, coalesce(seq, 9223372036854775807), seq, mono_ns, c, notional)) AS m
              FROM ledger GROUP BY key;
            CREATE OR REPLACE TEMP VIEW ledger AS
              SELECT key, m[3] AS seq, m[5] AS c, m[4] AS mono_ns, m[1] AS o, m[6] AS notional FROM merged""")

    def _lists(self) -> None:
        """Make a table of keys for every kind of loss."""
        for kind, where in LISTS.items():
            name = "lost_keys" if kind == "lost" else kind
            source = f"SELECT k AS key, min(ls) AS seq FROM j WHERE {where} GROUP BY k"
            self._con.execute(f"CREATE TEMP TABLE {name} AS {source}")
        self._con.execute("""CREATE TEMP TABLE lost AS
            SELECT key, seq, mono_ns, notional FROM ledger SEMI JOIN lost_keys USING (key)""")
        self._suspects()
        self._duplicated()
        self._reordered()

    def _suspects(self) -> None:
        """Find what may repeat and what is held out of order, in one pass from the last acknowledged on.

        An event is held behind one that was acknowledged later when the lowest place of all later ones lies
        before its own. Rows of one `ls`, or of one `rs`, do not judge each other. Late ones are excused.
        """
        self._con.execute(f"""
            CREATE TEMP TABLE suspects AS
            SELECT ls, rs, again, moved AND NOT late AS behind, moved AND late AS excused FROM
              (SELECT ls, rs, ls = lag(ls) OVER latest_first AS again, (f & {LATE}) <> 0 AS late,
                 coalesce({KNOWN} AND rs > min(rs) FILTER (WHERE {KNOWN}) OVER latest_first, false) AS moved
               FROM j WHERE {BOTH} AND ls IS NOT NULL
               WINDOW latest_first AS (ORDER BY ls DESC, rs DESC ROWS UNBOUNDED PRECEDING))
              WHERE again OR moved""")

    def _duplicated(self) -> None:
        """Count the copies of what may repeat; where the ledger has no order to tell by, of everything."""
        if not self._held_repeats():
            source = "SELECT key, seq FROM held WHERE false"
        elif self._number(f"SELECT count(*) FROM j WHERE {BOTH} AND ls IS NULL"):
            source = "SELECT key, seq FROM held"
        else:
            source = f"""SELECT key, seq FROM held SEMI JOIN
                (SELECT key FROM ledger SEMI JOIN (SELECT ls FROM suspects WHERE again) s ON seq = s.ls
                 UNION ALL SELECT k FROM j WHERE (f & 3) = {HELD_ONLY}) USING (key)"""
        self._con.execute(f"""CREATE TEMP TABLE duplicated AS
            SELECT key, min(seq) AS seq FROM ({source}) GROUP BY key HAVING count(*) > 1""")

    def _reordered(self) -> None:
        """Name what is held out of order; of something held more than once its first copy counts."""
        self._con.execute("""
            CREATE TEMP TABLE behind AS SELECT DISTINCT ls, rs FROM suspects WHERE behind;
            CREATE TEMP TABLE misplaced AS SELECT l.key, l.seq, r.seq AS rs
              FROM (SELECT key, seq FROM ledger SEMI JOIN behind ON seq = behind.ls WHERE o <= 1) l
              JOIN (SELECT key, seq FROM held SEMI JOIN behind ON seq = behind.rs WHERE NOT late) r
                ON l.key = r.key
              SEMI JOIN behind ON l.seq = behind.ls AND r.seq = behind.rs;
            CREATE TEMP TABLE reordered AS SELECT DISTINCT s.key, s.seq FROM misplaced s
              LEFT JOIN duplicated d ON s.key = d.key WHERE d.key IS NULL OR s.rs = d.seq""")

    def _notional(self, lost: int, total: int | None, stated: int) -> int | None:
        if lost:
            return int(total) if total is not None and stated == lost else None
        return 0 if "notional" in self._ledger.types else None

    def _gap(self, t0_mono_ns: int) -> int | None:
        """Count acknowledged events between the last held one before the failure and the first one after."""
        held = "FROM ledger ANTI JOIN lost_keys USING (key) WHERE o = 0"
        before = f"SELECT max(seq) {held} AND mono_ns <= {t0_mono_ns}"
        last = self._row(before)[0]
        behind = "" if last is None else f"AND seq > {last}"
        first = self._row(f"SELECT min(seq) {held} AND mono_ns > {t0_mono_ns} {behind}")[0]
        if last is None and first is None:
            return None
        ahead = "" if first is None else f"AND seq < {first}"
        return self._number(f"SELECT count(*) FROM ledger WHERE o = 0 {behind} {ahead}")

    def _not_checked(self) -> tuple[str, ...]:
        """Say which comparisons could not be made for all events that are acknowledged and held."""
        row = self._row(f"""SELECT count(*), count(*) FILTER ((f & {COMPARED}) <> 0),
            count(*) FILTER (ls IS NOT NULL AND rs IS NOT NULL) FROM j WHERE {BOTH} AND (f & 12) = 0""")
        pairs = {"content": row[1], "order": row[2]}
        return tuple(
            f"{what} of {row[0] - done} of {row[0]} events" for what, done in pairs.items() if done < row[0]
        )

    def _one_sided(self) -> tuple[str, ...]:
        """Say what one file states and the other does not: a comparison somebody meant and nobody made."""
        row = self._row(f"""SELECT count(*) FILTER ((f & {HALF}) <> 0),
            count(*) FILTER ((ls IS NULL) <> (rs IS NULL)) FROM j WHERE {BOTH} AND {KNOWN}""")
        pairs = {"content": row[0], "seq": row[1]}
        return tuple(
            f"{what} of {count} events stands on one side only" for what, count in pairs.items() if count
        )

    def _write(self, out: Path, counts: dict[str, int]) -> dict[str, str]:
        files = {kind: out / f"{kind}.jsonl" for kind, count in counts.items() if count}
        for kind, path in files.items():
            self._con.execute(
                f"COPY (SELECT key, seq FROM {kind} ORDER BY seq, key) TO {quote(path)} (FORMAT json)"
            )
        return {kind: str(path) for kind, path in files.items()}

    def _first(self, kind: str, listed: int) -> tuple[str, ...]:
        rows = self._con.execute(f"SELECT key FROM {kind} ORDER BY seq, key LIMIT {listed}").fetchall()
        return tuple(str(row[0]) for row in rows)

    def _row(self, query: str) -> tuple[Any, ...]:
        row = self._con.execute(query).fetchone()
        assert row is not None
        return row

    def _number(self, query: str) -> int:
        return int(self._row(query)[0])


def _digest(ledger: Ledger) -> str:
    if "content" not in ledger.types:
        return "NULL::UBIGINT"
    return f"CASE WHEN content IS NOT NULL THEN hash({ledger.column('content', 'VARCHAR')}) END"
