"""What is sealed comes back to its own organisation, on every gateway of the store, and to nobody else."""

import asyncio

import pytest

from app.inference.seals import BrokenSeal, Seals
from app.store.session import Store

pytestmark = pytest.mark.anyio

CONTENT = [{"type": "message", "role": "assistant", "content": "Loam is soil. \u2028 Søren, 土."}]


async def test_every_gateway_of_a_store_opens_what_another_has_sealed(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(3)]
    first, *others = await asyncio.gather(*(Seals.load(store) for store in stores))
    sealed = first.of("org_a").close(CONTENT)
    assert all(seals.of("org_a").open(sealed) == CONTENT for seals in others)
    assert "soil" not in sealed
    for store in stores:
        await store.close()


async def test_another_organisation_and_another_store_are_told_what_a_forger_is(store: Store) -> None:
    seals = await Seals.load(store)
    sealed = seals.of("org_a").close(CONTENT)
    strange = Seals(b"another store's key").of("org_a").close(CONTENT)
    forged = sealed[:-8] + ("A" if sealed[-8] != "A" else "B") + sealed[-7:]
    cases = [
        ("org_b", sealed),
        ("org_a", strange),
        ("org_a", forged),
        ("org_a", "nonsense"),
        ("org_a", "\ud800é"),
        ("org_a", ""),
    ]
    for org_id, text in cases:
        with pytest.raises(BrokenSeal) as error:
            seals.of(org_id).open(text)
        assert error.value.status_code == 400
        assert error.value.message == BrokenSeal().message


async def test_a_cache_salt_is_an_organisations_own_and_not_to_be_told_from_its_id(store: Store) -> None:
    seals, again = await Seals.load(store), await Seals.load(store)
    assert seals.cache_salt("org_a") == again.cache_salt("org_a") != seals.cache_salt("org_b")
    assert seals.cache_salt("org_a") != Seals(b"another store's key").cache_salt("org_a")
    assert "org_a" not in seals.cache_salt("org_a")
