"""What SQLite is given by a thread of its own, beside others who write."""

import asyncio
import sqlite3
from typing import Any

import pytest
from sqlalchemy import func, select

from app.store.session import Store
from app.store.tables import Org
from tests.stores import SqliteStores

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("n", [1, 70])
async def test_rows_wait_for_another_writer(sqlite_stores: SqliteStores, n: int) -> None:
    store = Store(sqlite_stores.new_url())
    other = sqlite3.connect(str(store.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    rows: list[dict[str, Any]] = [{column.name: None for column in Org.__table__.columns} for _ in range(n)]
    for number, row in enumerate(rows):
        row |= {"id": f"org_{number}", "name": f"{number}", "created_at": 0.0}
    waiting = asyncio.create_task(store.insert(Org, rows))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.shield(waiting)
    other.execute("COMMIT")
    await waiting
    async with store.read() as session:
        assert await session.scalar(select(func.count()).select_from(Org)) == n
    other.close()
    await store.close()
