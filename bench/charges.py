"""`python -m bench.charges`: what durable metering costs, and what of it the sums that the database keeps up.

The ledger's writer alone, beside itself without the sums and beside one that writes nothing.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Annotated, Protocol

import typer
from sqlalchemy import text

from app.billing.charges import Charges
from app.billing.funds import Funds
from app.billing.ledger import Entry
from app.orgs.service import create_org
from app.store.base import Base
from app.store.inserter import Rows
from app.store.session import Store
from bench.machine import SCRATCH, facts
from bench.report import NOTHING
from bench.show import show, telling, write
from bench.summary import Summary, times
from tests.stores import PostgresStores, SqliteStores

RESULTS = Path(__file__).parent / "results" / "charges.md"
CONNECTIONS = (1, 32, 128)
KEYS, MODELS = 5, 10
BARE = "{}, no sums"
HEAD = """\
# What a charge costs

`Charges.record` called by 1, 32 and 128 at once, each again as soon as its entry is committed, for 5 keys and 10
models of one organisation: the median of {rounds} rounds of {seconds:g} s (least..most). CPU time is this process's;
PostgreSQL works in others, on the same cores. "No sums": the same ledger without the trigger that keeps balances and
usage up. The last columns are what it is with them, as a multiple of what it is without, within each round.\
"""


class Writer(Protocol):
    async def record(self, entry: Entry) -> None: ...


class NoWriter:
    """What the measuring itself costs."""

    async def record(self, entry: Entry) -> None:
        await asyncio.sleep(0)


class CountingStore(Store):
    """Counts its commits."""

    commits = 0

    async def insert(self, table: type[Base], rows: Rows) -> None:
        await super().insert(table, rows)
        self.commits += 1


@dataclass
class Ledger:
    """A writer, and the store that it writes to."""

    writer: Writer
    org_id: str
    store: CountingStore | None = None
    numbers: "count[int]" = field(default_factory=count)

    @property
    def commits(self) -> int:
        return self.store.commits if self.store else 0

    def next_entry(self) -> Entry:
        number = next(self.numbers)
        return Entry(
            org_id=self.org_id,
            key_id=f"key_{number % KEYS}",
            source=f"request:{number}",
            kind="inference",
            amount_micros=-5,
            model=f"bench/model-{number // KEYS % MODELS}",
            gpu="CPU",
            prompt_tokens=16,
            completion_tokens=16,
        )


@dataclass(frozen=True)
class Measured:
    charges: int
    commits: int
    seconds: float
    cpu_seconds: float


FIGURES: dict[str, Callable[[Measured], float | None]] = {
    "charges/s": lambda measured: measured.charges / measured.seconds,
    "commits/s": lambda measured: measured.commits / measured.seconds if measured.commits else None,
    "rows / commit": lambda measured: measured.charges / measured.commits if measured.commits else None,
    "CPU µs / charge": lambda measured: measured.cpu_seconds * 1e6 / measured.charges,
}
Runs = dict[tuple[int, str], list[Measured]]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each measurement takes.")] = 1.0,
) -> None:
    """Charges on SQLite and on PostgreSQL, with sums and without, and none at all, in turns; written to
    bench/results/charges.md.
    """
    with tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH) as folder:
        sqlite, postgres = Path(folder) / "sqlite", Path(folder) / "postgres"
        sqlite.mkdir()
        with PostgresStores.running(postgres) as stores:
            databases: dict[str, SqliteStores | PostgresStores] = {"SQLite": SqliteStores(sqlite), "PostgreSQL": stores}
            names = [name for database in databases for name in (database, BARE.format(database))]
            urls = {name: databases[name.partition(",")[0]].new_url() for name in names}
            runs = asyncio.run(_run(urls, rounds, seconds))
    names = ["none", *names]
    headings, told = ["at once", "figure", *names, *(f"{database}, ratio" for database in databases)], facts()
    show(headings, lines(runs, names, lambda of: of.with_spread), told)
    write(
        RESULTS,
        HEAD.format(rounds=rounds, seconds=seconds),
        headings,
        lines(runs, names, lambda of: of.with_range),
        told,
    )


def lines(runs: Runs, names: Sequence[str], tell: Callable[[Summary], str]) -> list[list[str]]:
    """A column for each writer, and one for each that is there without sums too."""
    found = []
    for connections in CONNECTIONS:
        for figure, of in FIGURES.items():
            values = {name: [of(measured) for measured in runs[connections, name]] for name in names}
            bare = [(values[name], values[BARE.format(name)]) for name in names if BARE.format(name) in values]
            columns = [*values.values(), *(times(*pair) for pair in bare)]
            told = (tell(summary) if (summary := Summary.of(column)) else NOTHING for column in columns)
            found.append([f"{connections}", figure, *told])
    return found


async def _run(urls: Mapping[str, str], rounds: int, seconds: float) -> Runs:
    runs: Runs = {}
    async with AsyncExitStack() as stack:
        ledgers = {"none": Ledger(NoWriter(), "org")}
        for name, url in urls.items():
            has_sums = name != BARE.format(name.partition(",")[0])
            ledgers[name] = await stack.enter_async_context(_ledger(url, has_sums=has_sums))
        with telling(rounds * len(CONNECTIONS) * len(ledgers)) as tell:
            for number in range(1, rounds + 1):
                for connections, (name, ledger) in product(CONNECTIONS, ledgers.items()):
                    tell(f"round {number}/{rounds} · {connections} at once · {name}")
                    runs.setdefault((connections, name), []).append(await _measure(ledger, connections, seconds))
    return runs


@asynccontextmanager
async def _ledger(url: str, *, has_sums: bool) -> AsyncIterator[Ledger]:
    store = CountingStore(url)
    async with store.begin() as session:
        org = await create_org(session, "bench")
        if not has_sums:
            on = " ON ledger_entries" if store.engine.dialect.name == "postgresql" else ""
            await session.execute(text(f"DROP TRIGGER roll_up_entries{on}"))
    charges = Charges(store, Funds(store, lease_seconds=15))
    try:
        yield Ledger(charges, org.id, store)
    finally:
        await charges.settle()
        await store.close()


async def _measure(ledger: Ledger, connections: int, seconds: float) -> Measured:
    end = time.monotonic() + seconds
    began, cpu, commits = time.monotonic(), time.process_time(), ledger.commits
    charges = await asyncio.gather(*(_charge(ledger, end) for _ in range(connections)))
    return Measured(sum(charges), ledger.commits - commits, time.monotonic() - began, time.process_time() - cpu)


async def _charge(ledger: Ledger, end: float) -> int:
    """One after the other; how many."""
    done = 0
    while time.monotonic() < end:
        await ledger.writer.record(ledger.next_entry())
        done += 1
    return done


if __name__ == "__main__":
    typer.run(main)
