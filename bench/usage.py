"""`python -m bench.usage`: how long the answers about usage take over a ledger of ten million entries."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.filesize import decimal
from sqlalchemy import text

from app.billing.sums import DAY_SECONDS, close_days
from app.store.session import Store
from bench.machine import SCRATCH, facts
from bench.show import show, telling, write
from bench.summary import Summary
from tests.servers import running_server
from tests.stores import PostgresStores

RESULTS = Path(__file__).parent / "results" / "usage.md"
DAYS, BATCH = 90, 500_000
HEAD = """\
# How long answers about usage take

One organisation of {rows:,} ledger entries in {days} days, of 5 keys and 10 models, on PostgreSQL: the time `loam up`
takes to answer over HTTP, on the same cores as the database and who asks. The median of {rounds} rounds in milliseconds
(least..most). Writing the entries took {filling:,.0f} s; closing the days that are over, which a gateway does with each
of them once, {closing:,.1f} s.\
"""
FILL = text("""
    INSERT INTO ledger_entries (id, org_id, key_id, source, kind, amount_micros, model, gpu, prompt_tokens,
        cached_tokens, completion_tokens, reasoning_tokens, trained_tokens, gpu_seconds, created_at)
    SELECT 'led_' || n, :org, 'key_' || n % 5, 'request:' || n, 'inference', -(n % 100), 'model-' || (n / 5) % 10,
        'CPU', 100, 10, 50, 0, 0, 0, :since + n * CAST(:step AS DOUBLE PRECISION)
    FROM generate_series(CAST(:first AS BIGINT), CAST(:last AS BIGINT)) AS n
""")

Params = dict[str, str | float]


def questions(now: float) -> dict[str, tuple[str, Params]]:
    """Windows that begin and end in the middle of an hour, as they do."""
    month, everything, all_groups = now - 30 * DAY_SECONDS, now - DAYS * DAY_SECONDS, "key,model,kind"
    asked: dict[str, Params] = {
        "30 days by model and kind": {"start": month},
        "all days by key, model and kind": {"start": everything, "group_by": all_groups},
        "the same as CSV": {"start": everything, "group_by": all_groups, "format": "csv"},
        "all months by key, model and kind": {"start": everything, "group_by": all_groups, "bucket": "month"},
        "one key, all days by model": {"start": everything, "group_by": "model", "key": "key_1"},
        "7 days by hour and kind": {"start": now - 7 * DAY_SECONDS, "group_by": "kind", "bucket": "hour"},
        "the hours of a day by key, model and kind": {
            "start": month,
            "end": month + DAY_SECONDS,
            "group_by": all_groups,
            "bucket": "hour",
        },
    }
    return {
        "GET /balance/current": ("/v1/balance/current", {}),
        "GET /balance/usage": ("/v1/balance/usage", {}),
        "GET /balance/usage/windows, 24 and 168 hours": ("/v1/balance/usage/windows", {}),
        "GET /balance/usage/windows, all days": ("/v1/balance/usage/windows", {"hours": f"{DAYS * 24}"}),
        **{f"GET /usage, {what}": ("/v1/usage", params) for what, params in asked.items()},
    }


def main(
    rows: Annotated[int, typer.Option(min=BATCH, help="Entries of the ledger.")] = 10_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is asked.")] = 20,
) -> None:
    """Fills a ledger by SQL, and asks; written to bench/results/usage.md."""
    scratch = tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH)
    with scratch as folder, PostgresStores.running(Path(folder) / "database") as stores:
        url, data_dir = stores.new_url(), Path(folder) / "server"
        data_dir.mkdir()
        with running_server(data_dir, "--simulate", LOAM_DATABASE_URL=url) as server:
            org = server.new_org()
            seconds = asyncio.run(_prepare(url, org.id, rows))
            found = _ask(server.url, org.headers, rounds)
    told, headings = facts(), ["question", "ms", "answer"]
    show(headings, [[name, ms.with_spread, size] for name, (ms, size) in found.items()], told)
    head = HEAD.format(rows=rows, days=DAYS, rounds=rounds, **seconds)
    write(RESULTS, head, headings, [[name, ms.with_range, size] for name, (ms, size) in found.items()], told)


async def _prepare(url: str, org: str, rows: int) -> dict[str, float]:
    """How many seconds filling the ledger and closing its days took."""
    store, now, began = Store(url), time.time(), time.monotonic()
    await _fill(store, org, rows, now)
    filled = time.monotonic()
    await close_days(store, now)
    closed = time.monotonic()
    await _settle(store)
    await store.close()
    return {"filling": filled - began, "closing": closed - filled}


async def _fill(store: Store, org: str, rows: int, now: float) -> None:
    since, step = now - DAYS * DAY_SECONDS, DAYS * DAY_SECONDS / rows
    with telling(rows // BATCH) as tell:
        for first in range(0, rows, BATCH):
            tell(f"{first + BATCH:,} entries")
            values = {"org": org, "since": since, "step": step, "first": first, "last": first + BATCH - 1}
            async with store.begin() as session:
                await session.execute(FILL, values)


async def _settle(store: Store) -> None:
    """Clean up, as PostgreSQL does by itself some time later."""
    async with store.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("VACUUM ANALYZE"))


def _ask(url: str, headers: dict[str, str], rounds: int) -> dict[str, tuple[Summary, str]]:
    """Each question in turn, round by round: how long it took, and how much the answer was."""
    asked = questions(time.time())
    times: dict[str, list[float | None]] = {name: [] for name in asked}
    sizes = {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for name, (path, params) in [*asked.items()] * rounds:
            began = time.perf_counter()
            answer = client.get(path, params=params).raise_for_status()
            times[name].append((time.perf_counter() - began) * 1000)
            sizes[name] = decimal(len(answer.content))
    return {name: (summary, sizes[name]) for name, found in times.items() if (summary := Summary.of(found))}


if __name__ == "__main__":
    typer.run(main)
