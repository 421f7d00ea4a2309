"""Prices are kept as they were."""

from decimal import Decimal

import pytest
from sqlalchemy import select

from app.billing.charges import Charges
from app.billing.funds import Funds
from app.billing.ledger import list_entries
from app.billing.price_versions import keep_prices
from app.catalog.spec import Catalog
from app.store.session import Store
from app.store.tables import PriceVersion
from tests.billing.test_ledger import entry, new_org
from tests.rows import CATALOG

pytestmark = pytest.mark.anyio


def dearer() -> Catalog:
    model = CATALOG.models[0]
    prices = model.dollars_per_million_tokens.model_copy(update={"completion": Decimal("2.5")})
    changed = model.model_copy(update={"dollars_per_million_tokens": prices})
    return CATALOG.model_copy(update={"models": [changed, *CATALOG.models[1:]]})


async def kept(store: Store, catalog: Catalog) -> str:
    async with store.begin() as session:
        return await keep_prices(session, catalog)


async def test_each_change_of_prices_is_kept_once(store: Store) -> None:
    versions = [await kept(store, catalog) for catalog in (CATALOG, dearer(), dearer(), CATALOG)]
    assert versions[0] == versions[3] != versions[1] == versions[2]
    async with store.read() as session:
        rows = {row.id: row.prices for row in await session.scalars(select(PriceVersion))}
    assert rows.keys() == set(versions)
    told = [rows[version]["dollars_per_million_tokens"]["test/a"]["completion"] for version in versions[:2]]
    assert told == ["2", "2.5"]


async def test_an_entry_says_by_which_prices_it_was_charged(store: Store) -> None:
    org, version = await new_org(store), await kept(store, CATALOG)
    await Charges(store, Funds(store, lease_seconds=15), price_version=version).record(entry(org))
    async with store.read() as session:
        assert [each.price_version for each in await list_entries(session, org)] == [version]
