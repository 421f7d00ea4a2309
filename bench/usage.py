"""`python -m bench.usage`: how long the answers about usage take over a ledger of ten million entries."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import balance_micros, spend_since
from app.billing.usage import DAY_SECONDS, Asked, Bucket, Group, usage
from app.orgs.service import create_org
from app.store.session import Store
from bench.machine import SCRATCH, facts
from bench.show import show, telling, write
from bench.summary import Summary
from tests.stores import PostgresStores

RESULTS = Path(__file__).parent / "results" / "usage.md"
DAYS, BATCH = 90, 500_000
HEAD = """\
# How long answers about usage take

One organisation of {rows:,} ledger entries in {days} days, of 5 keys and 10 models, on PostgreSQL: the median of
{rounds} rounds in milliseconds (least..most), transaction included. Writing the entries took {seconds:,.0f} s.\
"""
FILL = text("""
    INSERT INTO ledger_entries (id, org_id, key_id, source, kind, amount_micros, model, gpu, prompt_tokens,
        cached_tokens, completion_tokens, reasoning_tokens, trained_tokens, gpu_seconds, created_at)
    SELECT 'led_' || n, :org, 'key_' || n % 5, 'request:' || n, 'inference', -(n % 100), 'model-' || (n / 5) % 10,
        'CPU', 100, 10, 50, 0, 0, 0, :since + n * CAST(:step AS DOUBLE PRECISION)
    FROM generate_series(CAST(:first AS BIGINT), CAST(:last AS BIGINT)) AS n
""")

Question = Callable[[AsyncSession, str], Awaitable[object]]


def questions(now: float) -> dict[str, Question]:
    month = Asked(now - 30 * DAY_SECONDS, now)
    everything = Asked(now - DAYS * DAY_SECONDS, now, Bucket.DAY, (Group.KEY, Group.MODEL, Group.KIND))
    return {
        "GET /balance/current": balance_micros,
        "a window of 24 hours": lambda session, org: spend_since(session, org, now - 24 * 3600),
        "a window of 30 days": lambda session, org: spend_since(session, org, now - 30 * DAY_SECONDS),
        "GET /usage, 30 days by model and kind": lambda session, org: usage(session, org, month),
        "GET /usage, all days by key, model and kind": lambda session, org: usage(session, org, everything),
    }


def main(
    rows: Annotated[int, typer.Option(min=BATCH, help="Entries of the ledger.")] = 10_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is asked.")] = 20,
) -> None:
    """Fills a ledger by SQL, and asks; written to bench/results/usage.md."""
    scratch = tempfile.TemporaryDirectory(prefix="loam-bench-", dir=SCRATCH)
    with scratch as folder, PostgresStores.running(Path(folder)) as stores:
        seconds, found = asyncio.run(_run(stores.new_url(), rows, rounds))
    told, headings = facts(), ["question", "ms"]
    show(headings, [[name, summary.with_spread] for name, summary in found.items()], told)
    head = HEAD.format(rows=rows, days=DAYS, rounds=rounds, seconds=seconds)
    write(RESULTS, head, headings, [[name, summary.with_range] for name, summary in found.items()], told)


async def _run(url: str, rows: int, rounds: int) -> tuple[float, dict[str, Summary]]:
    store, now = Store(url), time.time()
    async with store.begin() as session:
        org = (await create_org(session, "bench")).id
    began = time.monotonic()
    await _fill(store, org, rows, now)
    seconds = time.monotonic() - began
    found = {name: await _asked(store, org, question, rounds) for name, question in questions(now).items()}
    await store.close()
    return seconds, {name: summary for name, summary in found.items() if summary}


async def _fill(store: Store, org: str, rows: int, now: float) -> None:
    since, step = now - DAYS * DAY_SECONDS, DAYS * DAY_SECONDS / rows
    with telling(rows // BATCH) as tell:
        for first in range(0, rows, BATCH):
            tell(f"{first + BATCH:,} entries")
            values = {"org": org, "since": since, "step": step, "first": first, "last": first + BATCH - 1}
            async with store.begin() as session:
                await session.execute(FILL, values)
    async with store.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("ANALYZE"))


async def _asked(store: Store, org: str, question: Question, rounds: int) -> Summary | None:
    times: list[float | None] = []
    for _ in range(rounds):
        began = time.perf_counter()
        async with store.read() as session:
            await question(session, org)
        times.append((time.perf_counter() - began) * 1000)
    return Summary.of(times)


if __name__ == "__main__":
    typer.run(main)
