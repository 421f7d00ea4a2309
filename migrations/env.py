"""Runs the migrations, on a connection it is handed or on the configured store."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from app.settings import Settings
from app.store import tables  # noqa: F401 - fills the metadata
from app.store.base import Base
from app.store.session import Store


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_configured_store() -> None:
    store = Store(Settings().store_url)
    async with store.engine.begin() as connection:
        await connection.run_sync(migrate)
    await store.close()


handed: Connection | None = context.config.attributes.get("connection")
if handed is not None:
    migrate(handed)
else:
    asyncio.run(migrate_configured_store())
