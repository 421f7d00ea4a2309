"""Brings the store to the newest schema."""

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.settings import ROOT
from app.store.session import Store

LOCK_ID = 0x4C6F616D  # two gateways that start together migrate one after the other


async def migrate(store: Store) -> None:
    """Upgrade to head; only looks, and quickly, where the schema is current."""
    async with store.read() as session:
        is_current = await (await session.connection()).run_sync(_is_current)
    if not is_current:
        async with store.engine.begin() as connection:
            await connection.run_sync(_upgrade)


def _is_current(connection: Connection) -> bool:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == head


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
    if not _is_current(connection):  # another may have been first
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config
