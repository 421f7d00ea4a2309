"""Prices as they were: what was charged stays what it was, and every entry says by which prices."""

import hashlib
import time
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.spec import Catalog
from app.store.session import insert_if_absent
from app.store.tables import PriceVersion


def prices_of(catalog: Catalog) -> dict[str, Any]:
    """Dollars, as decimal texts."""
    models = {model.id: model.dollars_per_million_tokens.model_dump(mode="json") for model in catalog.models}
    gpus = {name: str(gpu.dollars_per_hour) for name, gpu in catalog.gpus.items()}
    return {"dollars_per_million_tokens": models, "dollars_per_gpu_hour": gpus}


def version_of(catalog: Catalog) -> str:
    """The same for the same prices."""
    canonical = orjson.dumps(prices_of(catalog), option=orjson.OPT_SORT_KEYS)
    return f"prices-{hashlib.sha256(canonical).hexdigest()[:16]}"


async def keep_prices(session: AsyncSession, catalog: Catalog) -> str:
    """Write them down, unless these are known; their version."""
    version = version_of(catalog)
    row = {"id": version, "prices": prices_of(catalog), "created_at": time.time()}
    await session.execute(insert_if_absent(session, PriceVersion).values(row))
    return version
