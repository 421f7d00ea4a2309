"""Transactions: all or nothing, side by side, on the database's own clock."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import anyio
import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.error_handlers import as_api_error
from app.ids import new_id
from app.store.base import db_now
from app.store.inserter import MAX_AT_ONCE, MAX_ROWS
from app.store.session import Store, insert_if_absent
from app.store.tables import IdempotencyKey, Org, StoredResponse
from tests.rows import make_org

pytestmark = pytest.mark.anyio


async def count_orgs(store: Store) -> int:
    async with store.read() as session:
        return await session.scalar(select(func.count()).select_from(Org)) or 0


async def test_what_an_exception_ends_leaves_nothing(store: Store) -> None:
    with suppress(LookupError):
        async with store.begin() as session:
            await make_org(session)
            raise LookupError
    assert await count_orgs(store) == 0


async def test_who_is_cancelled_in_the_middle_of_a_statement_holds_nobody_up(store: Store) -> None:
    async with store.begin() as session:
        for _ in range(2):
            await make_org(session)

    async def look_closely() -> None:
        async with store.begin() as session:
            await session.execute(select(Org.id).with_for_update())

    def cancel(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("SELECT orgs"):
            looking.cancel()

    looking = asyncio.create_task(look_closely())
    event.listen(store.engine.sync_engine, "before_cursor_execute", cancel)
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await looking
    async with asyncio.timeout(5), store.begin() as session:
        await make_org(session)
    assert cancelled.traceback  # it keeps all that was under way


async def test_many_writers_never_find_the_database_locked(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(4)]

    async def write(store: Store) -> None:
        async with store.begin() as session:
            seen = await session.scalar(select(func.count()).select_from(Org))
            await make_org(session, f"{seen} {id(asyncio.current_task())}")

    await asyncio.gather(*(write(stores[n % 4]) for n in range(40)))
    assert await count_orgs(stores[0]) == 40
    for store in stores:
        await store.close()


async def test_a_reader_does_not_block_a_writer_and_sees_nothing_half_done(store: Store) -> None:
    async with store.read() as reader:
        await reader.scalar(select(func.count()).select_from(Org))
        with anyio.fail_after(2):
            async with store.begin() as writer:
                await make_org(writer)
                assert await count_orgs(store) == 0
        await reader.scalar(select(func.count()).select_from(Org))
    assert await count_orgs(store) == 1


async def test_what_a_read_session_writes_is_not_kept(store: Store) -> None:
    async with store.read() as session:
        await make_org(session)
    assert await count_orgs(store) == 0


async def test_a_row_is_inserted_once_and_a_missing_parent_is_refused(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
    row = {"org_id": org.id, "key": "k", "request_hash": "h", "object_id": "first", "created_at": 0.0}
    for object_id in ("first", "second"):
        async with store.begin() as session:
            await session.execute(
                insert_if_absent(session, IdempotencyKey).values({**row, "object_id": object_id}),
            )
    async with store.read() as session:
        assert list(await session.scalars(select(IdempotencyKey.object_id))) == ["first"]
    with pytest.raises(IntegrityError):
        async with store.begin() as session:
            await session.execute(insert_if_absent(session, IdempotencyKey).values({**row, "org_id": "nobody"}))


def keys_of(org_id: str, n: int, *, first: int = 0) -> list[dict[str, Any]]:
    blank = {column.name: None for column in IdempotencyKey.__table__.columns}
    row = {**blank, "org_id": org_id, "request_hash": "h", "object_id": "o", "created_at": 0.0}
    return [{**row, "key": f"k{first + each}"} for each in range(n)]


async def count_keys(store: Store) -> int:
    async with store.read() as session:
        return await session.scalar(select(func.count()).select_from(IdempotencyKey)) or 0


@pytest.mark.parametrize("n", [1, MAX_AT_ONCE, MAX_AT_ONCE + 1, MAX_ROWS + MAX_AT_ONCE + 3])
async def test_of_rows_inserted_together_all_are_there_or_none(store: Store, n: int) -> None:
    async with store.begin() as session:
        org = await make_org(session)
    await store.insert(IdempotencyKey, keys_of(org.id, n))
    assert await count_keys(store) == n
    with pytest.raises(DBAPIError):
        await store.insert(IdempotencyKey, [*keys_of(org.id, n, first=n), *keys_of("nobody", 1, first=2 * n)])
    assert await count_keys(store) == n
    await store.insert(IdempotencyKey, keys_of(org.id, 2 * n))
    assert await count_keys(store) == 2 * n


async def test_the_clock_of_the_database_runs_in_epoch_seconds(store: Store) -> None:
    before = time.time()
    async with store.read() as session:
        first = await session.scalar(select(db_now()))
        second = await session.scalar(select(db_now()))
    assert first is not None
    assert second is not None
    assert before - 0.1 <= first <= second <= time.time() + 0.1


async def test_json_comes_back_as_it_went_in(store: Store) -> None:
    body = {"text": "ü\u2028\U0001f600 \\u0000", "nested": [1, 2.5, None, {"true": True}]}

    async with store.begin() as session:
        org = await make_org(session)
        session.add(StoredResponse(id=new_id("resp"), org_id=org.id, input_items=[body], body=body))
    async with store.read() as session:
        kept = await session.scalar(select(StoredResponse))
    assert kept is not None
    assert (kept.body, kept.input_items) == (body, [body])


async def test_a_nul_in_a_question_is_a_bad_request_and_no_fault_of_ours(store: Store) -> None:
    status, found = 400, None
    try:
        async with store.read() as session:
            found = await session.get(Org, "org_\x00")
    except DBAPIError as error:  # PostgreSQL has no NUL in its texts
        status = as_api_error(error).status_code
    assert (status, found) == (400, None)
