"""Pages: every row that was there when paging began comes exactly once, whatever comes and goes meanwhile."""

import random

import pytest
from sqlalchemy import select

from app.errors import BadRequest
from app.store.paging import Page, PageQuery, list_out, paginate
from app.store.session import Store
from app.store.tables import File, Org
from tests.rows import make_file, make_org

pytestmark = pytest.mark.anyio


async def page(store: Store, org: Org, query: PageQuery) -> Page[File]:
    async with store.read() as session:
        rows = select(File).where(File.org_id == org.id)
        return await paginate(session, rows, File.id, query, visible=File.deleted_at.is_(None))


async def make_files(store: Store, org: Org, n_files: int) -> list[str]:
    async with store.begin() as session:
        return [(await make_file(session, org)).id for _ in range(n_files)]


async def delete(store: Store, file_id: str) -> None:
    async with store.begin() as session:
        (await session.get_one(File, file_id)).deleted_at = 1.0


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("seed", range(3))
async def test_every_old_row_comes_exactly_once_while_others_come_and_go(store: Store, order: str, seed: int) -> None:
    chance = random.Random(seed)
    async with store.begin() as session:
        org = await make_org(session)
    old = await make_files(store, org, 25)
    seen: list[str] = []
    deleted: set[str] = set()
    after, has_more = None, True
    while has_more:
        query = PageQuery.model_validate({"after": after, "limit": chance.randint(1, 6), "order": order})
        got = await page(store, org, query)
        seen += [file.id for file in got.rows]
        has_more = got.has_more
        if got.rows:
            after = got.rows[-1].id
            # The cursor itself goes, and one that is still to come.
            deleted |= {after, chance.choice(old)}
            for file_id in deleted:
                await delete(store, file_id)
        await make_files(store, org, 1)
        if len(seen) > 60:  # ascending, each new row is one to come
            break
    assert len(seen) == len(set(seen))
    assert set(old) - deleted <= set(seen)
    assert [file_id for file_id in seen if file_id in old] == sorted(set(seen) & set(old), reverse=order == "desc")


async def test_has_more_is_exact_at_the_end(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
    ids = await make_files(store, org, 4)
    first = await page(store, org, PageQuery(limit=2))
    assert ([f.id for f in first.rows], first.has_more) == (ids[:1:-1], True)
    second = await page(store, org, PageQuery(limit=2, after=first.rows[-1].id))
    assert ([f.id for f in second.rows], second.has_more) == (ids[1::-1], False)


async def test_a_cursor_of_another_organisation_is_refused_like_an_unknown_one(store: Store) -> None:
    async with store.begin() as session:
        mine, theirs = await make_org(session), await make_org(session)
    [their_file] = await make_files(store, theirs, 1)
    refusals = []
    for cursor in (their_file, "file-none"):
        with pytest.raises(BadRequest) as refused:
            await page(store, mine, PageQuery(after=cursor))
        refusals.append((refused.value.message, refused.value.param))
    assert refusals[0] == refusals[1]


def test_the_envelope_of_nothing_has_no_ids() -> None:
    assert list_out([], has_more=False) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
